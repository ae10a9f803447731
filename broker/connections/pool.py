"""A fair connection pool: commands get a connection in the order in which they arrive.

redis-py's own pool can serve a newcomer first. Its connections here are those of `connection.py` (AtMostOnce), which
note when they were made and last used, so an outdated or idle connection is never used again.
"""

import os
import socket
import sys
import threading
import time
import weakref
from typing import Any

import redis

from broker.connections.circuit_breaker import BREAKER_TIMEOUT, CircuitBreaker
from broker.connections.sentinel import ask_once

MAX_POOL_CHECKS = 5  # waits of BREAKER_TIMEOUT for a free connection; time in which this process did not run, as
# during `docker pause`, ends one wait at most
IDLE_TIMEOUT = 3.0  # seconds after which an idle connection is closed
CLOSE_INTERVAL = 1.0  # seconds between two checks for idle connections
MAX_MADE = 1 << 31  # redis-py's own limit: out of the way, as permits limit the connections in use


class FairPool(redis.ConnectionPool):
    """A connection pool that serves commands first come, first served, behind a circuit breaker.

    `get_connection` raises redis.MaxConnectionsError if no connection becomes free within MAX_POOL_CHECKS waits. With
    `fail_fast` it raises it at once, and ignores the circuit breaker.
    """

    def __init__(self, max_connections: int, *, fail_fast: bool = False, **options: Any) -> None:
        super().__init__(max_connections=MAX_MADE, **options)
        self._fail_fast = fail_fast
        self._number = max_connections
        self._valid_since = 0.0  # connections made before are outdated
        self._forget_commands()
        self.breaker = CircuitBreaker(weakref.proxy(self))

    def _forget_commands(self) -> None:
        self._permit_lock = threading.Lock()
        self._permits: set[object] = set()  # those given out
        self._waiting: dict[object, threading.Event] = {}  # set: the command has its permit
        self._in_use: dict[Any, object] = {}  # connection -> its permit
        self._closer: threading.Thread | None = None

    def renew_after_fork(self) -> None:
        """Forget the connections and the commands of the parent process, whose threads do not exist in this one."""
        self._lock = threading.RLock()
        self._fork_lock = threading.RLock()
        self._forget_commands()
        self.breaker.renew_after_fork()
        self.reset()

    def get_connection(self, *_: Any, **__: Any) -> Any:
        if not self._fail_fast:
            self.breaker.check()
        permit, connection = object(), None
        try:
            self._acquire(permit)
            connection = self._take_open()
            if connection is None:
                self._close_idle()
                connection = super().get_connection()
            self._in_use[connection] = permit
        except BaseException:
            if connection is not None:  # its command was interrupted
                self._drop(connection)
            self._release_permit(permit)
            raise
        return connection

    def _drop(self, connection: Any) -> None:
        """Forget a connection that was taken and not used."""
        self._in_use.pop(connection, None)
        self._in_use_connections.discard(connection)
        connection.disconnect()

    def release(self, connection: Any) -> None:
        try:
            if connection.is_outdated:
                self._valid_since = time.monotonic()
                self.disconnect(inuse_connections=False)
            if connection.connected_at < self._valid_since or _is_interrupted():
                connection.disconnect()
            if connection.has_timed_out:
                self.breaker.trip()
            elif not connection.sent_at:
                self.breaker.record_success()
            connection.sent_at = 0.0
            connection.idle_since = time.monotonic()
            self._put_back(connection)
            self._start_closer()
        finally:
            if permit := self._in_use.get(connection):  # else it could not connect; get_connection releases its permit
                self._release_permit(permit)
                self._in_use.pop(connection, None)

    def _take_open(self) -> Any:
        """Return an open connection without redis-py's own checks, which cost more than a command; None without one."""
        with self._lock:
            if self._available_connections and self.pid == os.getpid():
                connection = self._available_connections.pop()  # if this is interrupted, it is not used any more
                if time.monotonic() - connection.idle_since < IDLE_TIMEOUT and _is_open(connection):
                    self._in_use_connections.add(connection)
                    return connection
                self._available_connections.append(connection)
        return None

    def _put_back(self, connection: Any) -> None:
        with self._lock:
            if connection in self._in_use_connections and connection.pid == self.pid == os.getpid():
                self._in_use_connections.discard(connection)
                self._available_connections.append(connection)
                return
        super().release(connection)

    def _acquire(self, permit: object) -> None:
        with self._permit_lock:
            if len(self._permits) < self._number:
                self._permits.add(permit)
                return
            if self._fail_fast:
                raise redis.MaxConnectionsError("No connection available.")
            granted = threading.Event()
            self._waiting[permit] = granted
        for _ in range(MAX_POOL_CHECKS):
            if granted.wait(BREAKER_TIMEOUT):
                return
            self.breaker.check()
        raise redis.MaxConnectionsError("No connection available.")

    def _release_permit(self, permit: object) -> None:
        """Take a permit back, or the wish for one, and give permits to those that wait. Twice does no harm."""
        with self._permit_lock:
            self._permits.discard(permit)
            self._waiting.pop(permit, None)
            while self._waiting and len(self._permits) < self._number:
                first = next(iter(self._waiting))
                self._permits.add(first)
                self._waiting[first].set()
                del self._waiting[first]

    def sent_times(self) -> list[float]:
        """Return when each command without a reply was sent, for the circuit breaker; 0 where there is none."""
        return [connection.sent_at for connection in tuple(self._in_use_connections)]

    def ping(self, timeout: float) -> None:
        """Ping the server on a new connection, for the circuit breaker.

        Raises:
            redis.RedisError: see `Server` in circuit_breaker.py.
        """
        options = {**self.connection_kwargs, "socket_timeout": timeout, "socket_connect_timeout": timeout}
        ask_once(lambda: self.connection_class(**options), "PING")

    def _close_idle(self) -> bool:
        """Close connections that have been idle for too long; return whether any other idle one is open."""
        end = time.monotonic() - IDLE_TIMEOUT
        with self._lock:
            for connection in self._available_connections:
                if connection.idle_since < end:
                    connection.disconnect()
            return any(connection.is_connected for connection in self._available_connections)

    def _start_closer(self) -> None:
        """Start the thread that closes idle connections, unless it runs; a forked process starts its own."""
        if self._closer and self._closer.is_alive():
            return
        with self._lock:
            if self._closer is None or not self._closer.is_alive():
                arguments = [weakref.ref(self)]
                name = "close-idle-connections"
                self._closer = threading.Thread(target=_close_loop, args=arguments, daemon=True, name=name)
                self._closer.start()

    def finish_closing(self) -> bool:
        """Close idle connections; return whether none is left open, so that the thread can end."""
        with self._lock:
            if self._close_idle():
                return False
            self._closer = None
            return True


def _is_interrupted() -> bool:
    """Return whether a command ends with an exception that is not Redis's: then replies can be left unread."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, redis.RedisError)


def _is_open(connection: Any) -> bool:
    """Return whether a connection is surely open with nothing unread; False with TLS, where a peek cannot show it."""
    sock = getattr(connection._sock, "_sock", connection._sock)  # gevent's own socket would switch greenlets
    if sock is None:
        return False
    timeout = sock.gettimeout()
    try:
        sock.settimeout(0)
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except (OSError, ValueError):
        return False
    finally:
        sock.settimeout(timeout)
    return False


def _close_loop(pool: "weakref.ref[FairPool]") -> None:
    """Close a pool's idle connections until none is open, or until the pool is garbage."""
    while True:
        time.sleep(CLOSE_INTERVAL)
        found = pool()
        if found is None or found.finish_closing():
            return
        del found
