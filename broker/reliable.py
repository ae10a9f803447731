"""A RedisQueue whose messages can be reserved, acked, returned, buried, moved and restored.

Every verb is one script (`queue.lua`, `push.lua`), so it happens whole or not at all. The scripts use the clock
of Redis and declare all their keys, which share one Cluster slot. They need Redis 7.0 or Valkey.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError

from broker.names import queue_keys
from RedisQueue import RedisQueue

MAX_BATCH = 1000  # messages one script call handles at most
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


class Delivery(bytes):
    """A reserved message: its bytes, and what is known of this delivery."""

    id: str
    deliveries: int  # this one included
    deadline: float  # Unix time by the Redis clock, seconds


@dataclass(frozen=True)
class State:
    """What a queue holds, and the first bytes and whole sizes of some waiting messages, next to be popped first.

    `next_change` is the time until this changes by itself, when a lease ends, in seconds (None: it does not).
    """

    count: int
    reserved: int
    dead: int
    waiters: int
    heads: list[tuple[bytes, int]]
    next_change: float | None


@dataclass(frozen=True)
class Batch(Generic[M]):
    """Messages that were taken; and if there are none, seconds until the next lease ends (None without one)."""

    messages: list[M]
    next_expiry: float | None = None


@dataclass(frozen=True)
class Measures:
    """How many leases ran out, how many messages were buried, and seconds for which the same message has been next.

    The numbers start anew 30 days after their last change. The seconds are 0 for an empty queue.
    """

    expired: int
    buried: int
    next_seconds: float


class Script:
    """A Lua script in files beside this one. Redis knows it by its digest after the first call."""

    def __init__(self, *files: str, flags: str) -> None:
        parts = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in files]
        self.text = f"#!lua flags={flags}\n" + "".join(parts)
        self.sha = hashlib.sha1(self.text.encode()).hexdigest()

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
        """Run the script and return its answer."""
        try:
            return client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # the script did not run, so retrying is safe
            return client.eval(self.text, len(keys), *keys, *arguments)


_DONE, _CONFLICT = 0, 2  # first in a script's answer; anything else: call again
_QUEUE = Script("shared.lua", "queue.lua", flags="allow-oom")
_PUSH = Script("shared.lua", "push.lua", flags="")
_POP = Script("pop.lua", flags="allow-oom")
_MEASURE = Script("shared.lua", "measure.lua", flags="allow-oom")


class ReliableQueue(RedisQueue):
    """The verbs that need scripts. A message that was delivered `max_deliveries` times is buried, not returned."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:", max_deliveries: int = 5) -> None:
        super().__init__(client, name, prefix)
        self.client_for_large = getattr(client, "alone", client)  # for commands whose reply may be large
        self.max_deliveries = max_deliveries
        self.is_repeated = False  # whether the last answer was one that is kept for an Idempotency-Key
        others = ("reserved", "bodies", "returned", "dead", "acked", "waiters", "clock", "counters")
        self._pop_keys = [self.key, self.key_prefix + "reserved", self.key_prefix + "returned"]
        self._keys = [self.key, *(self.key_prefix + key for key in others)]

    def push_once(self, idempotency_key: str, messages: Sequence[bytes], next: bool = False) -> int:
        """Push as `push` does, once for an idempotency key within 24 hours; return the length after that push.

        Raises:
            Conflict: the key was used with another request.
        """
        fingerprint = _digest(b"push-next" if next else b"push", *messages)
        return self._push(messages, next, fingerprint, self._answer_key(idempotency_key))

    def push(self, *messages: bytes, next: bool = False) -> int:
        """Add messages and return the queue's new length.

        With `next` they go to the front, the first of them to be popped next. No messages change nothing.
        """
        return self._push(messages, next) if next and messages else super().push(*messages)

    def _push(self, messages: Sequence[bytes], next: bool, fingerprint: str = "", extra_key: str | None = None) -> int:
        command, ordered = ("push_front", reversed(messages)) if next else ("push", messages)
        count, *repeated = self._run(command, fingerprint, *ordered, extra_key=extra_key, script=_PUSH)
        self.is_repeated = bool(repeated)
        return int(count)

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
        if idempotency_key is None:
            expiry, messages = self._run("pop", max, large=max > 1)
        else:
            fingerprint = _digest(b"pop", str(max).encode())
            key = self._answer_key(idempotency_key)
            expiry, messages, *repeated = self._run("pop", max, fingerprint, extra_key=key, large=max > 1)
            self.is_repeated = bool(repeated)
        return Batch(messages, _seconds(expiry))

    def wait(self, seconds: float, client: Any = None) -> None:
        """Return when the queue holds something, or after `seconds`. Nothing is taken, so no lost reply loses anything.

        It blocks a connection of `client`, by default of the queue's own client.
        """
        started = time.monotonic()
        try:
            if (client or self.client).blmove(self.key, self.key, max(seconds, 0.01), "RIGHT", "RIGHT") is None:
                # A server that cannot block here answers at once; that must not become a busy loop.
                time.sleep(max(0.0, min(MIN_BLOCK_SECONDS, seconds) - (time.monotonic() - started)))
        except OutOfMemoryError:
            time.sleep(min(seconds, FULL_POLL_INTERVAL))

    def reserve(self, lease: float = 30, max: int = 1) -> Batch[Delivery]:
        """Take up to `max` messages for `lease` seconds; then they return to the queue, or are buried.

        A batch ends once it reaches 16 MiB.
        """
        expiry, records, deadline = self._run("reserve", max, _milliseconds(lease), secrets.token_hex(8), large=max > 1)
        return Batch([_delivery(deadline, *record) for record in records], _seconds(expiry))

    def ack(self, *ids: str) -> int:
        """End reservations for good and return their number; those acked within the last hour count too.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        _raise_if_stale(self._run("ack", *ids)[0])
        return len(set(ids))

    def release(self, *ids: str) -> int:
        """Return messages to the front of the queue; return how many of them were buried instead.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        stale, buried, more = self._run("release", *dict.fromkeys(ids))  # an id named twice must not be buried twice
        _raise_if_stale(stale)
        if more:
            self._run("sweep")
        return int(buried)

    def extend(self, id: str, lease: float) -> float:
        """Let a lease end `lease` seconds from now; return its new deadline (Unix time, seconds).

        Raises:
            Stale: it is not held any more.
        """
        held, deadline = self._run("extend", _milliseconds(lease), id)
        if not held:
            raise Stale([id])
        return float(deadline / 1000)

    def remove(self, position: int, message: bytes) -> None:
        """Remove the message at a position, 0 being next to be popped.

        Raises:
            Stale: this very message is not there.
        """
        if not self._run("remove", position, message, secrets.token_hex(16))[0]:
            raise Stale

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

        Raises:
            Stale: it was put back before, or cleared more than an hour ago.
        """
        count = int(self._run("restore", extra_key=self._cleared_key(undo))[0])
        if count < 0:
            raise Stale
        return count

    def move(self, to: str, max: int) -> int:
        """Move up to `max` messages to the queue `to`, oldest first, and return how many.

        At most 1,000 a call, and a batch ends once it reaches 16 MiB; 0 only when none is left.
        """
        return int(self._run("move", min(max, MAX_BATCH), extra_key=queue_keys(to, self.prefix)[0])[0])

    def count(self) -> int:
        """Return how many messages wait."""
        return self.state().count

    def state(self, heads: int = 0, offset: int = 0, head_bytes: int = 0) -> State:
        """Return the counts, and the first `head_bytes` bytes of `heads` messages after `offset` others."""
        count, reserved, dead, waiters, found, next_change = self._run(
            "state", heads, offset, head_bytes, large=heads > 0
        )
        shown = [(head, size) for head, size in found[::-1]]
        return State(count, reserved, dead, waiters, shown, _seconds(next_change))

    def measure(self) -> Measures:
        """Return what is counted of the queue in Redis, and note which message is next."""
        expired, buried, next_milliseconds = self._run("measure", script=_MEASURE)
        return Measures(expired, buried, next_milliseconds / 1000)

    def report_waiters(self, process: str, waiters: int, valid: float) -> None:
        """Tell Redis how many clients of a process wait, which holds for `valid` seconds."""
        self._run("report_waiters", process, waiters, _milliseconds(valid))

    def _answer_key(self, idempotency_key: str) -> str:
        return self.key_prefix + "once:" + _digest(idempotency_key.encode())

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
        """Run a command of a script. Those of queue.lua first return the messages of expired leases."""
        keys = [*self._keys, extra_key] if extra_key else self._keys
        client = self.client_for_large if large else self.client
        return script.run(client, keys, [command, self.max_deliveries, *arguments])


def _delivery(deadline: int, id: bytes, deliveries: int, message: bytes) -> Delivery:
    delivery = Delivery(message)
    delivery.id, delivery.deliveries, delivery.deadline = id.decode(), deliveries, deadline / 1000
    return delivery


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
