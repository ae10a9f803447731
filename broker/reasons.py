"""Grouping of failure reasons: two that differ only in numbers and ids are the same."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_REASONS = 1000  # groups that are counted; failures of further ones are left out

# Each alternative needs a digit or is a UUID, and is no shorter than its replacement. So masking twice changes nothing
# more, and never makes a text longer.
_IDS_AND_NUMBERS = re.compile(
    r"""
      (?<![0-9A-Za-z]) (?:
          [0-9A-Fa-f]{8} (?: -[0-9A-Fa-f]{4} ){3} -[0-9A-Fa-f]{12}               # a UUID
        | 0x[0-9A-Fa-f]{2,}                                                      # an address
        | (?=[A-Fa-f]*[0-9]) (?=[0-9]*[A-Fa-f]) [0-9A-Fa-f]{8,}                  # a hexadecimal id
        | (?=[A-Za-z]*[0-9]) (?=[0-9]*[A-Za-z]) [0-9A-Za-z]{16,}                 # another random id
      ) (?![0-9A-Za-z])
    | ( [0-9]+ (?: [.,][0-9]+ )* )
    """,
    re.VERBOSE,
)


def mask(reason: str) -> str:
    """Return a reason with `<id>` for each id, and `#` for each number.

    An id is a UUID, a hexadecimal number that begins with 0x, a word of 8 or more hexadecimal digits with both digits
    and letters, or a word of 16 or more letters and digits with both. A number can have commas and decimals.
    """
    return _IDS_AND_NUMBERS.sub(lambda match: "#" if match[1] else "<id>", reason)


@dataclass
class Reason:
    """Failures for the same masked reason. Times are Unix times, in seconds."""

    reason: str  # masked
    count: int
    first: float
    last: float
    example: str  # the latest, as it was given


@dataclass
class Tally:
    """Counts failures by masked reason. `complete` is false if there were too many reasons to count all."""

    complete: bool = True
    _groups: dict[str, Reason] = field(default_factory=dict)

    def add(self, failures: Iterable[tuple[int, float, str]]) -> None:
        """Count failures: how many messages failed, when the last of them did, and why."""
        for count, when, example in failures:
            reason = mask(example)
            group = self._groups.get(reason)
            if group is None and len(self._groups) == MAX_REASONS:
                self.complete = False
            elif group is None:
                self._groups[reason] = Reason(reason, count, when, when, example)
            else:
                group.count += count
                group.first = min(group.first, when)
                if when >= group.last:
                    group.last, group.example = when, example

    def reasons(self) -> list[Reason]:
        """Return the reasons, most frequent first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, -group.last))
