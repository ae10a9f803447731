"""Move messages to another queue, and back. The scripts are `move.lua`, `tidy.lua` and `find.lua` in `broker/lua`."""

import secrets
from collections.abc import Iterator

from broker import script
from broker.keys import is_name, queue_keys
from broker.models import NotFound, Search
from broker.queue.show import ShowOperations


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
        self, to: str, text: str, max: int, search: Search, undo: str | None = None
    ) -> tuple[int, Search]:
        """Move up to `max` messages that `find` would find to the back of the queue `to`.

        Return their number and where to continue.
        """
        mark, keys = secrets.token_hex(16), self._move_keys(to, undo)
        found, search = self._find("find_and_move", text, max, mark, search, extra=keys)
        return len(found), search

    def move_back(self, undo: str) -> Iterator[int]:
        """Put back what was moved with `undo` and still waits there, and yield the size of each batch.

        Messages go to the front, one that was moved from a position to its place. An equal message counts as the one
        that was moved.

        Raises:
            NotFound: it was moved back before, or moved more than an hour ago.
        """
        to = undo.partition(":")[2]
        if not is_name(to):
            raise NotFound
        other, skipped, is_over = type(self)(self.client, to, self.prefix, self.max_deliveries), 0, 0
        keys = [*other._move_keys(self.name, None), self._moved_key(undo), self.key_prefix + "redeliveries"]
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
        other = queue_keys(to, self.prefix)
        return [other[0], other[1] + "failure_reasons", *([self._moved_key(undo)] if undo else [])]
