"""A Redis client that never sends a command twice, and knows whether a failed one was sent at all.

When a server replies that it has become a replica or cannot serve for now, or does not reply in time, all connections
to it are closed, so that the next command finds the server that has taken over. A connection that was idle for
some seconds is closed too: the network may have dropped it, and Redis may need the room for another client.
"""

import contextlib
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from broker.connections.address import Address, Kind, parse_address
from broker.connections.batching import BatchingClient, Packer
from broker.connections.cluster import ClusterClient, ClusterMap
from broker.connections.errors import NotSent, needs_reconnect
from broker.connections.pool import FairPool
from broker.connections.sentinel import Location, Sentinels, host_name, shared

MAX_CONNECTIONS = 10  # open at once for ordinary commands, in each process; further commands wait for one
MAX_BLOCKED_CONNECTIONS = 24  # for blocking commands, in each process; two processes leave room in a Redis for 100
REPLY_TIMEOUT = 5.0  # seconds for a reply, and for connecting
DISCOVERY_TIMEOUT = 1.0  # the same, when asking which server to use, as others can be asked
MAX_LATENESS = 0.25  # seconds; a timeout that fires later shows that this process was suspended
MAX_PATH_BYTES = 103  # of a unix socket: the kernel's limit is 104 on macOS and 108 on Linux, with a final zero


class AtMostOnce:
    """Mixin for connection classes: tell a failed connect from a lost reply, and know when a connection is outdated.

    A connection follows its `location`, by default its host name. It has to pass `verify`, which raises an error
    if the connection leads to the wrong server. With `is_blocking` its commands wait and change nothing.
    """

    connected_at = 0.0  # monotonic, as are the others
    idle_since = 0.0
    is_outdated = False  # the server refused to serve, and another one might have taken over
    sent_at = 0.0  # when the command without a reply was sent; 0 if there is none
    has_timed_out = False

    def __init__(
        self,
        *,
        location: Location | None = None,
        verify: Callable[[Any], None] | None = None,
        is_blocking: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.is_blocking = is_blocking
        self._location = location or host_name(options.get("host"))
        self._verify = verify

    def connect(self) -> None:
        if self.is_connected:  # type: ignore[attr-defined]
            return
        changes = self._location.changes if self._location else 0
        self._connect_once()
        if self._location:
            self._location.watch(self)
            if self._location.changes != changes:  # it may lead to the old server
                self.disconnect()  # type: ignore[attr-defined]
                self.connect()

    def _connect_once(self) -> None:
        self.connected_at, self.is_outdated, self.has_timed_out = time.monotonic(), False, False
        self.sent_at = self.connected_at
        try:
            if self._location:
                self._location.unwatch(self)
                self._location.direct(self)
            super().connect()  # type: ignore[misc]
            self._check_server()
        except (redis.AuthenticationError, redis.BusyLoadingError, NotSent):
            raise
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse) as error:
            self.has_timed_out = isinstance(error, redis.TimeoutError)
            server = self._host_error()  # type: ignore[attr-defined]
            raise NotSent(str(error), server=server, reason=_reason(error), status_code=error.status_code) from error
        self.sent_at = 0.0

    def _check_server(self) -> None:
        try:
            if self._verify:
                self._verify(self)
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]
            raise

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        self.sent_at = time.monotonic()
        super().send_packed_command(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, disconnect_on_error: bool = True, **options: Any) -> Any:
        try:
            reply = self._read_awake(*args, **options)
        except BaseException as error:
            if disconnect_on_error and not isinstance(error, redis.ResponseError):
                self.disconnect()  # type: ignore[attr-defined]
            if isinstance(error, redis.RedisError):
                self.has_timed_out = isinstance(error, redis.TimeoutError)
                self.is_outdated = self.is_outdated or self.has_timed_out or needs_reconnect(error)
            if isinstance(error, redis.ResponseError):
                self.sent_at = 0.0
            raise
        self.sent_at = 0.0
        return reply

    def _read_awake(self, *args: Any, **options: Any) -> Any:
        """Read a reply. After `docker pause`, Ctrl-Z and `fg`, or a machine's sleep, the time to wait begins anew."""
        while True:
            began = time.monotonic()
            try:
                return super().read_response(*args, disconnect_on_error=False, **options)  # type: ignore[misc]
            except redis.TimeoutError:
                seconds: Any = options.get("timeout", self.socket_timeout)  # type: ignore[attr-defined]
                if time.monotonic() - began <= seconds + MAX_LATENESS:
                    raise


def _reason(error: redis.RedisError) -> str:
    """Return why a connection could not be made, as part of a sentence: "connection refused"."""
    if isinstance(error, redis.TimeoutError):
        return "timed out"
    cause = error.__context__
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).rstrip(".")
    return text[:1].lower() + text[1:]


class _Connection(AtMostOnce, redis.Connection):
    pass


class _SSLConnection(AtMostOnce, redis.SSLConnection):
    pass


class _UnixConnection(AtMostOnce, redis.UnixDomainSocketConnection):
    def _connect(self) -> Any:
        path = self.path
        try:
            with _short_path(path) as self.path:
                return super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.path = path


@contextlib.contextmanager
def _short_path(path: str) -> Iterator[bytes]:
    """Yield a path to connect to a unix socket by, valid inside the block: a short alias if `path` is too long.

    It is bytes, so it does not depend on the locale.

    Raises:
        OSError: there is no such socket.
    """
    encoded = path.encode()
    if len(encoded) <= MAX_PATH_BYTES:
        yield encoded
    elif hasattr(os, "O_PATH"):  # Linux
        file = os.open(encoded, os.O_PATH | os.O_CLOEXEC)
        try:
            yield b"/proc/self/fd/%d" % file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            link = os.path.join(folder, "socket").encode()
            os.symlink(encoded, link)
            yield link


# What `connect` has made. A forked process must not wait for threads that it does not have.
_made: weakref.WeakSet[Any] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for one in tuple(_made):
        one.renew_after_fork()


os.register_at_fork(after_in_child=_renew_after_fork)


_CONNECTION_CLASSES = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}


def connect(url: str, *, blocking: bool = False) -> Any:
    """Return a redis.Redis or a ClusterClient for a URL (see address.py). It connects at its first command.

    Threads and greenlets can share it. A forked process can use its copy, on its own connections, even if other
    threads were using it; only what was in use by the forking thread itself, such as a pipeline, is not usable.
    An exception that a signal handler raises ends the command it interrupts, whose outcome is unknown, and no other.

    With `blocking` the client is for blocking commands, which would delay the others. It raises
    redis.MaxConnectionsError at once if all its connections are in use.

    Raises:
        ValueError: the URL is malformed.
    """
    address = parse_address(url)
    options = _options(address)
    if address.kind is Kind.CLUSTER:

        def make_client(host: str, port: int) -> redis.Redis:
            def verify(connection: Any) -> None:
                cluster_map.verify((host, port), connection)

            return _make_client({**options, "host": host, "port": port, "verify": verify}, blocking)

        made = ClusterMap(address.hosts, make_client, partial(new_connection, address))
        cluster_map = weakref.proxy(made)  # its clients must not keep it alive
        _made.add(made)
        return ClusterClient(made)
    if address.kind is Kind.SENTINEL:
        options["location"] = find_sentinels(address)
    return _make_client(options, blocking)


def find_sentinels(address: Address) -> Sentinels:
    """Return the Sentinels of an address, the same ones for all clients of this process."""
    key = (address.url, address.hosts, address.service, *address.sentinel_login.items())
    return shared(key, lambda: _new_sentinels(address))


def _new_sentinels(address: Address) -> Sentinels:
    login = {"username": None, "password": None, "db": 0, **address.sentinel_login}
    openers = [partial(new_connection, address, host, port, **login) for host, port in address.hosts]
    return Sentinels(address.service, openers)


def new_connection(address: Address, host: str | None = None, port: int = 0, **more: Any) -> redis.Connection:
    """Return a new connection outside any pool, with DISCOVERY_TIMEOUT, to one host of an address or to its server."""
    options = _options(address) | ({"host": host, "port": port} if host else {}) | more
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(DISCOVERY_TIMEOUT, options[name])
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
        # With the notifications of a managed service, the pool could reuse a connection that has an unread reply.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    kind = options.pop("connection_class", redis.Connection)
    options["connection_class"] = _CONNECTION_CLASSES.get(kind, _Connection)
    return options


def _make_client(options: dict[str, Any], blocking: bool) -> redis.Redis:
    if blocking:
        # The reply to a blocking command is late on purpose, so a short timeout in the URL does not apply.
        options |= {"socket_timeout": max(REPLY_TIMEOUT, options["socket_timeout"]), "is_blocking": True}
    pool = FairPool(MAX_BLOCKED_CONNECTIONS if blocking else MAX_CONNECTIONS, fail_fast=blocking, **options)
    _made.add(pool)
    if blocking:
        return redis.Redis(connection_pool=pool)
    client = BatchingClient(connection_pool=pool)
    _made.add(client)
    return client
