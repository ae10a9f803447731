"""Batching: small commands that are in flight at the same moment share one write and one read.

A lone command is sent at once. Commands that arrive before its reply are queued; then the first of them becomes the
leader, which sends all of them on one connection and distributes the replies in order. So many small commands cost
little more than one, and a server that syncs to disk before it replies syncs once for all. Each caller gets its own
reply or its own error, and nothing is sent twice. A large command is sent alone; use `unbatched` for commands whose
reply can be large.
"""

import threading
import time
from collections import deque
from copy import copy
from functools import cached_property
from typing import Any

import hiredis
import redis
from redis.connection import HiredisRespSerializer

from broker.connections.circuit_breaker import BREAKER_TIMEOUT, CircuitBreaker
from broker.connections.errors import NotSent

BATCHED_COMMANDS = frozenset({"LPUSH", "RPUSH", "LLEN", "EVALSHA"})
MAX_COMMAND_BYTES = 16 << 10  # a larger command is sent alone
MAX_BATCH_COMMANDS = 128
MANY_ARGUMENTS = 10  # a command with more is packed by _pack_many
QUEUE_TIMEOUT = 5.0  # seconds after which a queued command is not sent any more


_LENGTHS = [b"\r\n$%d\r\n" % length for length in range(1024)]


class _Call:
    """A command of one caller."""

    __slots__ = ("error", "is_done", "is_leader", "packed", "queued_at", "reply", "wakeup")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.reply: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.is_leader = False  # it sends the next batch
        self.queued_at = time.monotonic()
        self.wakeup: threading.Lock | None = None  # released when the call is done or leads; None: it leads at once


class BatchingClient(redis.Redis):
    """A Redis client that batches small commands of concurrent callers."""

    lacks_flags = False  # Script sets it once the server has refused script flags

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._queue: deque[_Call] = deque()
        self._queue_lock = threading.Lock()
        self._has_leader = False
        self._spare_locks: list[threading.Lock] = []  # acquired, for reuse

    @cached_property
    def unbatched(self) -> redis.Redis:
        """A client on the same connections that sends each command alone, for replies that can be large."""
        return redis.Redis(connection_pool=self.connection_pool)

    @cached_property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker of the connection pool."""
        found: CircuitBreaker = self.connection_pool.breaker  # type: ignore[attr-defined]
        return found

    def probe(self) -> None:
        """Check whether the server responds now.

        Raises:
            NotSent: it did not within BREAKER_TIMEOUT.
        """
        self.breaker.trip()
        self.breaker.check()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] not in BATCHED_COMMANDS:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        call = _Call(pack(args))
        if len(call.packed) <= MAX_COMMAND_BYTES:
            self._execute_batched(call)
        else:
            self._execute([call])
        if call.error:
            raise call.error
        return call.reply

    def _execute_batched(self, call: _Call) -> None:
        """Execute a call together with others that arrive at the same moment."""
        self.breaker.check()
        with self._queue_lock:
            self._queue.append(call)
            if self._has_leader:
                call.wakeup = self._spare_locks.pop() if self._spare_locks else _acquired_lock()
            self._has_leader = True
        if call.wakeup:
            try:
                self._wait_for_wakeup(call, call.wakeup)
            except BaseException:  # the calling thread or greenlet is stopped
                self._abandon(call)
                raise
            self._spare_locks.append(call.wakeup)
        if not call.is_done:
            self._lead(call)

    def _wait_for_wakeup(self, call: _Call, wakeup: threading.Lock) -> None:
        """Return when the call is done or is the leader.

        Raises:
            NotSent: the server does not respond.
        """
        while not wakeup.acquire(timeout=BREAKER_TIMEOUT):
            try:
                self.breaker.check()
            except NotSent:
                if self._abandon(call):
                    raise

    def _lead(self, leader: _Call) -> None:
        """Execute the first batch of the queue, then appoint the next leader."""
        with self._queue_lock:
            batch = [self._queue.popleft() for _ in range(min(MAX_BATCH_COMMANDS, len(self._queue)))]
        end = time.monotonic() - QUEUE_TIMEOUT
        expired = [call for call in batch if call.queued_at < end]
        batch = [call for call in batch if call.queued_at >= end]
        try:
            _fail(expired, redis.MaxConnectionsError("No connection available."))
            self._execute(batch)
        finally:
            with self._queue_lock:
                self._appoint_leader()
            for call in (*expired, *batch):
                if call.wakeup and call is not leader:
                    call.wakeup.release()

    def _appoint_leader(self) -> None:
        """Make the first call in the queue the leader. The caller must hold `_queue_lock`."""
        self._has_leader = bool(self._queue)
        if self._queue and (wakeup := self._queue[0].wakeup):
            self._queue[0].is_leader = True
            wakeup.release()

    def _abandon(self, call: _Call) -> bool:
        """Remove a call from the queue, so that it is not sent; return whether it was still there."""
        with self._queue_lock:
            if call not in self._queue:
                return False
            self._queue.remove(call)
            if call.is_leader:
                self._appoint_leader()
            return True

    def _execute(self, batch: list[_Call]) -> None:
        """Execute a batch; each call then has its reply or its error."""
        try:
            if batch:
                self._exchange(batch)
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise

    def _exchange(self, batch: list[_Call]) -> None:
        """Send a batch in one write and read its replies."""
        pool = self.connection_pool
        connection = pool.get_connection()
        try:
            packed = b"".join([call.packed for call in batch])
            connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
            for call in batch:
                try:
                    call.reply = connection.read_response()
                except redis.RedisError as error:
                    call.error = error
                call.is_done = True
                if not connection.is_connected:  # the outcome of the other calls is unknown
                    raise redis.ConnectionError("The connection ended before the reply.")
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            pool.release(connection)


def _acquired_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _fail(batch: list[_Call], error: BaseException) -> None:
    """Give each call without a reply a copy of an error."""
    for call in batch:
        if not call.is_done:
            call.error = copy(error) if isinstance(error, Exception) else redis.ConnectionError("The caller has ended.")
            call.is_done = True


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command as RESP bytes."""
    if len(args) > MANY_ARGUMENTS:
        try:
            return _pack_many(args)
        except (TypeError, IndexError):  # an argument is not bytes, or is too long
            pass
    packed: bytes = hiredis.pack_command(args)
    return packed


class Packer(HiredisRespSerializer):
    """redis-py's packer, but faster for a command with many messages, each of which the original checks in Python."""

    def pack(self, *args: Any) -> list[bytes]:
        if len(args) > MANY_ARGUMENTS:
            return [pack(args)]
        packed: list[bytes] = super().pack(*args)
        return packed


def _pack_many(args: tuple[Any, ...]) -> bytes:
    """Pack a command with a key and many short values: twice as fast as packing each argument."""
    values = args[2:]
    parts: list[bytes] = [b""] * (2 * len(values))
    parts[0::2] = [_LENGTHS[length] for length in map(len, values)]
    parts[1::2] = values
    head = hiredis.pack_command(args[:2])  # *2\r\n...\r\n
    return b"".join([b"*%d" % len(args), head[2:-2], *parts, b"\r\n"])
