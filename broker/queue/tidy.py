"""Tidy up: remove, clear and restore messages; pause and limit the queue. The script is `broker/lua/tidy.lua`."""

import secrets
from collections.abc import Iterator, Sequence

from broker import script
from broker.models import NotFound, QueueSettings
from broker.queue.move import MoveOperations


class TidyOperations(MoveOperations):
    """What an operator does by hand."""

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
        """Put back what was cleared, removed or moved, and return the number of messages.

        Messages that were cleared, or removed with many, go to the front. A single one goes back behind the message
        that was ahead of it, or to the front if that has left. Moved ones go back as `move_back` says, if they still
        wait where they were moved to.

        Raises:
            NotFound: it was restored before, or removed or moved more than an hour ago.
        """
        return sum(self.restore_in_batches(undo))

    def restore_in_batches(self, undo: str) -> Iterator[int]:
        """Restore as `restore` does; yield the size of each batch. What is left after an error can still be restored.

        Raises:
            NotFound: it was restored before, or removed or moved more than an hour ago.
        """
        if self.is_undo_of_move(undo):
            yield from self.move_back(undo)
            return
        done, are_more = 0, 1
        while are_more:
            arguments = [secrets.token_hex(16)]
            count, are_more = self._run(script.TIDY, "restore", *arguments, extra=self._removed_keys(undo))
            done += count
            if not done:
                raise NotFound
            yield count

    def find_and_remove(
        self, text: str, max: int | None = None, reason: str | None = None
    ) -> tuple[str, Iterator[int]]:
        """Return an iterator that removes up to `max` messages that `find` would find, and yields as `find_and_move`.

        Also return the token with which `restore` puts them to the front, for an hour.
        """
        token = secrets.token_hex(8)
        return token, self._take_found("remove_many", text, reason, max, self._removed_keys(token))

    def remove_many(self, messages: Sequence[tuple[int, bytes]]) -> tuple[str, Iterator[int]]:
        """Remove these messages as `find_and_remove` does, each if it is still at its position (0 is popped next)."""
        token = secrets.token_hex(8)
        ordered = sorted(dict(messages).items())
        return token, self._take_many("remove_many", ordered, 0, self._removed_keys(token))

    def pause(self) -> None:
        """Make `pop` and `reserve` take nothing until `resume`. Other Redis clients can still pop."""
        self._run(script.TIDY, "pause", extra=[self._resumed_key])

    def resume(self) -> None:
        """End a pause and wake up the clients that wait for it."""
        self._run(script.TIDY, "resume", extra=[self._resumed_key])

    def settings(self) -> QueueSettings:
        """Return the settings of the queue. An empty queue keeps them."""
        names = list(QueueSettings().as_dict())
        return QueueSettings.from_reply(*self.client.hmget(self.key_prefix + "settings", names))

    def set_settings(self, **settings: float) -> QueueSettings:
        """Change the named settings (0 removes one) and return them all. Waiting clients notice at once."""
        values = [part for name, value in settings.items() for part in (name, value or "")]
        return QueueSettings.from_reply(*self._run(script.TIDY, "set", *values)[0])
