"""The messages, answers and exceptions of a queue.

Times are Unix times in seconds by the Redis clock, sizes are bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=bytes)


def _time(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds else None


class LeaseExpired(Exception):
    """The reservations `ids` have ended, or never existed."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(", ".join(ids))
        self.ids = list(ids)


class NotFound(Exception):
    """The message is not at this position, or there is nothing to restore."""


class Conflict(Exception):
    """The Idempotency-Key was used with another request."""


class Delivery(bytes):
    """A reserved message: its bytes, and the reservation."""

    id: str
    deliveries: int  # including this one
    max_deliveries: int  # after the last of them, the message becomes a dead letter
    deadline: float

    @classmethod
    def from_reply(cls, deadline: int, max_deliveries: int, id: bytes, deliveries: int, message: bytes) -> "Delivery":
        delivery = cls(message)
        delivery.id, delivery.deliveries, delivery.deadline = id.decode(), deliveries, deadline / 1000
        delivery.max_deliveries = max_deliveries
        return delivery


@dataclass(frozen=True)
class Details:
    """The history of a message."""

    deliveries: int = 0  # of a waiting message also those before it became a dead letter
    failed: float | None = None  # time of its last failure, unless it died then; None if there was none
    reason: str = ""  # of its last failure
    died: float | None = None  # when it became a dead letter; it may have been moved back since

    @classmethod
    def from_reply(cls, deliveries: int, failed: int, reason: bytes, died: int) -> "Details":
        return cls(deliveries, _time(failed), reason.decode(errors="replace"), _time(died))


@dataclass(frozen=True)
class InFlight:
    """A message that is reserved or delayed."""

    id: str
    head: bytes  # its first bytes, up to the number requested
    size: int
    deadline: float  # when it returns to the queue
    details: Details
    by: str = ""  # who reserved it, if it said so

    @classmethod
    def from_reply(cls, id: bytes, due: int, head: bytes, size: int, history: Sequence[Any], by: bytes) -> "InFlight":
        details = Details.from_reply(*history)
        return cls(id.decode(), head, size, due / 1000, details, by.decode(errors="replace"))


@dataclass(frozen=True)
class Exported:
    """A message of a queue, to be imported into another."""

    message: bytes
    state: str = "waiting"  # or "reserved", "delayed", "dead"
    details: Details = Details()
    deadline: float = 0  # when a delayed one returns


@dataclass(frozen=True)
class Found:
    """A waiting message that contains the text."""

    position: int  # 0 is next to be popped
    head: bytes  # its first bytes, up to the number requested
    size: int
    details: Details | None = None  # if requested


@dataclass(frozen=True)
class Result:
    """The result of a job, or why it failed, and when that was stored."""

    result: bytes
    at: float
    failed: str | None = None  # the reason; None if it did not fail


@dataclass(frozen=True)
class Ack:
    """A message that is done, and the result to store for its job, if any."""

    id: str
    job: str | None = None
    result: bytes = b""


@dataclass(frozen=True)
class Release:
    """A message to return now, to return in `delay` seconds, or to bury. If it is buried, its job has failed.

    If its work is `unstarted`, it returns now, and this delivery does not count.
    """

    id: str
    delay: float = 0
    dead: bool = False
    unstarted: bool = False
    reason: str = ""
    job: str | None = None


@dataclass(frozen=True)
class Extend:
    """A lease, or a delay, to end `lease` seconds from now."""

    id: str
    lease: float = 30


@dataclass(frozen=True)
class Settled:
    """The numbers of messages settled. Nothing was changed about those that are `stale`."""

    acked: int
    released: int
    dead: int  # those of the released ones that were buried
    extended: int
    stale: list[str]


@dataclass(frozen=True)
class QueueCounts:
    """The number of messages of each kind and of clients waiting for one, and whether the queue is paused."""

    count: int = 0  # waiting
    reserved: int = 0
    delayed: int = 0
    dead: int = 0
    waiters: int = 0
    paused: bool = False

    def as_dict(self) -> dict[str, int | bool]:
        """Return the counts by name, in this order."""
        return dict(vars(self))


@dataclass(frozen=True)
class Consumer:
    """A consumer of a queue: what it has reserved, and how many of its requests wait for a message."""

    by: str = ""  # how it names itself; all those without a name are one
    reserved: int = 0
    oldest: float | None = None  # seconds since it reserved the oldest of its messages; None if it has none
    waiting: int = 0


@dataclass(frozen=True)
class NextMessage:
    """What is known of the message that will be popped next."""

    summary: bytes  # its size and the bytes at its ends, which stand for it
    returned: float | None = None  # seconds since it was put in front of others; None if it was not, or is not known
    deliveries: int = 0  # so far, if it came back
    redeliveries: int = 0  # messages that were put in front, this one included; an upper bound

    @classmethod
    def from_reply(cls, summary: bytes, returned: int, deliveries: int, redeliveries: int) -> "NextMessage":
        return cls(summary, None if returned < 0 else returned / 1000, deliveries, redeliveries)


@dataclass(frozen=True)
class State:
    """The counts of a queue, and the first messages in pop order, each as its first bytes and its size.

    `next_change` is the number of seconds until a count changes because a lease, a delay or a report of waiters ends;
    None if there is none. `next_message` is set if messages from the first one on were requested.
    """

    counts: QueueCounts
    heads: list[tuple[bytes, int]]
    next_change: float | None
    next_message: NextMessage | None = None


@dataclass(frozen=True)
class Pushed:
    """The length of the queue after a push, and the ids of delayed messages."""

    count: int
    ids: list[str] = field(default_factory=list)
    is_repeated: bool = False  # this answer was saved for the Idempotency-Key; nothing was pushed again


@dataclass(frozen=True)
class Batch(Generic[M]):
    """Messages taken from a queue. If there are none, `next_due` is the seconds until a lease or delay ends, if any."""

    messages: list[M]
    next_due: float | None = None
    paused: bool = False  # nothing was taken because the queue is paused
    retry_after: float = 0  # seconds; set if nothing was taken because the limits of the queue are reached
    is_repeated: bool = False  # this answer was saved for the Idempotency-Key; nothing was taken again

    @property
    def limited(self) -> bool:
        """Whether nothing was taken because the limits of the queue are reached."""
        return self.retry_after > 0


@dataclass(frozen=True)
class QueueSettings:
    """The settings of a queue; 0 is none."""

    at_once: int = 0  # maximum number of reservations at a time
    per_second: float = 0  # maximum number of messages that are popped or reserved
    max_deliveries: int = 0  # instead of MAX_DELIVERIES

    @classmethod
    def from_reply(
        cls, at_once: bytes | None, per_second: bytes | None, max_deliveries: bytes | None
    ) -> "QueueSettings":
        return cls(int(at_once or 0), float(per_second or 0), int(max_deliveries or 0))

    def as_dict(self) -> dict[str, float]:
        """Return the settings by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class QueueStats:
    """Totals of a queue, which reset a day after it held something."""

    expired: int  # leases
    buried: int  # messages
