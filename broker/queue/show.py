"""Show: read the state of a queue and search it. The script is `broker/lua/show.lua`.

Redis takes ten times as long to copy data into a script as into a reply. So messages are searched here, not in a
script.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from broker import script
from broker.keys import message_digest
from broker.models import Consumer, Details, Found, InFlight, NextMessage, QueueCounts, QueueStats, State
from broker.queue.base import ScriptedQueue, to_milliseconds, to_seconds
from broker.queue.consumers import find_consumers, format_names
from broker.reasons import mask
from broker.scan import Scan, contains

MAX_FOUND = 100  # messages that one call returns the details of
MAX_SHIFT = 50  # messages in front of a found one that may leave before its details are read


class ShowOperations(ScriptedQueue):
    """The operations that read, and take nothing."""

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after the first `offset`.

        Heads of large messages are read in several calls, between which the queue can change.
        """
        arguments = (heads, offset, head_bytes)
        counts, shown, next_change, *rest = self._run(script.SHOW, "state", *arguments, large=heads * head_bytes > 0)
        next_message = NextMessage.from_reply(*rest[0]) if rest else None
        found = shown
        while found and len(shown) < min(heads, counts[0] - offset):
            left = heads - len(shown)
            found = self._run(script.SHOW, "state", left, offset + len(shown), head_bytes, large=True)[1]
            shown += found
        heads_shown = [(head, size) for head, size in shown]
        return State(QueueCounts(*[*counts[:5], counts[5] == 1]), heads_shown, to_seconds(next_change), next_message)

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
        self, text: str, head_bytes: int, offset: int = 0, details: bool = False, reason: str | None = None
    ) -> Iterator[list[Found]]:
        """Search all messages after the first `offset` for a text; ASCII letters match in either case.

        With a `reason`, find only those that failed for it last, whatever the numbers and ids in it.

        Yield those that contain it, with their first `head_bytes` bytes: a list for each chunk of the queue, which can
        be empty. A message that waits throughout is found once, unless an equal one waits too.
        """
        scan = Scan(self, offset)
        for chunk, indexes in self._search(scan, text, reason):
            start = scan.position - len(chunk)
            found = [(start + index, chunk[index]) for index in indexes]
            histories = self._details_of(found) if details else [None] * len(found)
            yield [
                Found(position, message[:head_bytes], len(message), history)
                for (position, message), history in zip(found, histories, strict=True)
            ]

    def _search(self, scan: Scan, text: str, reason: str | None) -> Iterator[tuple[list[bytes], list[int]]]:
        """Yield each chunk of the queue, and the indexes of the messages in it that contain the text.

        With a `reason`, they failed for it.
        """
        lower = text.encode().lower()
        wanted = None if reason is None else mask(reason)
        while chunk := scan.read():
            indexes = [index for index, message in enumerate(chunk) if self._contains(message, lower)]
            if wanted is not None:
                start = scan.position - len(chunk)
                histories = self._details_of([(start + index, chunk[index]) for index in indexes])
                indexes = [
                    index
                    for index, history in zip(indexes, histories, strict=True)
                    if history.reason and mask(history.reason) == wanted
                ]
            yield chunk, indexes

    def _contains(self, message: bytes, text: bytes) -> bool:
        """Return whether a message contains a text, which is in lower case."""
        return contains(message, text)

    def _details_of(self, found: list[tuple[int, bytes]]) -> list[Details]:
        """Return the history of each message, by its position and the message."""
        details = list[Details]()
        for start in range(0, len(found), MAX_FOUND):
            batch = found[start : start + MAX_FOUND]
            arguments = [part for position, message in batch for part in (position, message_digest(message))]
            replies = self._run(script.SHOW, "details_of", MAX_SHIFT, *arguments)[0]
            details += [Details.from_reply(*one) for one in replies]
        return details

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
