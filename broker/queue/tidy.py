"""Tidy up: remove, clear, restore and move messages, and pause the queue. The script is `broker/lua/tidy.lua`."""

import math
import secrets
from collections.abc import Iterator, Sequence

from broker import script
from broker.models import NotFound
from broker.queue.show import ShowOperations
from broker.scan import Scan

MAX_BATCH = 1000  # messages a script call handles
MAX_TAKEN = 250  # messages that one call takes from anywhere in the queue, which takes some milliseconds
MAX_TAKEN_BYTES = 1 << 18  # of them; a larger message comes alone
MAX_SHIFT = 1000  # messages in front of a found one that may leave before it is taken


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
        """Put back what was cleared or removed, and return the number of messages.

        Messages that were cleared, or removed with many, go to the front. A single one goes back behind the message
        that was ahead of it, or to the front if that has left.

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
            count, are_more = self._run(script.TIDY, "restore", *arguments, extra=self._removed_keys(undo))
            done += count
            if not done:
                raise NotFound
            yield count

    def move(self, to: str, max: int) -> int:
        """Move up to `max` messages to the back of the queue `to`, oldest first, and return their number.

        A call moves at most 1,000 messages, and ends once it has moved 2 MiB; 0 means that none is left.
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

    def find_and_move(self, to: str, text: str, max: int | None = None) -> Iterator[int]:
        """Move up to `max` messages that `find` would find to the back of the queue `to`, and yield their number.

        It yields the size of each batch, which can be 0.
        """
        return self._take_found("move_many", text, max, [self._list_key_of(to)])

    def find_and_remove(self, text: str, max: int | None = None) -> tuple[str, Iterator[int]]:
        """Return an iterator that removes up to `max` messages that `find` would find, and yields as `find_and_move`.

        Also return the token with which `restore` puts them to the front, for an hour.
        """
        token = secrets.token_hex(8)
        return token, self._take_found("remove_many", text, max, self._removed_keys(token))

    def remove_many(self, messages: Sequence[tuple[int, bytes]]) -> tuple[str, Iterator[int]]:
        """Do as `find_and_remove` with these messages: those that are still at these positions, 0 being next."""
        token = secrets.token_hex(8)
        ordered = sorted(dict(messages).items())
        return token, self._take_many("remove_many", ordered, 0, self._removed_keys(token))

    def _take_found(self, command: str, text: str, max: int | None, keys: list[str]) -> Iterator[int]:
        scan, left = Scan(self), math.inf if max is None else max
        for chunk, indexes in self._search(scan, text):
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
        """Take messages out of the queue in batches, and yield the size of each."""
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

    def pause(self) -> None:
        """Let `pop` and `reserve` take nothing until `resume`. Other Redis clients can still pop."""
        self._run(script.TIDY, "pause", extra=[self._resumed_key])

    def resume(self) -> None:
        """End a pause and wake up the clients that wait for it."""
        self._run(script.TIDY, "resume", extra=[self._resumed_key])
