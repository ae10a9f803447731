"""Tidy up: remove, clear, restore and move messages, and pause the queue. The script is `broker/lua/tidy.lua`."""

import secrets
from collections.abc import Iterator

from broker import script
from broker.models import NotFound, Search
from broker.queue.show import ShowOperations

MAX_BATCH = 1000  # messages a script call handles


class TidyOperations(ShowOperations):
    """The operations of a person who tidies up."""

    def remove(self, position: int, message: bytes, undo: bool = False) -> str | None:
        """Remove this message at this position, 0 being next to be popped.

        With `undo` return the token with which `restore` undoes it within an hour.

        Raises:
            NotFound: another message, or none, is at the position.
        """
        token = secrets.token_hex(8) if undo else None
        key = self._cleared_key(token) if token else None
        if not self._run(script.TIDY, "remove", position, message, secrets.token_hex(16), extra=[key])[0]:
            raise NotFound
        return token

    def clear(self) -> tuple[int, str | None]:
        """Remove all waiting messages; return their number, and the token with which `restore` undoes it."""
        token = secrets.token_hex(8)
        count = int(self._run(script.TIDY, "clear", extra=[self._cleared_key(token)])[0])
        return count, token if count else None

    def restore(self, undo: str) -> int:
        """Put back what `clear` or `remove` removed, and return the number of messages.

        Cleared messages go to the front. A removed one goes back behind the message that was ahead of it, or to the
        front if that has left.

        Raises:
            NotFound: it was restored before, or removed more than an hour ago.
        """
        return sum(self.restore_in_batches(undo))

    def restore_in_batches(self, undo: str) -> Iterator[int]:
        """Do as `restore`, and yield the size of each batch. What is left after an error can still be restored.

        Raises:
            NotFound: it was restored before, or removed more than an hour ago.
        """
        done, are_more = 0, 1
        while are_more:
            arguments = [secrets.token_hex(16)]
            count, are_more = self._run(script.TIDY, "restore", *arguments, extra=[self._cleared_key(undo)])
            done += count
            if not done:
                raise NotFound
            yield count

    def move(self, to: str, max: int) -> int:
        """Move up to `max` messages to the back of the queue `to`, oldest first, and return their number.

        A call moves at most 1,000 messages, and ends once it has moved 16 MiB; 0 means that none is left.
        """
        return int(self._run(script.TAKE, "move", min(max, MAX_BATCH), extra=[self._list_key_of(to)])[0])

    def move_one(self, to: str, position: int, message: bytes) -> None:
        """Move this message at this position, 0 being next to be popped, to the back of the queue `to`.

        Raises:
            NotFound: another message, or none, is at the position.
        """
        arguments = (position, message, secrets.token_hex(16))
        if not self._run(script.TIDY, "move_one", *arguments, extra=[self._list_key_of(to)])[0]:
            raise NotFound

    def find_and_move(self, to: str, text: str, max: int, search: Search) -> tuple[int, Search]:
        """Move up to `max` messages that `find` would find to the back of the queue `to`.

        Return their number and where to continue.
        """
        mark, key = secrets.token_hex(16), self._list_key_of(to)
        found, search = self._find("find_and_move", text, max, mark, search, extra=[key])
        return len(found), search

    def pause(self) -> None:
        """Let `pop` and `reserve` take nothing until `resume`. Other Redis clients can still pop."""
        self._run(script.TIDY, "pause", extra=[self._resumed_key])

    def resume(self) -> None:
        """End a pause and wake up the clients that wait for it."""
        self._run(script.TIDY, "resume", extra=[self._resumed_key])
