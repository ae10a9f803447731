"""A Redis client that never sends a command twice, and says whether a failed one was sent at all.

A connection is used only while it surely leads to the right server. One that was idle for some seconds is closed: a
network may have forgotten it, and Redis may need its place for another client. When a server says that it has become
a replica, or cannot serve for a while, or does not answer in time, all connections to it are closed: the next command
finds the server that has taken over.
"""

import os
import socket
import threading
import time
import weakref
from collections import deque
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from broker.connections.address import Address, Kind, parse_address
from broker.connections.batching import BatchingClient, Packer
from broker.connections.circuit_breaker import BREAKER_TIMEOUT, CircuitBreaker
from broker.connections.cluster import ClusterClient, ClusterMap
from broker.connections.errors import NotSent, needs_reconnect
from broker.connections.sentinel import Sentinels, ask_once
from broker.connections.unix_socket import short_path

MAX_CONNECTIONS = 10  # that a process uses at once; further commands wait for one
REPLY_TIMEOUT = 5.0  # seconds until a reply must have come, and for connecting
QUESTION_TIMEOUT = 1.0  # ... where it is asked which server to use: then another one can be asked
SLOT_TIMEOUT = 5.0  # seconds until one of the connections must be free
MAX_BLOCKED_CONNECTIONS = 24  # of a process that wait at once; two processes leave room in a Redis for 100 clients
IDLE_TIMEOUT = 3.0  # seconds after which an idle connection is not used any more
CLOSE_INTERVAL = 1.0  # seconds between two looks for idle connections


class AtMostOnce:
    """Mixed into a connection class: tells a failed connect apart from a lost reply, and knows when it is outdated."""

    connected_at = 0.0  # monotonic, as are the others
    idle_since = 0.0
    is_outdated = False  # its server refused to serve, and another one may have taken over
    sent_at = 0.0  # when the command was sent that has no reply yet; 0: there is none
    has_timed_out = False  # its server did not answer in time

    def connect(self) -> None:
        if not self.is_connected:  # type: ignore[attr-defined]
            self.connected_at, self.is_outdated, self.has_timed_out = time.monotonic(), False, False
            self.sent_at = self.connected_at
        try:
            super().connect()  # type: ignore[misc]
        except (redis.AuthenticationError, redis.BusyLoadingError):
            raise
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse) as error:
            self.has_timed_out = isinstance(error, redis.TimeoutError)
            raise NotSent(
                str(error), server=self._server(), reason=_reason(error), status_code=error.status_code
            ) from error
        self.sent_at = 0.0

    def _server(self) -> str:
        host = getattr(self, "host", None)
        return f"{host}:{self.port}" if host else getattr(self, "path", "")  # type: ignore[attr-defined]

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        self.sent_at = time.monotonic()
        super().send_packed_command(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            reply = super().read_response(*args, **options)  # type: ignore[misc]
        except redis.RedisError as error:
            self.has_timed_out = isinstance(error, redis.TimeoutError)
            self.is_outdated = self.is_outdated or self.has_timed_out or needs_reconnect(error)
            if isinstance(error, redis.ResponseError):
                self.sent_at = 0.0
            raise
        self.sent_at = 0.0
        return reply


def _reason(error: redis.RedisError) -> str:
    """Return why a connection could not be made, "" where only redis-py's text says so."""
    if isinstance(error, redis.TimeoutError):
        return "timed out"
    cause = error.__context__
    text = cause.strerror if isinstance(cause, OSError) else None
    return text[0].lower() + text[1:] if text else ""


class _Connection(AtMostOnce, redis.Connection):
    pass


class _SSLConnection(AtMostOnce, redis.SSLConnection):
    pass


class _UnixConnection(AtMostOnce, redis.UnixDomainSocketConnection):
    def _connect(self) -> Any:
        path = self.path
        try:
            with short_path(path) as self.path:
                return super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.path = path


class _FindsServer:
    """Mixed into a connection class: each connect asks the Sentinels where the primary is."""

    def __init__(self, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.find_primary()
        return super()._connect()  # type: ignore[misc]


class _FoundConnection(_FindsServer, _Connection):
    pass


class _FoundSSLConnection(_FindsServer, _SSLConnection):
    pass


class _FairPool(redis.ConnectionPool):
    """A pool that serves commands in the order they came; in redis-py's own, newcomers may go first.

    Raises redis.MaxConnectionsError for a command that gets no connection within SLOT_TIMEOUT, or at once if the pool
    does not let commands wait. An idle connection is closed after IDLE_TIMEOUT.
    """

    def __init__(self, max_connections: int, *, waits: bool = True, **options: Any) -> None:
        super().__init__(max_connections=max_connections, **options)
        self._waits = waits
        self._free_slots = max_connections
        self._in_use: set[Any] = set()
        self._queue: deque[threading.Event] = deque()
        self._slot_lock = threading.Lock()
        self._valid_since = 0.0  # connections made before are outdated
        self._closer: threading.Thread | None = None
        self.breaker = CircuitBreaker(weakref.proxy(self))

    def get_connection(self, *_: Any, **__: Any) -> Any:
        if self._waits:
            self.breaker.wait()
        self._acquire_slot()
        try:
            connection = self._take_open()
            if connection is None:
                self._close_idle()
                connection = super().get_connection()
        except BaseException:
            self._release_slot()
            raise
        self._in_use.add(connection)
        return connection

    def release(self, connection: Any) -> None:
        try:
            if connection.is_outdated:
                self._valid_since = time.monotonic()
                self.disconnect(inuse_connections=False)
            if connection.connected_at < self._valid_since:
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
            if connection in self._in_use:  # else it could not connect: redis-py releases it, its slot is free already
                self._in_use.discard(connection)
                self._release_slot()

    def _take_open(self) -> Any:
        """Return a connection that is open, None if redis-py must look: what it does takes longer than a command."""
        with self._lock:
            if self._available_connections and self.pid == os.getpid():
                connection = self._available_connections[-1]
                if time.monotonic() - connection.idle_since < IDLE_TIMEOUT and _is_open(connection):
                    self._in_use_connections.add(connection)
                    return self._available_connections.pop()
        return None

    def _put_back(self, connection: Any) -> None:
        with self._lock:
            if connection in self._in_use_connections and connection.pid == self.pid == os.getpid():
                self._in_use_connections.discard(connection)
                self._available_connections.append(connection)
                return
        super().release(connection)

    def _acquire_slot(self) -> None:
        with self._slot_lock:
            if self._free_slots:
                self._free_slots -= 1
                return
            if not self._waits:
                raise redis.MaxConnectionsError("No connection available.")
            turn = threading.Event()
            self._queue.append(turn)
        try:
            if turn.wait(min(BREAKER_TIMEOUT, SLOT_TIMEOUT)):
                return
            self.breaker.wait()
            if not turn.wait(SLOT_TIMEOUT - BREAKER_TIMEOUT):
                raise redis.MaxConnectionsError("No connection available.")
        except redis.ConnectionError:
            with self._slot_lock:
                if not turn.is_set():
                    self._queue.remove(turn)
                    raise

    def _release_slot(self) -> None:
        with self._slot_lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free_slots += 1

    def sent_times(self) -> list[float]:
        """Return when each command was sent that has no reply yet, among zeros."""
        return [connection.sent_at for connection in tuple(self._in_use_connections)]

    def ping(self, timeout: float) -> None:
        """Ask the server on a connection of its own; see `Server` in silence.py."""
        options = {**self.connection_kwargs, "socket_timeout": timeout, "socket_connect_timeout": timeout}
        ask_once(lambda: self.connection_class(**options), "PING")

    def _close_idle(self) -> bool:
        """Close the connections that were idle for too long; return whether any other is idle."""
        end = time.monotonic() - IDLE_TIMEOUT
        with self._lock:
            for connection in self._available_connections:
                if connection.idle_since < end:
                    connection.disconnect()
            return any(connection.is_connected for connection in self._available_connections)

    def _start_closer(self) -> None:
        """Let a thread close idle connections, as long as there are any. A process that was forked starts its own."""
        if self._closer and self._closer.is_alive():
            return
        with self._lock:
            if self._closer is None or not self._closer.is_alive():
                arguments = [weakref.ref(self)]
                name = "close-idle-connections"
                self._closer = threading.Thread(target=_close_loop, args=arguments, daemon=True, name=name)
                self._closer.start()

    def finish_closing(self) -> bool:
        """Close the connections that were idle for too long; return whether none is left and the thread may end."""
        with self._lock:
            if self._close_idle():
                return False
            self._closer = None
            return True


def _is_open(connection: Any) -> bool:
    """Return whether a connection is surely open and has nothing unread; with TLS that cannot be seen like this."""
    sock = getattr(connection._sock, "_sock", connection._sock)  # gevent's own would let others run
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


def _close_loop(pool: "weakref.ref[_FairPool]") -> None:
    """Close a pool's idle connections. A pool that nobody uses any more goes with its connections at once."""
    while True:
        time.sleep(CLOSE_INTERVAL)
        found = pool()
        if found is None or found.finish_closing():
            return
        del found


_CONNECTION_CLASSES = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}


def connect(url: str, *, blocking: bool = False) -> Any:
    """Return a redis.Redis for `url`, or a ClusterClient; nothing is opened before its first command.

    `broker/connections/address.py` says what a URL can be.

    With `blocking` the client is for commands that wait, apart from the ordinary ones, which they would delay. When all
    its connections are in use it raises redis.MaxConnectionsError at once.
    """
    address = parse_address(url)
    options = _options(address)
    if address.kind is Kind.CLUSTER:

        def make_client(host: str, port: int) -> redis.Redis:
            return _make_client({**options, "host": host, "port": port}, blocking)

        return ClusterClient(ClusterMap(address.hosts, make_client, partial(open_connection, address)))
    if address.kind is Kind.SENTINEL:
        kind = options["connection_class"]
        options["connection_class"] = _FoundSSLConnection if kind is _SSLConnection else _FoundConnection
        options["sentinels"] = find_sentinels(address)
    return _make_client(options, blocking)


def find_sentinels(address: Address) -> Sentinels:
    """Return the Sentinels of an address."""
    login = {"username": None, "password": None, "db": 0, **address.sentinel_login}
    openers = [partial(open_connection, address, host, port, **login) for host, port in address.hosts]
    return Sentinels(address.service, openers)


def open_connection(address: Address, host: str | None = None, port: int = 0, **more: Any) -> redis.Connection:
    """Return a new connection that no pool knows, to a host of an address or to its server, for a quick question."""
    options = _options(address) | ({"host": host, "port": port} if host else {}) | more
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(QUESTION_TIMEOUT, options[name])
    made: redis.Connection = options.pop("connection_class")(**options)
    return made


def _options(address: Address) -> dict[str, Any]:
    """Return the options of a connection to a server."""
    options: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT,
        "socket_connect_timeout": REPLY_TIMEOUT,
        **redis.connection.parse_url(address.url),  # type: ignore[no-untyped-call]
        "retry": Retry(NoBackoff(), 0),
        "command_packer": Packer(),
        "driver_info": None,  # saves two commands for each connection
        # The notifications of a managed service would let the pool reuse a connection that has an unread reply.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    kind = options.pop("connection_class", redis.Connection)
    options["connection_class"] = _CONNECTION_CLASSES.get(kind, _Connection)
    return options


def _make_client(options: dict[str, Any], blocking: bool) -> redis.Redis:
    if blocking:
        # A command that waits is answered late on purpose, whatever timeout the URL sets.
        options["socket_timeout"] = max(REPLY_TIMEOUT, options["socket_timeout"])
        return redis.Redis(connection_pool=_FairPool(MAX_BLOCKED_CONNECTIONS, waits=False, **options))
    return BatchingClient(connection_pool=_FairPool(MAX_CONNECTIONS, **options))
