"""A FIFO queue on a plain Redis list.

The map of keys, for a queue called `jobs` and the prefix `queue:`. All keys of a queue lie in one Cluster slot.

    queue:jobs                    list    the waiting messages and nothing else; pushed left, popped right
    {queue:jobs}:reserved         zset    reservation id -> end of its lease, milliseconds by the Redis clock
    {queue:jobs}:bodies           hash    reservation id -> "<deliveries>:<message>"
    {queue:jobs}:attempts         hash    message that came back -> runs of "<deliveries>*<copies>", by commas
    {queue:jobs}:acked            zset    ids acked of late (at most 10,000, one hour) -> when, milliseconds
    {queue:jobs}:dead             list    the dead letters: the waiting messages of the queue `jobs.dead`
    {queue:jobs}:dead:...                 what belongs to the queue `jobs.dead`, as above: reserved, bodies, ...
    {queue:jobs}:waiters          hash    process -> "<clients that wait>:<valid until, milliseconds>"
    {queue:jobs}:once:<digest>    list    an answered Idempotency-Key: fingerprint, then the answer (24 hours)
    {queue:jobs}:cleared:<undo>   list    what `clear` took away, until `restore` (one hour)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.reliable import Delivery


def keys_of(name: str, prefix: str = "queue:") -> tuple[str, str]:
    """Return the key of the queue's list, and what the names of all its other keys start with."""
    base, dot, _ = name.rpartition(".dead")
    if dot and base and name == base + ".dead":
        key = keys_of(base, prefix)[1] + "dead"
        return key, key + ":"
    return prefix + name, "{" + prefix + name + "}:"


class RedisQueue:
    """The list verbs. Messages are bytes, in and out. The client is handed in and must not decode replies."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:") -> None:
        self.client = client
        self.name = name
        self.prefix = prefix
        self.key, self.meta = keys_of(name, prefix)

    def push(self, *messages: bytes, next: bool = False) -> int:
        """Add messages in one command and return the queue's new length.

        With `next` they go to the front, the first of them to be popped next. No messages change nothing.
        """
        if not messages:
            return self.count()
        if next:
            return int(self.client.rpush(self.key, *reversed(messages)))
        return int(self.client.lpush(self.key, *messages))

    def pop(self, max: int = 1) -> list[bytes]:
        """Take up to `max` messages, oldest first; [] from an empty queue."""
        return self.client.rpop(self.key, max) or []

    def count(self) -> int:
        """Return how many messages wait."""
        return int(self.client.llen(self.key))

    def all(self, offset: int = 0, limit: int | None = None) -> list[bytes]:
        """Return the waiting messages, next to be popped first, and take none: all, or `limit` after `offset`."""
        if limit == 0:
            return []
        first = 0 if limit is None else -offset - limit
        messages: list[bytes] = self.client.lrange(self.key, first, -offset - 1)
        return messages[::-1]

    def consume(self, lease: float = 30, wait: float = 20, max_deliveries: int = 5) -> "Iterator[Delivery]":
        """Yield reserved messages until SIGTERM: `for message in queue.consume(): ...`.

        A message is acked when the body of the loop is done with it. It is released, to be delivered again, when the
        body raises or leaves the loop (by `break` or `return`).
        Its lease of `lease` seconds is extended while the body runs; one wait on Redis lasts `wait` seconds at most.
        After `max_deliveries` deliveries it goes to the dead letters, `<name>.dead`.

        Raises:
            ValueError: the lease is shorter than a second, or the wait is nothing.
        """
        from broker.consumer import consume
        from broker.reliable import ReliableQueue

        return consume(ReliableQueue(self.client, self.name, self.prefix, max_deliveries), lease, wait)
