"""How long the next message of a queue has waited, although the list holds nothing but messages.

If three messages wait behind the next one, it is the fourth to last that came. So the arrivals in the history are
counted back. Pushes through this instance are counted there. What others pushed is the growth of the depth beyond those
pushes. That holds only while nobody else takes messages: one that comes and goes between two readings is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import NamedTuple

from broker.models import NextMessage, State
from web.live.history import STEP_SECONDS, Cell, History, number_of

# Share of the pushes by which the depth may grow without proving that others push: a request can be counted one step
# after the depth has changed.
MAX_UNCOUNTED = 0.05

Age = dict[str, int | bool]  # seconds, at_least


@dataclass(frozen=True)
class Arrival:
    """When a message came: at most one step before `since` (Unix time); with `at_least`, any time before it."""

    since: float
    at_least: bool = False


class _Interval(NamedTuple):
    """What happened from one reading of the depth to the next."""

    end: float  # when the step of the later reading ended
    is_long: bool  # there were steps without a reading
    pushed: int  # through this instance, as are those taken
    taken: int
    taken_before: int  # taken in the step of the earlier reading, whether before or after that reading
    retaken: int  # of `taken`, those that had been delivered before
    others: int  # how the depth changed beyond `pushed` and `taken`
    first: int  # the message that was next at the beginning, 0 if unknown
    last: int  # at the end


class _Past:
    """The intervals of the steps that have ended."""

    def __init__(self, cells: Sequence[Cell], end: float) -> None:
        """`end` is that of the last of the cells."""
        self.intervals: list[_Interval] = []
        self.since = 0.0  # the first reading
        self._last = Cell()  # the cell of the last reading
        self._first = 0  # the next message at the last reading that recorded one
        self._unread: list[Cell] = []  # the cells since the last reading
        for number, cell in enumerate(cells, 1 - len(cells)):
            if cell.last_at:
                self.intervals.append(self.interval(cell, end + number * STEP_SECONDS))
                self.since = self.since or cell.start_at
                self._last, self._first, self._unread = cell, cell.next or self._first, []
            elif self.intervals:
                self._unread.append(cell)
        self.pushed = sum(one.pushed for one in self.intervals)
        self.retaken = sum(one.retaken for one in self.intervals)
        self.grown = max(accumulate(one.others for one in reversed(self.intervals)), default=0)

    def interval(self, cell: Cell, end: float) -> _Interval:
        """Return the interval from the last reading to that in the next cell."""
        depth = self._last.last if self.intervals else cell.start
        cells = [*self._unread, cell]
        pushed, taken = sum(one.pushed for one in cells), sum(one.taken for one in cells)
        return _Interval(
            end=end,
            is_long=len(cells) > 1,
            pushed=pushed,
            taken=taken,
            taken_before=self._last.taken,
            retaken=sum(one.retaken for one in cells),
            others=cell.last - (depth + pushed - taken),
            first=self._first,
            last=cell.next,
        )


def age_of(arrival: Arrival | None, history: History) -> Age | None:
    """Return the present age of a message as in answers; None if nothing is known."""
    seconds = max(0, int(history.now() - arrival.since)) if arrival else 0
    return {"seconds": seconds, "at_least": arrival.at_least} if arrival and (seconds or not arrival.at_least) else None


def record_state(history: History, queue: str, state: State, watched: bool = False) -> Arrival | None:
    """Record the state of a queue, and return when its next message came; None if that is not known at all."""
    next_message = state.next_message
    history.record_depth(queue, state.counts.count, watched, next_message.summary if next_message else b"")
    return find_arrival(history, queue, state.counts.count, next_message)


def find_age(history: History, queue: str, waiting: int) -> Age | None:
    """Return the age of the first of the messages that wait now; None if it is unknown."""
    return age_of(find_arrival(history, queue, waiting), history)


def find_arrival(history: History, queue: str, waiting: int, next_message: NextMessage | None = None) -> Arrival | None:
    """Return when the first of the messages that wait now came; None if none waits, or the queue is not recorded."""
    now, memo = history.now(), history.memo()
    if not waiting or not (current := history.cells(queue, 1)):
        return None
    if queue not in memo:
        memo[queue] = _Past(history.cells(queue)[:-1], now // STEP_SECONDS * STEP_SECONDS)
    past, cell, known = memo[queue], current[0], next_message or NextMessage(b"")
    if not cell.last_at:
        cell = replace(cell, start=waiting - cell.pushed + cell.taken, start_at=now)
    last = past.interval(replace(cell, last=waiting, last_at=now, next=number_of(known.summary)), now)
    since = past.since or cell.start_at
    if known.returned is None:
        return _count_back(past, last, since, waiting - 1)
    returned_at = now - known.returned
    # A message that came back is older than those behind it that never did; one pushed to the front may be younger.
    if known.deliveries:
        behind = max(0, waiting - known.redeliveries)
        returned_at = min(returned_at, _count_back(past, last, since, behind, known.redeliveries).since)
    return Arrival(returned_at, at_least=True)


def _count_back(past: _Past, last: _Interval, since: float, behind: int, returned: int = 0) -> Arrival:
    """Return when the message with `behind` others behind it came.

    `last` is the interval that ends now, `since` the time of the first reading, `returned` how many of the waiting
    messages were put in front of others."""
    returned += past.retaken + last.retaken  # all that came back in the history
    grown_by_others = max(0, last.others + max(0, past.grown) - returned)
    do_others_push = grown_by_others > MAX_UNCOUNTED * (past.pushed + last.pushed)
    latest: float | None = None  # the latest time it can have come: if all arrivals that cannot be placed came last
    net = came = retaken = taken_after = next_message = 0
    for one in chain([last], reversed(past.intervals)):
        behind, net, retaken = behind - one.pushed, net + one.others, retaken + one.retaken
        hidden = grown_by_others
        if do_others_push or not returned:
            came = max(came, net)
            # At most, if all `taken_before` were taken after the earlier reading.
            hidden = max(0, min(hidden, net + one.taken_before - came))
        if behind < came + hidden:
            latest = latest or one.end
        if behind < came:
            is_vague = (one.is_long and one.others > 0) or (do_others_push and retaken > 0)
            return Arrival(latest or one.end, at_least=is_vague or latest != one.end)
        next_message = one.last or next_message
        stays = 0 < one.first == next_message  # nobody has taken a message
        taken = one.taken_before + one.taken + taken_after
        if do_others_push and (came - net > taken or (one.others > 0 and not taken and not stays)):
            return Arrival(latest or one.end, at_least=True)  # others take messages too, so more may have come
        taken_after = one.taken
    return Arrival(latest or since, at_least=True)
