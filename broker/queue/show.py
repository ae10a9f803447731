"""Show: read the state of a queue and search it. The scripts are `broker/lua/show.lua` and `find.lua`."""

from typing import Any

from broker import script
from broker.models import Details, Found, InFlight, QueueCounts, QueueStats, Search, State
from broker.queue.base import ScriptedQueue, to_milliseconds, to_seconds
from broker.reasons import mask

MAX_JUDGED = 250  # reasons that are sent to a search again


class ShowOperations(ScriptedQueue):
    """The operations that read, and take nothing."""

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after the first `offset`."""
        counts, found, next_change = self._run(script.SHOW, "state", heads, offset, head_bytes, large=heads > 0)
        shown = [(head, size) for head, size in found]
        return State(QueueCounts(*[*counts[:5], counts[5] == 1]), shown, to_seconds(next_change))

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
        """Search the next messages, up to 1,000 or 64 KiB, for a text; "" matches all, ASCII letters in either case.

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
        reasons: list[Any] = [""]
        if search.reason is not None:
            judged = [(b"+" if is_wanted else b"-") + reason for reason, is_wanted in search.judged.items()]
            reasons = [len(judged), *judged]
        arguments = [text.encode().lower(), search.position, max, argument, details, *search.part, *reasons]
        answer = self._run(script.FIND, command, *arguments, *search.mark, large=True, **options)
        position, is_over, found, mark, part, unjudged = answer
        known = search.judged
        if search.reason is not None and unjudged:
            new = {each: mask(each.decode(errors="replace")) == mask(search.reason) for each in unjudged}
            known = new if len(known) > MAX_JUDGED else {**known, **new}
        return found, Search(position, tuple(mark), is_over == 1, tuple(part), search.reason, known)

    def stats(self) -> QueueStats:
        """Return the totals that Redis keeps, and record which message is next."""
        expired, buried, head_age = self._run(script.SHOW, "stats")
        return QueueStats(expired, buried, head_age / 1000)

    def report_waiters(self, process: str, waiters: int, valid: float) -> None:
        """Record the number of clients of a process that wait for a message; it expires after `valid` seconds."""
        self._run(script.SHOW, "report_waiters", process, waiters, to_milliseconds(valid))
