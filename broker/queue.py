"""A RedisQueue with leases, delays, retries, dead letters, idempotency keys and results.

Each operation is one script in `broker/lua`, so it happens entirely or not at all. The scripts read the time from
Redis, and all keys of a queue share one Cluster slot. They need Redis 6.2 or Valkey.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError

from broker import script
from broker.bulk_push import MAX_COMMAND_MESSAGES, StagingClient, bulk_push
from broker.keys import ANSWER_KEYS, POP_ONE_KEYS, SCRIPT_KEYS, digest_of, queue_keys
from broker.models import (
    Batch,
    Delivery,
    Details,
    Found,
    InFlight,
    LeaseExpired,
    NotFound,
    Pushed,
    QueueCounts,
    QueueStats,
    Result,
    Search,
    State,
)
from RedisQueue import RedisQueue

MAX_BATCH = 1000  # messages a script call handles
RESULT_SECONDS = 86400  # how long a result is kept by default
MIN_BLOCK_SECONDS = 0.02  # minimum duration of a wait on a server that cannot block
FULL_POLL_INTERVAL = 0.25  # seconds between attempts while Redis is full, which rejects BLMOVE but not RPOP


class ReliableQueue(RedisQueue):
    """All operations of a queue. A message that fails its `max_deliveries`-th delivery becomes a dead letter."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:", max_deliveries: int = 5) -> None:
        super().__init__(client, name, prefix)
        self.prefix = prefix
        self.key, self.key_prefix = queue_keys(name, prefix)
        self.client_for_large = getattr(client, "unbatched", client)  # for commands with a large reply
        self.max_deliveries = max_deliveries
        self._keys = [self.key, *(self.key_prefix + key for key in SCRIPT_KEYS)]
        self._answer_keys = tuple(self.key_prefix + key for key in ANSWER_KEYS)
        self._pop_one_keys = [self.key, *(self.key_prefix + key for key in POP_ONE_KEYS)]

    # --- push

    def push(self, *messages: bytes, front: bool = False) -> int:
        """Add messages as RedisQueue does, all or none, however many there are."""
        if front and messages:
            return self._push("push_front", messages).count
        if len(messages) > MAX_COMMAND_MESSAGES:
            return bulk_push(self.client, self.key, messages)
        return super().push(*messages)

    def push_once(self, idempotency_key: str, messages: Sequence[bytes], front: bool = False) -> Pushed:
        """Push as `push` does, once per idempotency key within 24 hours; a repeated call returns the first answer.

        Raises:
            Conflict: the key was used with another request.
        """
        command = "push_front" if front else "push"
        fingerprint = digest_of(b"push-front" if front else b"push", *messages)
        return self._push(command, messages, 0, fingerprint, idempotency_key)

    def push_later(self, delay: float, messages: Sequence[bytes], idempotency_key: str | None = None) -> Pushed:
        """Add messages to the back after `delay` seconds, in this order, all or none; until then they have ids.

        With an idempotency key, a call repeated within 24 hours pushes nothing and returns the first answer.

        Raises:
            Conflict: the key was used with another request.
        """
        milliseconds = _milliseconds(delay)
        fingerprint = digest_of(b"push-later", b"%d" % milliseconds, *messages) if idempotency_key else ""
        return self._push("push_later", messages, milliseconds, fingerprint, idempotency_key)

    def _push(
        self,
        command: str,
        messages: Sequence[bytes],
        delay: int = 0,
        fingerprint: str = "",
        idempotency_key: str | None = None,
    ) -> Pushed:
        ordered = messages[::-1] if command == "push_front" else messages
        key = digest_of(idempotency_key.encode()) if idempotency_key is not None else ""
        answer_keys = self._answer_keys if key else ()
        arguments = [key, fingerprint, delay, secrets.token_hex(8)]
        if len(messages) > MAX_COMMAND_MESSAGES:
            staged = self.key_prefix + "staged:" + secrets.token_hex(8)
            keys = [*self._keys, *answer_keys, staged]
            client = StagingClient(self.client, staged, ordered)
            answer = script.PUSH_STAGED.run(client, keys, [command, self.max_deliveries, *arguments])
        else:
            answer = self._run(script.PUSH, command, *arguments, *ordered, extra=answer_keys)
        count, moment, random, repeated = answer
        numbers = range(1, len(messages) + 1) if command == "push_later" else ()
        ids = [f"{moment.decode()}-{number:06d}-{random.decode()}-0-d" for number in numbers]
        return Pushed(count, ids, repeated == 1)

    # --- take

    def pop(self, max: int = 1) -> list[bytes]:
        """Remove and return up to `max` messages, oldest first; an empty list if none is waiting."""
        return self.pop_batch(max).messages

    def pop_batch(self, max: int = 1, idempotency_key: str | None = None) -> Batch[bytes]:
        """Pop up to `max` messages; a batch ends once it reaches 16 MiB.

        With an idempotency key, an answer that has messages is saved for 24 hours.

        Raises:
            Conflict: the key was used with another request.
        """
        if max == 1 and idempotency_key is None:
            found = script.POP_ONE.run_once(self.client, self._pop_one_keys)
            if found != 1:
                return Batch([found] if isinstance(found, bytes) else [])
        arguments: list[Any] = [max]
        if idempotency_key is not None:
            arguments += [digest_of(idempotency_key.encode()), digest_of(b"pop", str(max).encode())]
        keys = () if idempotency_key is None else self._answer_keys
        next_due, messages, repeated, paused = self._run(script.TAKE, "pop", *arguments, extra=keys, large=max > 1)
        return Batch(messages, _seconds(next_due), paused == 1, repeated == 1)

    def reserve(self, lease: float = 30, max: int = 1) -> Batch[Delivery]:
        """Reserve up to `max` messages for `lease` seconds.

        Those not acked by then return to the queue or become dead letters. A batch ends once it reaches 16 MiB.
        """
        arguments = (max, _milliseconds(lease), secrets.token_hex(8))
        next_due, records, deadline, paused = self._run(script.TAKE, "reserve", *arguments, large=max > 1)
        deliveries = [Delivery.from_reply(deadline, *record) for record in records]
        return Batch(deliveries, _seconds(next_due), paused == 1)

    def wait(self, seconds: float, client: Any = None, paused: bool = False) -> None:
        """Block until the queue is not empty, or for `seconds`. No message is taken, so a lost reply loses none.

        If the queue is `paused`, block until it is resumed. `client` is the one to block, by default the queue's own.
        """
        started = time.monotonic()
        key = self._resumed_key if paused else self.key
        try:
            if (client or self.client).blmove(key, key, max(seconds, 0.01), "RIGHT", "RIGHT") is None:
                # A server that cannot block here replies at once: do not let the caller spin.
                time.sleep(max(0.0, min(MIN_BLOCK_SECONDS, seconds) - (time.monotonic() - started)))
        except OutOfMemoryError:
            time.sleep(min(seconds, FULL_POLL_INTERVAL))

    def requeue(self, *messages: bytes) -> None:
        """Undo a pop: put messages back to the front, in the same order, even if Redis is full."""
        self._run(script.REQUEUE, "push_front", "", "", 0, "", *reversed(messages))

    # --- settle

    def ack(self, *ids: str) -> int:
        """Acknowledge messages, which deletes them, and return their number; ids acked within the last hour count too.

        Raises:
            LeaseExpired: some leases have ended; nothing was changed.
        """
        _raise_if_expired(self._run(script.SETTLE, "ack", *ids)[0])
        return len(set(ids))

    def ack_with(self, id: str, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Acknowledge a message and store the result of its job, in one step.

        Raises:
            LeaseExpired: the lease has ended; nothing was changed or stored.
        """
        key = self.result_key(job)
        _raise_if_expired(self._run(script.SETTLE_WITH_RESULT, "ack_with", round(keep), result, id, extra=[key])[0])

    def release(self, *ids: str, delay: float = 0, dead: bool = False, reason: str = "") -> int:
        """Return messages to the front of the queue, now or in `delay` seconds, or bury all of them (`dead`).

        Return the number of messages buried, which includes those at their last delivery. `reason` says why they
        failed; it is kept as long as they wait.

        Raises:
            LeaseExpired: some leases have ended; nothing was changed.
        """
        unique = dict.fromkeys(ids)
        arguments = (_milliseconds(delay), int(dead), reason)
        expired, buried, are_more = self._run(script.SETTLE, "release", *arguments, *unique)
        _raise_if_expired(expired)
        if are_more:
            self.sweep()
        return int(buried)

    def extend(self, id: str, lease: float) -> float:
        """Let a lease or a delay end `lease` seconds from now, and return its new deadline.

        Raises:
            LeaseExpired: it has ended; nothing was changed.
        """
        deadline = self._run(script.SETTLE, "extend", _milliseconds(lease), id)[0]
        if not deadline:
            raise LeaseExpired([id])
        return float(deadline / 1000)

    def sweep(self) -> float | None:
        """Return the messages whose lease or delay has ended to the queue, or bury them.

        Return the number of seconds until the next one ends; None if there is none.
        """
        return _seconds(self._run(script.SHOW, "sweep")[0])

    def store_result(self, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Store the result of a job for `keep` seconds, replacing an earlier one."""
        self._run(script.PUSH, "store_result", round(keep), result, extra=[self.result_key(job)])

    def result(self, job: str) -> Result | None:
        """Return the result of a job; None if there is none yet, or it has expired."""
        found = self.client_for_large.lrange(self.result_key(job), 0, -1)
        return Result(found[1], int(found[0]) / 1000) if found else None

    # --- tidy up

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

    # --- show

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after the first `offset`."""
        counts, found, next_change = self._run(script.SHOW, "state", heads, offset, head_bytes, large=heads > 0)
        shown = [(head, size) for head, size in found]
        return State(QueueCounts(*[*counts[:5], counts[5] == 1]), shown, _seconds(next_change))

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
        last = [after.id, _milliseconds(after.deadline)] if after else ["", ""]
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
        """Return the totals that Redis keeps, and record which message is next."""
        expired, buried, head_age = self._run(script.SHOW, "stats")
        return QueueStats(expired, buried, head_age / 1000)

    def report_waiters(self, process: str, waiters: int, valid: float) -> None:
        """Record the number of clients of a process that wait for a message; it expires after `valid` seconds."""
        self._run(script.SHOW, "report_waiters", process, waiters, _milliseconds(valid))

    # --- keys and scripts

    def result_key(self, job: str) -> str:
        """Return the key of a job's result."""
        return self.key_prefix + "result:" + digest_of(job.encode())

    @property
    def _resumed_key(self) -> str:
        return self.key_prefix + "resumed"

    def _cleared_key(self, undo: str) -> str:
        return self.key_prefix + "cleared:" + undo

    def _list_key_of(self, name: str) -> str:
        """Return the key of another queue's list."""
        return queue_keys(name, self.prefix)[0]

    def _run(
        self, commands: script.Script, command: str, *arguments: Any, extra: Sequence[Any] = (), large: bool = False
    ) -> list[Any]:
        """Run a command of a script. `extra` are more keys; `large` says that the reply may be large."""
        keys = [*self._keys, *filter(None, extra)]
        client = self.client_for_large if large else self.client
        return commands.run(client, keys, [command, self.max_deliveries, *arguments])


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _raise_if_expired(ids: list[bytes]) -> None:
    if ids:
        raise LeaseExpired([id.decode(errors="replace") for id in ids])
