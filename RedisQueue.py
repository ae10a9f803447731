"""A FIFO queue on a plain Redis list: pushed on the left, popped on the right."""

from typing import Any


def list_key(name: str = "default", prefix: str = "queue:") -> str:
    """Return the key of a queue's list."""
    return prefix + name


class RedisQueue:
    """The list operations. Messages are bytes, in and out, so the client must not decode replies."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:") -> None:
        self.client = client
        self.name = name
        self.key = list_key(name, prefix)

    def push(self, *messages: bytes, front: bool = False) -> int:
        """Add messages to the back and return the queue's new length.

        With `front` they go to the front, the first of them to be popped next. Without messages nothing changes.
        """
        if not messages:
            return self.count()
        if front:
            return int(self.client.rpush(self.key, *reversed(messages)))
        return int(self.client.lpush(self.key, *messages))

    def pop(self, max: int = 1) -> list[bytes]:
        """Remove and return up to `max` messages, oldest first; an empty list if none is waiting."""
        return self.client.rpop(self.key, max) or []

    def count(self) -> int:
        """Return the number of waiting messages."""
        return int(self.client.llen(self.key))

    def all(self, offset: int = 0, limit: int | None = None) -> list[bytes]:
        """Return the waiting messages, next to be popped first: all, or `limit` of them after the first `offset`."""
        if limit == 0:
            return []
        # The right end is popped next: of the list [d, c, b, a], all(1, 2) is LRANGE -3 -2 = [c, b], reversed.
        start = 0 if limit is None else -offset - limit
        messages: list[bytes] = self.client.lrange(self.key, start, -offset - 1)
        return messages[::-1]
