"""Commands that are in flight at the same moment share one write and one read.

A lone command is sent at once. Those that come while it is under way wait in line; when its reply has come, the first
in line sends all of them together on one connection and hands out the replies in order. So many small commands cost
little more than one, and a server that syncs to the disk before it answers syncs once for all. Each caller gets its own
reply or its own error, and nothing is sent twice. What is large goes alone; so does what may have a
large reply, by way of `unbatched`.
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

SHARED_COMMANDS = frozenset({"LPUSH", "RPUSH", "LLEN", "EVALSHA"})
MAX_COMMAND_BYTES = 16 << 10  # a larger command goes alone
MAX_BATCH_COMMANDS = 128  # commands in one write
MANY_ARGUMENTS = 10  # of a command that is packed in another way
LINE_TIMEOUT = 5.0  # seconds a command waits for its turn, at most; then it is not sent any more


_LENGTHS = [b"\r\n$%d\r\n" % length for length in range(1024)]


class _Call:
    """A command in line."""

    __slots__ = ("came_at", "error", "is_done", "leads", "packed", "reply", "turn")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.reply: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.leads = False  # whether it sends the next batch
        self.came_at = time.monotonic()
        self.turn: threading.Lock | None = None  # released when the call is done or is to lead; None: it leads at once


class BatchingClient(redis.Redis):
    """A Redis client that batches small commands of concurrent callers."""

    lacks_flags = False  # see Script in broker/script.py

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._line: deque[_Call] = deque()
        self._line_lock = threading.Lock()
        self._turns: list[threading.Lock] = []  # to be used again; they are acquired
        self._is_led = False

    @cached_property
    def unbatched(self) -> redis.Redis:
        """A client on the same connections whose commands, with replies that may be large, share nothing."""
        return redis.Redis(connection_pool=self.connection_pool)

    @cached_property
    def breaker(self) -> CircuitBreaker:
        """Whether the server answers commands, as the pool of connections knows it."""
        found: CircuitBreaker = self.connection_pool.breaker  # type: ignore[attr-defined]
        return found

    def check_breaker(self) -> None:
        """Ask whether the server answers commands.

        Raises:
            NotSent: it has not answered for BREAKER_TIMEOUT.
        """
        self.breaker.trip()
        self.breaker.wait()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] not in SHARED_COMMANDS:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        call = _Call(pack(args))
        if len(call.packed) <= MAX_COMMAND_BYTES:
            self._share(call)
        else:
            self._do([call])
        if call.error:
            raise call.error
        return call.reply

    def _share(self, call: _Call) -> None:
        """Do a command with those that come at the same moment."""
        self.breaker.wait()
        with self._line_lock:
            self._line.append(call)
            if self._is_led:
                call.turn = self._turns.pop() if self._turns else _acquired_lock()
            self._is_led = True
        if call.turn:
            try:
                self._wait_for_turn(call, call.turn)
            except BaseException:  # its thread or greenlet ends
                self._abandon(call)
                raise
            self._turns.append(call.turn)
        if not call.is_done:
            self._lead(call)

    def _wait_for_turn(self, call: _Call, turn: threading.Lock) -> None:
        """Return when the call is done or is to lead.

        Raises:
            NotSent: the server is silent.
        """
        while not turn.acquire(timeout=BREAKER_TIMEOUT):
            try:
                self.breaker.wait()
            except NotSent:
                if self._abandon(call):
                    raise

    def _lead(self, leader: _Call) -> None:
        """Send the batch at the head of the line, then let the next in line lead."""
        with self._line_lock:
            batch = [self._line.popleft() for _ in range(min(MAX_BATCH_COMMANDS, len(self._line)))]
        end = time.monotonic() - LINE_TIMEOUT
        late = [call for call in batch if call.came_at < end]
        batch = [call for call in batch if call.came_at >= end]
        try:
            _fail(late, redis.MaxConnectionsError("No connection available."))
            self._do(batch)
        finally:
            with self._line_lock:
                self._hand_over()
            for call in (*late, *batch):
                if call.turn and call is not leader:
                    call.turn.release()

    def _hand_over(self) -> None:
        """Let the first in line lead; `_line_lock` is held."""
        self._is_led = bool(self._line)
        if self._line and (turn := self._line[0].turn):
            self._line[0].leads = True
            turn.release()

    def _abandon(self, call: _Call) -> bool:
        """Take a call out of the line; return whether it was in there, so that it is not sent."""
        with self._line_lock:
            if call not in self._line:
                return False
            self._line.remove(call)
            if call.leads:
                self._hand_over()
            return True

    def _do(self, batch: list[_Call]) -> None:
        """Do a batch; each call then has its reply or its error."""
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
                if not connection.is_connected:  # what the server did of the rest is unknown
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
    """Give each call that has no reply an error of its own."""
    for call in batch:
        if not call.is_done:
            call.error = copy(error) if isinstance(error, Exception) else redis.ConnectionError("The caller was ended.")
            call.is_done = True


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command as RESP bytes."""
    if len(args) > MANY_ARGUMENTS:
        try:
            return _pack_many(args)
        except (TypeError, IndexError):  # texts, or long messages
            pass
    packed: bytes = hiredis.pack_command(args)
    return packed


class Packer(HiredisRespSerializer):
    """Packs as redis-py does, but a command of many messages faster: redis-py looks at each of them in Python."""

    def pack(self, *args: Any) -> list[bytes]:
        if len(args) > MANY_ARGUMENTS:
            return [pack(args)]
        packed: list[bytes] = super().pack(*args)
        return packed


def _pack_many(args: tuple[Any, ...]) -> bytes:
    """Pack a command for a key with many short bytes: twice as fast as argument by argument."""
    values = args[2:]
    parts: list[bytes] = [b""] * (2 * len(values))
    parts[0::2] = [_LENGTHS[length] for length in map(len, values)]
    parts[1::2] = values
    head = hiredis.pack_command(args[:2])  # *2\r\n...\r\n
    return b"".join([b"*%d" % len(args), head[2:-2], *parts, b"\r\n"])
