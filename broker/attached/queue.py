"""A list of another program, read as a queue.

It is read by commands that only read, and without scripts, so a user who may only read its keys suffices, and nothing
on that Redis changes. Leases, delays, dead letters, results and settings it has none of. To push, remove, clear, move
and restore are the operations of any queue; they keep what an undo needs in keys beside the list.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import redis

from broker.attached.beside import counts_beside, read_beside
from broker.attached.mirror import MirroredClient
from broker.attached.names import AttachedList
from broker.keys import LeftKey
from broker.models import (
    Consumer,
    Details,
    Found,
    InFlight,
    NextMessage,
    QueueCounts,
    QueueSettings,
    QueueStats,
    State,
)
from broker.queue import ReliableQueue
from broker.reasons import Reason
from broker.summaries import MAX_READ, summarize

TIDYING = ("push", "remove", "clear", "restore", "move")  # what LISTS_WRITABLE allows
MAX_READ_BYTES = 1 << 20  # of messages that one call reads, if they are of the average size
SUMMARY_END = 500  # bytes at each end of a message that stand for it, as in show.lua


class AttachedQueue(ReliableQueue):
    """The operations of a list of another program. Position 0 is what that program takes next, at either end."""

    runs_scripts = False

    def __init__(self, client: Any, attached: AttachedList, may: tuple[str, ...] = ()) -> None:
        """`may` are the operations that change the list and are allowed."""
        super().__init__(MirroredClient(client) if attached.left else client, attached.name)
        self.attached, self.may = attached, may
        self.client_for_large = self.client
        self._set_keys(LeftKey(attached.key) if attached.left else attached.key, "{" + attached.key + "}:")
        self.beside_counts = counts_beside(attached.key)

    @property
    def watched_keys(self) -> tuple[str, ...]:
        """The keys that say all that is shown of it."""
        return (self.key, *(key for _, key in self.beside_counts.values()))

    def _cleared_key(self, undo: str) -> str:
        key = super()._cleared_key(undo)
        return LeftKey(key) if self.attached.left else key  # it keeps the direction of the list

    def about(self) -> dict[str, object]:
        """Return what is to be known of a list of another program."""
        end = "left" if self.attached.left else "right"
        return {"key": self.attached.key, "taken_from": end, "why": self.attached.why, "may": list(self.may)}

    def beside(self) -> dict[str, int]:
        """Return what its program keeps beside it: name -> number."""
        with self.client.pipeline(transaction=False) as pipeline:
            for command, key in self.beside_counts.values():
                pipeline.execute_command(command, key)
            return read_beside(self.beside_counts, pipeline.execute(raise_on_error=False))

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the count, and `heads` messages after the first `offset`, each with at least `head_bytes` bytes.

        They are whole as far as a summary needs them.
        """
        messages, count = self._read(heads, offset)
        next_message = None
        if messages and offset == 0:
            first = messages[0]
            next_message = NextMessage(b"%d" % len(first) + first[:SUMMARY_END] + first[-SUMMARY_END:])
        shown = [(message[: max(head_bytes, MAX_READ)], len(message)) for message in messages]
        return State(QueueCounts(count), shown, None, next_message)

    def details(self, heads: int, offset: int, head_bytes: int) -> list[tuple[bytes, int, Details]]:
        """Return as `state` does; nothing is known of the history of a message."""
        end = max(head_bytes, MAX_READ)
        return [(message[:end], len(message), Details()) for message in self._read(heads, offset)[0]]

    def find(
        self, text: str, head_bytes: int, offset: int = 0, details: bool = False, reason: str | None = None
    ) -> Iterator[list[Found]]:
        """Search as in any queue, in summaries as well."""
        return super().find(text, max(head_bytes, MAX_READ), offset, details, reason)

    def _contains(self, message: bytes, text: bytes) -> bool:
        if super()._contains(message, text):
            return True
        time.sleep(0)
        found = summarize(message, self.key)
        return found is not None and text in found.text.encode().lower()

    def summary(self, head: bytes, size: int) -> dict[str, object] | None:
        """Return the summary of a message of `size` bytes; None if its shape is not known."""
        found = summarize(head, self.key, len(head) == size)
        return asdict(found) if found else None

    def _read(self, limit: int, offset: int) -> tuple[list[bytes], int]:
        """Return up to `limit` messages, fewer if they are large, and the length of the list."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.llen(self.key)
            if limit > 1:
                pipeline.memory_usage(self.key)
            count, *sizes = pipeline.execute(raise_on_error=False)
        if isinstance(count, redis.RedisError):
            raise count
        if sizes and isinstance(sizes[0], int) and count:
            limit = max(1, min(limit, MAX_READ_BYTES * count // sizes[0]))
        return self.all(offset, limit) if limit and count else [], count

    def _details_of(self, found: list[tuple[int, bytes]]) -> list[Details]:
        return [Details()] * len(found)

    def in_flight(
        self, kind: str, max: int, head_bytes: int, offset: int = 0, after: InFlight | None = None
    ) -> list[InFlight]:
        return []

    def sweep(self) -> float | None:
        return None

    def stats(self) -> QueueStats:
        return QueueStats(0, 0)

    def consumers(self) -> tuple[list[Consumer], bool]:
        return [], True

    def report_waiters(
        self, process: str, waiters: int, valid: float, names: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Record nothing: nobody waits here for a message."""

    def reasons(self) -> tuple[list[Reason], bool]:
        return [], True

    def settings(self) -> QueueSettings:
        return QueueSettings()
