"""Batching: small commands that are in flight at the same moment share one write and one read.

A lone command is sent at once. Commands that arrive before its reply are queued; then the first of them becomes the
leader, which sends all of them on one connection and distributes the replies in order. Thus many small commands cost
little more than one, and a server that syncs to disk before it replies syncs once for all. Each caller gets its own
reply or its own error, and nothing is sent twice. A large command is sent alone; use `unbatched` for commands whose
reply can be large.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Generator
from copy import copy
from functools import lru_cache
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
MAX_KEPT_KEYS = 15  # of a script whose packed form is kept: the keys of a queue
MAX_QUEUE_CHECKS = 5  # waits of BREAKER_TIMEOUT in the queue after which a command is not sent any more; time in
# which this process did not run, as during `docker pause`, ends one wait at most
ENDED = "The caller that sends this command was ended."


_LENGTHS = [b"\r\n$%d\r\n" % length for length in range(1024)]


class _Call:
    """A command of one caller. It is claimed once, by whoever sends it or makes sure that nobody does."""

    __slots__ = ("checks", "claims", "error", "is_done", "is_queued", "packed", "reply", "run", "thread", "wakeup")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.reply: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.is_queued = False
        self.claims: dict[str, _Call] = {}
        self.checks = 0  # how often it has waited for BREAKER_TIMEOUT
        self.thread = threading.get_ident()  # with gevent, the greenlet
        self.run: Generator[None, None, None] | None = None
        self.wakeup: threading.Lock | None = None  # released when the caller must look again

    @property
    def is_alive(self) -> bool:
        """Return whether the caller is still at work, however its work may have ended."""
        return self.run is not None and self.run.gi_running  # type: ignore[attr-defined]

    @property
    def is_orphaned(self) -> bool:
        """Return whether the caller that was to send it has ended: it may have been sent."""
        leader = self.claims.get("leader")
        return leader is not None and not leader.is_alive

    def claim(self, leader: "_Call") -> bool:
        """Claim the call; return whether `leader` is the one that has it."""
        return self.claims.setdefault("leader", leader) is leader

    def wake(self) -> None:
        """Let the caller look again. Once too often does no harm."""
        if self.wakeup:
            with contextlib.suppress(RuntimeError):  # somebody else just did
                self.wakeup.release()


class BatchingClient(redis.Redis):
    """A Redis client that batches small commands of concurrent callers.

    An exception can end a caller between any two steps: a signal handler that raises, a killed greenlet. So no flag
    says who leads: the first call of the queue leads whose caller is alive, and a call whose leader has died fails.
    """

    lacks_flags = False  # Script sets it once the server has refused script flags

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # A client on the same connections that sends each command alone, for replies that can be large.
        self.unbatched = redis.Redis(connection_pool=self.connection_pool)
        self.breaker: CircuitBreaker = self.connection_pool.breaker  # type: ignore[attr-defined]
        self.renew_after_fork()

    def renew_after_fork(self) -> None:
        """Forget what the threads of the parent process were doing: they do not exist in this process."""
        self._queue: deque[_Call] = deque()  # each step on it is atomic, so it needs no lock
        self._spare_locks: list[threading.Lock] = []  # for reuse

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
            self.breaker.check()
            call.run = self._run(call)
            for _ in call.run:
                pass
        else:
            self._execute([call])
        if call.error:
            raise call.error
        return call.reply

    def _run(self, call: _Call) -> Generator[None, None, None]:
        """Execute a call together with those that come at the same moment.

        It is a generator because Python itself then knows whether it is running (`_Call.is_alive`).

        Raises:
            NotSent: the server does not respond.
        """
        try:
            call.is_queued = True
            self._queue.append(call)
            while not call.is_done:
                if self._head() is call and call.claim(call):
                    self._lead(call)
                elif call.is_orphaned:
                    _fail([call], redis.ConnectionError(ENDED))
                elif call.wakeup is None:  # look once more, as nobody could wake it until now
                    call.wakeup = self._spare_locks.pop() if self._spare_locks else _acquired_lock()
                elif not call.wakeup.acquire(timeout=BREAKER_TIMEOUT):
                    self._check(call)
        finally:
            if call.is_queued:
                call.claim(call)
                self._remove(call)
                self._wake_head()
        if call.wakeup:
            self._spare_locks.append(call.wakeup)
        yield

    def _check(self, call: _Call) -> None:
        """Look after a call that has waited for some time.

        Raises:
            NotSent: the server does not respond.
        """
        call.checks += 1
        try:
            self.breaker.check()
        except NotSent:
            if call.claim(call):
                raise
        # A signal handler can call while its thread is in the middle of a call, which cannot go on meanwhile.
        if any(one.thread == call.thread for one in tuple(self._queue) if one is not call) and call.claim(call):
            self._execute([call])

    def _head(self) -> _Call | None:
        """Return the first call of the queue whose caller is alive; the others are removed."""
        while True:
            try:
                head = self._queue[0]
            except IndexError:
                return None
            if head.is_alive:
                return head
            self._remove(head)

    def _remove(self, call: _Call) -> None:
        with contextlib.suppress(ValueError):  # it was removed before
            self._queue.remove(call)
        call.is_queued = False

    def _wake_head(self) -> None:
        if head := self._head():
            head.wake()

    def _lead(self, leader: _Call) -> None:
        """Execute the first calls of the queue, then let the next one lead."""
        batch: list[_Call] = []
        expired: list[_Call] = []
        try:
            for call in tuple(self._queue)[:MAX_BATCH_COMMANDS]:
                if call is leader or (call.is_alive and call.claim(leader)):
                    (batch if call.checks < MAX_QUEUE_CHECKS else expired).append(call)
            _fail(expired, redis.MaxConnectionsError("No connection available."))
            self._execute(batch)
        finally:
            for call in (*batch, *expired):
                self._remove(call)
                if call is not leader:
                    call.wake()
            self._wake_head()

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
            call.error = copy(error) if isinstance(error, Exception) else redis.ConnectionError(ENDED)
            call.is_done = True


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command as RESP bytes."""
    if args[0] == "EVALSHA":
        keys_end = 3 + min(args[2], MAX_KEPT_KEYS)
        return b"*%d\r\n%b%b" % (len(args), _pack_script(args[:keys_end]), _pack_part(args[keys_end:]))
    if len(args) > MANY_ARGUMENTS and isinstance(args[2], bytes):
        try:
            return _pack_many(args)
        except (TypeError, IndexError):  # an argument is not bytes, or is too long
            pass
    packed: bytes = hiredis.pack_command(_numbers_as_text(args))
    return packed


@lru_cache(maxsize=1000)
def _pack_script(args: tuple[Any, ...]) -> bytes:
    """Pack EVALSHA, the digest and the first keys, which are the same for all calls of a script on a queue."""
    return _pack_part(args)


def _pack_part(args: tuple[Any, ...]) -> bytes:
    """Pack arguments without their number in front."""
    packed: bytes = hiredis.pack_command(_numbers_as_text(args))
    return packed[packed.index(b"\n") + 1 :]


def _numbers_as_text(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Format numbers here: hiredis crashes if a signal handler raises while it does (3.5.0)."""
    return tuple([repr(arg) if isinstance(arg, (int, float)) else arg for arg in args])


class Packer(HiredisRespSerializer):
    """redis-py's packer, but safe from signals, and faster for many messages, each of which it checks in Python."""

    def pack(self, *args: Any) -> list[bytes]:
        if len(args) > MANY_ARGUMENTS:
            return [pack(args)]
        packed: list[bytes] = super().pack(*_numbers_as_text(args))
        return packed


def _pack_many(args: tuple[Any, ...]) -> bytes:
    """Pack a command with a key and many short values: twice as fast as packing each argument."""
    values = args[2:]
    parts: list[bytes] = [b""] * (2 * len(values))
    parts[0::2] = [_LENGTHS[length] for length in map(len, values)]
    parts[1::2] = values
    head = hiredis.pack_command(args[:2])  # *2\r\n...\r\n
    return b"".join([b"*%d" % len(args), head[2:-2], *parts, b"\r\n"])
