"""A FIFO queue on a plain Redis list. `broker/keys.py` has the map of keys."""

from typing import Any

from broker.bulk_push import MAX_COMMAND_MESSAGES, bulk_push
from broker.keys import queue_keys


class RedisQueue:
    """The list verbs. Messages are bytes, in and out. The client is handed in and must not decode replies."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:") -> None:
        self.client = client
        self.name = name
        self.prefix = prefix
        self.key, self.key_prefix = queue_keys(name, prefix)

    def push(self, *messages: bytes, front: bool = False) -> int:
        """Add messages, all or none, and return the queue's new length.

        With `front` they go to the front, the first of them to be popped next. No messages change nothing.
        """
        if not messages:
            return self.count()
        if len(messages) > MAX_COMMAND_MESSAGES:
            ordered = messages[::-1] if front else messages
            return bulk_push(self.client, "RPUSH" if front else "LPUSH", self.key, ordered)
        if front:
            return int(self.client.rpush(self.key, *reversed(messages)))
        return int(self.client.lpush(self.key, *messages))

    def pop(self, max: int = 1) -> list[bytes]:
        """Take up to `max` messages, oldest first; [] from an empty queue."""
        return self.client.rpop(self.key, max) or []

    def count(self) -> int:
        """Return how many messages wait."""
        return int(self.client.llen(self.key))

    def all(self, offset: int = 0, limit: int | None = None) -> list[bytes]:
        """Return the waiting messages, next to be popped first: all, or `limit` of them after `offset`."""
        if limit == 0:
            return []
        # The list's right end is popped next. Of a list [d, c, b, a], all(1, 2) is LRANGE -3 -2 = [c, b], turned round.
        start = 0 if limit is None else -offset - limit
        messages: list[bytes] = self.client.lrange(self.key, start, -offset - 1)
        return messages[::-1]
