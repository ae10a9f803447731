"""Show: read the state of a queue and search it. The scripts are `broker/lua/show.lua` and `find.lua`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from broker import script
from broker.models import Consumer, Details, Found, InFlight, NextMessage, QueueCounts, QueueStats, Search, State
from broker.queue.base import ScriptedQueue, to_milliseconds, to_seconds
from broker.queue.consumers import find_consumers, format_names


class ShowOperations(ScriptedQueue):
    """The operations that read, and take nothing."""

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after the first `offset`."""
        arguments = (heads, offset, head_bytes)
        counts, found, next_change, *rest = self._run(script.SHOW, "state", *arguments, large=heads * head_bytes > 0)
        shown = [(head, size) for head, size in found]
        next_message = NextMessage.from_reply(*rest[0]) if rest else None
        return State(QueueCounts(*[*counts[:5], counts[5] == 1]), shown, to_seconds(next_change), next_message)

    def details(self, heads: int, offset: int, head_bytes: int) -> list[tuple[bytes, int, Details]]:
        """Return the first bytes, the size and the history of up to `heads` messages after the first `offset`.

        The list ends once it has read 1 MiB of messages.
        """
        found = self._run(script.SHOW, "details", heads, offset, head_bytes, large=True)[0]
        return [(head, size, Details.from_reply(*history)) for head, size, history in found]

    def in_flight(
        self, kind: str, max: int, head_bytes: int, offset: int = 0, after: InFlight | None = None
    ) -> list[InFlight]:
        """Return up to `max` messages that are "reserved" or "delayed", those that return soonest first.

        The list starts after the first `offset`, or after the message `after`, and ends once it has read 1 MiB.
        """
        last = [after.id, to_milliseconds(after.deadline)] if after else ["", ""]
        found = self._run(script.SHOW, "in_flight", kind, offset, *last, max, head_bytes, large=True)[0]
        return [InFlight.from_reply(*record) for record in found]

    def find(
        self, text: str, max: int, head_bytes: int, search: Search, details: bool = False
    ) -> tuple[list[Found], Search]:
        """Search the next messages, up to 1,000 or 64 KiB, for a text; ASCII letters match in either case.

        Return up to `max` messages that contain it, with their first `head_bytes` bytes, and where to continue.
        """
        found, search = self._find("find", text, max, head_bytes, search, int(details))
        return [
            Found(position, head, size, Details.from_reply(*history[0]) if history else None)
            for position, size, head, *history in found
        ], search

    def _find(
        self, command: str, text: str, max: int, argument: Any, search: Search, details: int = 0, **options: Any
    ) -> tuple[list[Any], Search]:
        arguments = [text.encode().lower(), search.position, max, argument, details, *search.part, *search.mark]
        position, is_over, found, mark, part = self._run(script.FIND, command, *arguments, large=True, **options)
        return found, Search(position, tuple(mark), is_over == 1, tuple(part))

    def stats(self) -> QueueStats:
        """Return the totals that Redis keeps."""
        return QueueStats(*self._run(script.SHOW, "stats"))

    def consumers(self) -> tuple[list[Consumer], bool]:
        """Return who has reserved messages and who waits for one, those with the oldest reservation first.

        Also return whether these are all: it stops at MAX_NAMES names. While more than 1,000 messages are reserved,
        one that is extended or settled meanwhile can count twice or be missed.
        """
        return find_consumers(lambda *last: self._run(script.SHOW, "consumers", *last, large=True))

    def report_waiters(
        self, process: str, waiters: int, valid: float, names: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Record the number of clients of a process that wait for a message, and how many have each of the names.

        It expires after `valid` seconds.
        """
        self._run(script.SHOW, "report_waiters", process, waiters, to_milliseconds(valid), format_names(names))
