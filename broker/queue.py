"""A RedisQueue whose messages can be delayed, reserved, acked, returned, buried, found, moved and restored.

Every verb is one script (a file beside this one), so it happens whole or not at all. The scripts use the clock
of Redis and declare all their keys, which share one Cluster slot. They need Redis 6.2 or Valkey.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from broker.bulk_push import MAX_COMMAND_MESSAGES, StagedScript, bulk_push
from broker.connections.errors import lacks_flags
from broker.keys import queue_keys
from RedisQueue import RedisQueue

MAX_BATCH = 1000  # messages one script call handles at most
RESULT_SECONDS = 86400  # how long a result is kept if nothing else is said
MIN_BLOCK_SECONDS = 0.02  # how long a wait takes at least on a server that cannot block
FULL_POLL_INTERVAL = 0.25  # seconds between two tries while Redis is full: then BLMOVE is refused, taking is not

M = TypeVar("M", bound=bytes)


class Stale(Exception):
    """These reservations are not held (any more), or this undo is not known, or the message is not there."""

    def __init__(self, ids: Sequence[str] = ()) -> None:
        super().__init__(", ".join(ids))
        self.ids = list(ids)


class Conflict(Exception):
    """The same Idempotency-Key came with another request."""


class Paused(Exception):
    """The queue is paused, so nothing is taken from it."""


class Delivery(bytes):
    """A reserved message: its bytes, and what is known of this delivery."""

    id: str
    deliveries: int  # this one included
    deadline: float  # Unix time by the Redis clock, seconds


@dataclass(frozen=True)
class Held:
    """A message that is reserved, or delayed: then by nobody."""

    id: str
    head: bytes  # its first bytes, as many as were asked for
    size: int  # of the whole message, bytes
    deliveries: int
    deadline: float  # when it comes back, Unix time by the Redis clock, seconds
    failed: float | None  # when it failed last, Unix time; None: it did not
    reason: str  # why


@dataclass(frozen=True)
class Details:
    """What is known of a waiting message."""

    deliveries: int = 0  # so far
    failed: float | None = None  # when it failed last, Unix time, seconds; None: it did not
    reason: str = ""  # why
    died: bool = False  # it is a dead letter since then


@dataclass(frozen=True)
class Found:
    """A waiting message that holds the text that was looked for."""

    position: int  # 0 is next to be popped
    head: bytes  # its first bytes, as many as were asked for
    size: int  # of the whole message, bytes
    details: Details | None = None  # if they were asked for


@dataclass(frozen=True)
class Search:
    """Where a search goes on: at a position, behind the last messages that were looked at (`mark`)."""

    position: int = 0
    mark: tuple[bytes, ...] = ()
    is_over: bool = False


@dataclass(frozen=True)
class Result:
    """What came of a job, and when (Unix time by the Redis clock, seconds)."""

    result: bytes
    at: float


@dataclass(frozen=True)
class State:
    """What a queue holds, and the first bytes and whole sizes of some waiting messages, next to be popped first.

    `next_change` is the time until this changes by itself, as a lease or a delay ends, in seconds (None: it does not).
    """

    count: int
    reserved: int
    delayed: int
    dead: int
    waiters: int
    paused: bool
    heads: list[tuple[bytes, int]]
    next_change: float | None

    def counts(self) -> dict[str, int | bool]:
        """Return all but the messages."""
        names = ("count", "reserved", "delayed", "dead", "waiters", "paused")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Batch(Generic[M]):
    """Messages that were taken; and if there are none, seconds until a lease or a delay ends (None: none does)."""

    messages: list[M]
    next_due: float | None = None
    paused: bool = False  # nothing is given out


@dataclass(frozen=True)
class QueueStats:
    """How many leases ran out, how many messages were buried, and seconds for which the same message has been next.

    The numbers start anew 30 days after their last change. The seconds are 0 for an empty queue.
    """

    expired: int
    buried: int
    next_seconds: float


class Script:
    """A Lua script in files beside this one. Redis knows it by its digest after the first call.

    Its first line, `#!lua flags=...`, is left out on a server that does not know it: Redis before 7.0, and some that
    are like Redis; the client remembers it. There `without_flags` comes first.
    """

    def __init__(self, *files: str, flags: str, without_flags: str = "") -> None:
        text = "".join((Path(__file__).parent / "lua" / name).read_text(encoding="utf-8") for name in files)
        self._texts = (f"#!lua flags={flags}\n{text}", without_flags + text)
        self._digests = tuple(hashlib.sha1(text.encode()).hexdigest() for text in self._texts)

    def run(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Run the script until it is done, and return its answer without the status in front.

        Raises:
            Conflict: the script found the Idempotency-Key with another request.
        """
        while True:
            status, *answer = self.run_once(client, keys, arguments)
            if status == _CONFLICT:
                raise Conflict
            if status == _DONE:
                return list(answer)

    def run_once(self, client: Any, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        """Run the script and return its answer. A try that fails here did not run, so the next one is no repetition."""
        plain = getattr(client, "lacks_flags", False)
        try:
            return client.evalsha(self._digests[plain], len(keys), *keys, *arguments)
        except NoScriptError:
            pass
        try:
            return client.eval(self._texts[plain], len(keys), *keys, *arguments)
        except ResponseError as error:
            if plain or not lacks_flags(error):
                raise
        answer = client.eval(self._texts[True], len(keys), *keys, *arguments)
        client.lacks_flags = True
        return answer


_DONE, _CONFLICT = 0, 2  # first in a script's answer; anything else: call again
# When memory is full, a Redis that does not know `allow-oom` refuses a script whose first write needs memory. This one
# needs none, and does nothing: no message has an empty id.
_FREE_WRITE = "redis.call('HDEL', KEYS[4], '')\n"
_QUEUE = Script("helpers.lua", "queue.lua", flags="allow-oom", without_flags=_FREE_WRITE)
_QUEUE_THAT_GROWS = Script("helpers.lua", "queue.lua", flags="")  # a full server refuses it
_PUSH = Script("helpers.lua", "push.lua", flags="")
_PUSH_STAGED = Script("staged.lua", "helpers.lua", "push.lua", flags="")
_FIND = Script("helpers.lua", "find.lua", flags="allow-oom", without_flags=_FREE_WRITE)
_POP = Script("pop.lua", flags="allow-oom")
_STATS = Script("helpers.lua", "stats.lua", flags="allow-oom")


_POP_KEYS = ("reserved", "delayed", "returned", "paused", "causes")
_KEYS = (
    *("reserved", "delayed", "bodies", "returned", "dead", "acked", "waiters", "clock", "paused", "causes"),
    *("dead:causes", "counters"),
)


class ReliableQueue(RedisQueue):
    """The verbs that need scripts. A message that was delivered `max_deliveries` times is buried, not returned."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:", max_deliveries: int = 5) -> None:
        super().__init__(client, name, prefix)
        self.prefix = prefix
        self.key, self.key_prefix = queue_keys(name, prefix)
        self.client_for_large = getattr(client, "unbatched", client)  # for commands whose reply may be large
        self.max_deliveries = max_deliveries
        self.is_repeated = False  # whether the last answer was one that is kept for an Idempotency-Key
        self._pop_keys = [self.key, *(self.key_prefix + key for key in _POP_KEYS)]
        self._keys = [self.key, *(self.key_prefix + key for key in _KEYS)]

    def push_once(self, idempotency_key: str, messages: Sequence[bytes], front: bool = False) -> int:
        """Push as `push` does, once for an idempotency key within 24 hours; return the length after that push.

        Raises:
            Conflict: the key was used with another request.
        """
        command = "push_front" if front else "push"
        fingerprint = _digest(b"push-front" if front else b"push", *messages)
        return int(
            self._push(command, messages, fingerprint=fingerprint, extra_key=self._answer_key(idempotency_key))[0]
        )

    def push(self, *messages: bytes, front: bool = False) -> int:
        """Add messages and return the queue's new length.

        With `front` they go to the front, the first of them to be popped next. No messages change nothing.
        """
        if front and messages:
            return int(self._push("push_front", messages)[0])
        if len(messages) > MAX_COMMAND_MESSAGES:
            return bulk_push(self.client, self.key, messages)
        return super().push(*messages)

    def push_later(
        self, delay: float, messages: Sequence[bytes], idempotency_key: str | None = None
    ) -> tuple[list[str], int]:
        """Add messages, all or none, that join the back of the queue in `delay` seconds, in the same order.

        Return their ids and the queue's length. With an idempotency key it is done once within 24 hours.

        Raises:
            Conflict: the key was used with another request.
        """
        milliseconds = _milliseconds(delay)
        fingerprint = _digest(b"push-later", b"%d" % milliseconds, *messages) if idempotency_key else ""
        key = self._answer_key(idempotency_key) if idempotency_key else None
        count, moment, random = self._push("push_later", messages, milliseconds, fingerprint, key)
        stem = f"{moment.decode()}-%06d-{random.decode()}-0-d"
        return [stem % number for number in range(1, len(messages) + 1)], int(count)

    def _push(
        self,
        command: str,
        messages: Sequence[bytes],
        delay: int = 0,
        fingerprint: str = "",
        extra_key: str | None = None,
    ) -> list[Any]:
        ordered = messages[::-1] if command == "push_front" else messages
        arguments = [fingerprint, delay, secrets.token_hex(8)]
        if len(messages) > MAX_COMMAND_MESSAGES:
            answer = self._push_staged(ordered, [command, self.max_deliveries, *arguments], extra_key)
        else:
            answer = self._run(command, *arguments, *ordered, extra_key=extra_key, script=_PUSH)
        self.is_repeated = len(answer) > 3
        return answer[:3]

    def _push_staged(self, messages: Sequence[bytes], arguments: list[Any], extra_key: str | None) -> list[Any]:
        staged = self.key_prefix + "staged:" + secrets.token_hex(8)
        keys = [*self._keys, *filter(None, [extra_key]), staged]
        return _PUSH_STAGED.run(StagedScript(self.client, staged, messages), keys, arguments)

    def pop(self, max: int = 1) -> list[bytes]:
        """Take up to `max` messages, oldest first; [] from an empty queue."""
        return self.pop_batch(max).messages

    def pop_batch(self, max: int = 1, idempotency_key: str | None = None) -> Batch[bytes]:
        """Pop, and say when more may come. With an idempotency key an answer that had messages is kept for 24 hours.

        A batch ends once it reaches 16 MiB.

        Raises:
            Conflict: the key was used with another request.
        """
        if max == 1 and idempotency_key is None:
            found = _POP.run_once(self.client, self._pop_keys)
            if found != 1:
                return Batch([found] if isinstance(found, bytes) else [])
        arguments: list[Any] = [max]
        if idempotency_key is not None:
            arguments.append(_digest(b"pop", str(max).encode()))
        key = None if idempotency_key is None else self._answer_key(idempotency_key)
        next_due, messages, repeated, paused = self._run("pop", *arguments, extra_key=key, large=max > 1)
        self.is_repeated = repeated == 1
        return Batch(messages, _seconds(next_due), paused == 1)

    def wait(self, seconds: float, client: Any = None, paused: bool = False) -> None:
        """Return when the queue holds something, or after `seconds`. Nothing is taken, so no lost reply loses anything.

        Of a queue that was `paused`: return when it is resumed. It blocks a connection of `client`, by default of the
        queue's own client.
        """
        started = time.monotonic()
        key = self._resumed_key if paused else self.key
        try:
            if (client or self.client).blmove(key, key, max(seconds, 0.01), "RIGHT", "RIGHT") is None:
                # A server that cannot block here answers at once; that must not become a busy loop.
                time.sleep(max(0.0, min(MIN_BLOCK_SECONDS, seconds) - (time.monotonic() - started)))
        except OutOfMemoryError:
            time.sleep(min(seconds, FULL_POLL_INTERVAL))

    def reserve(self, lease: float = 30, max: int = 1) -> Batch[Delivery]:
        """Take up to `max` messages for `lease` seconds; then they return to the queue, or are buried.

        A batch ends once it reaches 16 MiB.
        """
        random = secrets.token_hex(8)
        next_due, records, deadline, paused = self._run("reserve", max, _milliseconds(lease), random, large=max > 1)
        deliveries = [_delivery(deadline, *record) for record in records]
        return Batch(deliveries, _seconds(next_due), paused == 1)

    def ack(self, *ids: str) -> int:
        """End reservations for good and return their number; those acked within the last hour count too.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        _raise_if_stale(self._run("ack", *ids)[0])
        return len(set(ids))

    def ack_with(self, id: str, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """End a reservation for good, and in the same step keep the result of a job as `store_result` does.

        Raises:
            Stale: it is not held any more; then nothing was changed and nothing stored.
        """
        key = self.result_key(job)
        _raise_if_stale(self._run("ack_with", round(keep), result, id, extra_key=key, script=_QUEUE_THAT_GROWS)[0])

    def release(self, *ids: str, delay: float = 0, dead: bool = False, reason: str = "") -> int:
        """Return messages to the front of the queue, now or in `delay` seconds, or bury them all (`dead`).

        Return how many of them were buried; those that were delivered `max_deliveries` times always are. `reason` says
        why they failed; it is kept as long as they wait.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        unique = dict.fromkeys(ids)  # an id named twice must not be buried twice
        stale, buried, more = self._run("release", _milliseconds(delay), int(dead), reason, *unique)
        _raise_if_stale(stale)
        if more:
            self.sweep()
        return int(buried)

    def sweep(self) -> float | None:
        """Return the messages whose lease or delay is over; return the seconds until the next one is (None: no one)."""
        return _seconds(self._run("sweep")[0])

    def extend(self, id: str, lease: float) -> float:
        """Let a lease or a delay end `lease` seconds from now; return its new deadline (Unix time, seconds).

        Raises:
            Stale: it is not held any more.
        """
        held, deadline = self._run("extend", _milliseconds(lease), id)
        if not held:
            raise Stale([id])
        return float(deadline / 1000)

    def remove(self, position: int, message: bytes, undo: bool = False) -> str | None:
        """Remove the message at a position, 0 being next to be popped.

        Return what `restore` needs to undo it within one hour; None without `undo`: then nothing is kept.

        Raises:
            Stale: this very message is not there.
        """
        token = secrets.token_hex(8) if undo else None
        key = self._cleared_key(token) if token else None
        if not self._run("remove", position, message, secrets.token_hex(16), extra_key=key)[0]:
            raise Stale
        return token

    def requeue(self, *messages: bytes) -> None:
        """Undo a pop: the messages are popped next, in the same order."""
        self._run("requeue", *reversed(messages))

    def clear(self) -> tuple[int, str | None]:
        """Remove every waiting message; return how many, and what `restore` needs to undo it within one hour."""
        undo = secrets.token_hex(8)
        count = int(self._run("clear", extra_key=self._cleared_key(undo))[0])
        return count, undo if count else None

    def restore(self, undo: str) -> int:
        """Put back what `clear` removed, before everything that was pushed since; return how many.

        What `remove` removed goes back to where it was, in front if all that was ahead of it has left.

        Raises:
            Stale: it was put back before, or removed more than an hour ago.
        """
        count = int(self._run("restore", secrets.token_hex(16), extra_key=self._cleared_key(undo))[0])
        if count < 0:
            raise Stale
        return count

    def move(self, to: str, max: int) -> int:
        """Move up to `max` messages to the queue `to`, oldest first, and return how many.

        At most 1,000 a call, and a batch ends once it reaches 16 MiB; 0 only when none is left.
        """
        return int(self._run("move", min(max, MAX_BATCH), extra_key=queue_keys(to, self.prefix)[0])[0])

    def move_one(self, to: str, position: int, message: bytes) -> None:
        """Move the message at a position, 0 being next to be popped, to the queue `to`.

        Raises:
            Stale: this very message is not there; then nothing was moved.
        """
        key = queue_keys(to, self.prefix)[0]
        if not self._run("move_one", position, message, secrets.token_hex(16), extra_key=key)[0]:
            raise Stale

    def find_and_move(self, to: str, text: str, max: int, search: Search) -> tuple[int, Search]:
        """Move up to `max` messages that hold a text to the queue `to`, as `find` finds them.

        Return how many, and where to go on.
        """
        mark = secrets.token_hex(16)
        found, search = self._find("move_found", text, max, mark, search, extra_key=queue_keys(to, self.prefix)[0])
        return len(found), search

    def find(
        self, text: str, max: int, head_bytes: int, search: Search, details: bool = False
    ) -> tuple[list[Found], Search]:
        """Look at some thousands of waiting messages for a text; ASCII letters match in either case.

        Return up to `max` messages that hold it, with their first `head_bytes` bytes, and where to go on.
        """
        found, search = self._find("find", text, max, head_bytes, search, int(details))
        return [
            Found(position, head, size, _details(*known[0]) if known else None)
            for position, size, head, *known in found
        ], search

    def _find(
        self, command: str, text: str, max: int, argument: Any, search: Search, details: int = 0, **options: Any
    ) -> tuple[list[Any], Search]:
        arguments = [text.encode().lower(), search.position, max, argument, details, *search.mark]
        position, is_over, found, mark = self._run(command, *arguments, script=_FIND, large=True, **options)
        return found, Search(position, tuple(mark), is_over == 1)

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after `offset` others."""
        counts, waiters, paused, found, next_change = self._run("state", heads, offset, head_bytes, large=heads > 0)
        shown = [(head, size) for head, size in found[::-1]]
        waiting, reserved, delayed, dead = counts
        return State(waiting, reserved, delayed, dead, waiters, paused == 1, shown, _seconds(next_change))

    def details(self, heads: int, offset: int, head_bytes: int) -> list[tuple[bytes, int, Details]]:
        """Return the first bytes, the size and what is known of up to `heads` messages after `offset` others.

        It ends once it has looked at 1 MiB of messages.
        """
        found = self._run("details", heads, offset, head_bytes, large=True)[0]
        return [(head, size, _details(*known)) for head, size, known in found]

    def held(self, kind: str, max: int, head_bytes: int, offset: int = 0, after: Held | None = None) -> list[Held]:
        """Return up to `max` messages that are "reserved" or "delayed", the soonest to come back first.

        They are those behind `offset` others, or behind `after`. It ends once it has looked at 1 MiB of messages.
        """
        last = [after.id, _milliseconds(after.deadline)] if after else ["", ""]
        found = self._run("held", kind, offset, *last, max, head_bytes, large=True)[0]
        return [
            Held(id.decode(), head, size, deliveries, due / 1000, failed / 1000 if failed else None, reason.decode())
            for id, due, head, size, deliveries, failed, reason in found
        ]

    def pause(self) -> None:
        """Let `pop` and `reserve` give nothing out until `resume`. Raw Redis clients are not held."""
        self._run("pause", extra_key=self._resumed_key)

    def resume(self) -> None:
        """Give messages out again."""
        self._run("resume", extra_key=self._resumed_key)

    def store_result(self, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Keep the result of a job for `keep` seconds, instead of one that is kept already."""
        self._run("store_result", round(keep), result, extra_key=self.result_key(job), script=_PUSH)

    def result(self, job: str) -> Result | None:
        """Return the result of a job, None if there is none (any more)."""
        kept = self.client_for_large.lrange(self.result_key(job), 0, -1)
        return Result(kept[1], int(kept[0]) / 1000) if kept else None

    def result_key(self, job: str) -> str:
        """Return the key of a job's result."""
        return self.key_prefix + "result:" + _digest(job.encode())

    def stats(self) -> QueueStats:
        """Return what is counted of the queue in Redis, and note which message is next."""
        expired, buried, next_milliseconds = self._run("stats", script=_STATS)
        return QueueStats(expired, buried, next_milliseconds / 1000)

    def report_waiters(self, process: str, waiters: int, valid: float) -> None:
        """Tell Redis how many clients of a process wait, which holds for `valid` seconds."""
        self._run("report_waiters", process, waiters, _milliseconds(valid))

    def _answer_key(self, idempotency_key: str) -> str:
        return self.key_prefix + "once:" + _digest(idempotency_key.encode())

    @property
    def _resumed_key(self) -> str:
        return self.key_prefix + "resumed"

    def _cleared_key(self, undo: str) -> str:
        return self.key_prefix + "cleared:" + undo

    def _run(
        self,
        command: str,
        *arguments: Any,
        extra_key: str | None = None,
        script: Script = _QUEUE,
        large: bool = False,
    ) -> list[Any]:
        """Run a command of a script. Those of queue.lua first return the messages that are due."""
        keys = [*self._keys, extra_key] if extra_key else self._keys
        client = self.client_for_large if large else self.client
        return script.run(client, keys, [command, self.max_deliveries, *arguments])


def _delivery(deadline: int, id: bytes, deliveries: int, message: bytes) -> Delivery:
    delivery = Delivery(message)
    delivery.id, delivery.deliveries, delivery.deadline = id.decode(), deliveries, deadline / 1000
    return delivery


def _details(deliveries: int, failed: int, reason: bytes, died: int) -> Details:
    return Details(deliveries, failed / 1000 if failed else None, reason.decode(errors="replace"), died == 1)


def _digest(*parts: bytes) -> str:
    """Return a digest that tells any two lists of parts apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:32]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _raise_if_stale(stale: list[bytes]) -> None:
    if stale:
        raise Stale([id.decode(errors="replace") for id in stale])
