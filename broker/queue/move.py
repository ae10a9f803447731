"""Move messages to another queue, and back. The scripts are `move.lua` and `tidy.lua` in `broker/lua`."""

import math
import secrets
from collections.abc import Iterator

from broker import script
from broker.keys import is_name
from broker.models import NotFound
from broker.queue.show import ShowOperations
from broker.scan import Scan

MAX_TAKEN = 250  # messages that one call removes from anywhere in the queue, in a few milliseconds
MAX_TAKEN_BYTES = 1 << 18  # total size of those; a message larger than this is taken alone
MAX_SHIFT = 1000  # messages in front of a found one that may leave before it is taken


class MoveOperations(ShowOperations):
    """The operations that move messages.

    A dead letter takes its failure reason with it. Messages that are moved with an `undo` of `new_undo` can be moved
    back for an hour, up to 100,000 of them.
    """

    @staticmethod
    def new_undo(to: str) -> str:
        """Return a token for the moves of one request to the queue `to`; `restore` of this queue takes it."""
        return f"{secrets.token_hex(8)}:{to}"

    @staticmethod
    def is_undo_of_move(undo: str) -> bool:
        """Return whether a token undoes a move."""
        return ":" in undo

    def move(self, to: str, max: int, undo: str | None = None) -> int:
        """Move up to `max` messages to the back of the queue `to`, oldest first, and return their number.

        A call moves at most 500 messages, and ends once it has moved 1 MiB; 0 means that none is left.
        """
        return int(self._run(script.MOVE, "move", max, extra=self._move_keys(to, undo))[0])

    def move_one(self, to: str, position: int, message: bytes, undo: str | None = None) -> None:
        """Move this message at this position, 0 being next to be popped, to the back of the queue `to`.

        Raises:
            NotFound: another message, or none, is at the position.
        """
        arguments = (position, message, secrets.token_hex(16))
        if not self._run(script.TIDY, "move_one", *arguments, extra=self._move_keys(to, undo))[0]:
            raise NotFound

    def find_and_move(
        self, to: str, text: str, max: int | None = None, reason: str | None = None, undo: str | None = None
    ) -> Iterator[int]:
        """Move up to `max` messages that `find` would find to the back of `to`; yield the size of each batch (or 0)."""
        return self._take_found("move_many", text, reason, max, self._move_keys(to, undo))

    def move_back(self, undo: str) -> Iterator[int]:
        """Put back the messages moved with `undo` that still wait in the other queue; yield the size of each batch.

        They go to the front; one that `move_one` moved goes to its old place. Equal messages cannot be told apart.

        Raises:
            NotFound: it was moved back before, or moved more than an hour ago.
        """
        to = undo.partition(":")[2]
        if not is_name(to):
            raise NotFound
        other, skipped, is_over = self.sibling(to), 0, 0
        keys = [self.key, self.key_prefix + "failure_reasons", self._moved_key(undo), self.key_prefix + "redeliveries"]
        while not is_over:
            arguments = [skipped, secrets.token_hex(16)]
            moved, skipped, is_over, is_known = other._run(script.MOVE, "move_back", *arguments, extra=keys)
            if not is_known:
                raise NotFound
            yield moved

    def _moved_key(self, undo: str) -> str:
        return self.key_prefix + "moved:" + undo.partition(":")[0]

    def _move_keys(self, to: str, undo: str | None) -> list[str]:
        """Return the extra keys of a move."""
        other = self.sibling(to)
        return [other.key, other.key_prefix + "failure_reasons", *([self._moved_key(undo)] if undo else [])]

    def _take_found(
        self, command: str, text: str, reason: str | None, max: int | None, keys: list[str]
    ) -> Iterator[int]:
        scan, left = Scan(self), math.inf if max is None else max
        for chunk, indexes in self._search(scan, text, reason):
            found = indexes[: int(min(left, len(indexes)))]
            start = scan.position - len(chunk)
            taken = 0
            for number in self._take_many(command, [(start + at, chunk[at]) for at in found], MAX_SHIFT, keys):
                taken += number
                yield number
            left -= taken
            if left <= 0:
                return
            scan.drop(chunk, set(found))
            yield 0

    def _take_many(
        self, command: str, messages: list[tuple[int, bytes]], max_shift: int, keys: list[str]
    ) -> Iterator[int]:
        """Take messages out of the queue in batches; yield the number taken by each."""
        taken, start = 0, 0
        while start < len(messages):
            end, size = start, 0
            while end < len(messages) and end - start < MAX_TAKEN and (end == start or size < MAX_TAKEN_BYTES):
                size += len(messages[end][1])
                end += 1
            batch = [each for position, message in messages[start:end] for each in (position - taken, message)]
            number = int(self._run(script.TIDY, command, secrets.token_hex(16), max_shift, *batch, extra=keys)[0])
            yield number
            taken, start = taken + number, end
