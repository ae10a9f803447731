"""Reasons: why the messages of a queue failed, counted from what `broker/lua` keeps of each failure."""

from collections.abc import Callable, Iterator
from itertools import chain, count

from broker.keys import parent_name
from broker.queue.base import ScriptedQueue
from broker.reasons import Reason, Tally

PAGE = 250  # failures read at once, each with a reason of up to 1,000 characters
MAX_READ = 100_000  # failures, and delayed messages that never failed, that are read
Failure = tuple[int, float, str]  # the number of messages, when the last of them failed, and why


class ReasonOperations(ScriptedQueue):
    """The operations on failures as a whole."""

    def reasons(self) -> tuple[list[Reason], bool]:
        """Return the reasons of the dead letters and of what waits to be retried, and whether these are all.

        For a queue of dead letters, return those of its own messages. It reads up to 100,000 failures, and counts up
        to 1,000 reasons, in pages between which Redis serves others, so it can miss what changes meanwhile.
        """
        tally, read = Tally(), 0
        pages: Iterator[list[Failure]]
        if parent_name(self.name) is None:
            pages = chain(self._dead_letters("dead:"), self._returned(), self._delayed())
        else:
            pages = self._dead_letters()
        for failures in pages:
            if read >= MAX_READ:
                tally.complete = False
                break
            tally.add(failures)
            read += max(PAGE, len(failures))
        return tally.reasons(), tally.complete

    def _dead_letters(self, owner: str = "") -> Iterator[list[Failure]]:
        """Yield the failures of dead letters. A hash that grows or shrinks meanwhile can repeat a field."""
        seen: set[bytes] = set()
        cursor = None
        while cursor != 0:
            key = self.key_prefix + owner + "failure_reasons"
            cursor, records = self.client_for_large.hscan(key, cursor or 0, count=PAGE)
            new = [record.split(b":", 3) for digest, record in records.items() if digest not in seen]
            seen.update(records)
            yield [_failure(when, reason, number) for number, _, when, reason in new]

    def _returned(self) -> Iterator[list[Failure]]:
        """Yield the failures of messages that were returned and wait, for the hour for which they are kept."""
        for entries in _pages(self.client_for_large.lrange, self.key_prefix + "redeliveries"):
            parts = (entry.split(b":", 4) for entry in entries)
            yield [_failure(*failure) for _, _, _, *failure in parts if failure]

    def _delayed(self) -> Iterator[list[Failure]]:
        """Yield the failures of messages that were released with a delay."""
        for ids in _pages(self.client_for_large.zrange, self.key_prefix + "delayed"):
            fields = [id.removesuffix(b"-d") + b":failure" for id in ids]
            found = self.client_for_large.hmget(self.key_prefix + "bodies", fields)
            yield [_failure(*failure.lstrip(b"!").split(b":", 1)) for failure in found if failure]


def _pages(read: Callable[[str, int, int], list[bytes]], key: str) -> Iterator[list[bytes]]:
    for start in count(0, PAGE):
        if not (page := read(key, start, start + PAGE - 1)):
            return
        yield page


def _failure(when: bytes, reason: bytes, number: bytes = b"1") -> Failure:
    return int(number), int(when) / 1000, reason.decode(errors="replace")
