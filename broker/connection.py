"""A Redis client that never sends a command twice, and says whether a failed one was sent at all."""

import threading
from collections import deque
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from broker.unix_socket import short_path

MAX_CONNECTIONS = 10  # that a process uses at once; further commands wait for one
REPLY_TIMEOUT = 5.0  # seconds until a reply must have come, and for connecting
SLOT_TIMEOUT = 5.0  # seconds until one of the connections must be free
MAX_BLOCKED_CONNECTIONS = 100_000  # that wait; web/waiting.py holds them to one a queue


class NotSent(redis.ConnectionError):
    """No connection could be made, so the command was never sent and nothing has changed."""


class _ReportsNotSent:
    """Mixed into a connection class: tells a failed connect apart from a lost reply."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (redis.AuthenticationError, redis.BusyLoadingError):
            raise
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse) as error:
            raise NotSent(str(error), status_code=error.status_code) from error


class _Connection(_ReportsNotSent, redis.Connection):
    pass


class _SSLConnection(_ReportsNotSent, redis.SSLConnection):
    pass


class _UnixConnection(_ReportsNotSent, redis.UnixDomainSocketConnection):
    def _connect(self) -> Any:
        path = self.path
        try:
            with short_path(path) as self.path:
                return super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.path = path


class _FairPool(redis.ConnectionPool):
    """A pool that serves commands in the order they came; in redis-py's own, newcomers may go first.

    Raises redis.MaxConnectionsError for a command that gets no connection within SLOT_TIMEOUT.
    """

    def __init__(self, max_connections: int, **options: Any) -> None:
        super().__init__(max_connections=max_connections, **options)
        self._free_slots = max_connections
        self._in_use: set[Any] = set()
        self._queue: deque[threading.Event] = deque()
        self._slot_lock = threading.Lock()

    def get_connection(self, *_: Any, **__: Any) -> Any:
        self._acquire_slot()
        try:
            connection = super().get_connection()
        except BaseException:
            self._release_slot()
            raise
        self._in_use.add(connection)
        return connection

    def release(self, connection: Any) -> None:
        try:
            super().release(connection)
        finally:
            if connection in self._in_use:  # else it could not connect: redis-py releases it, its slot is free already
                self._in_use.discard(connection)
                self._release_slot()

    def _acquire_slot(self) -> None:
        with self._slot_lock:
            if self._free_slots:
                self._free_slots -= 1
                return
            turn = threading.Event()
            self._queue.append(turn)
        if not turn.wait(SLOT_TIMEOUT):
            with self._slot_lock:
                if not turn.is_set():
                    self._queue.remove(turn)
                    raise redis.MaxConnectionsError("No connection available.")

    def _release_slot(self) -> None:
        with self._slot_lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free_slots += 1


_CONNECTION_CLASSES = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}


def connect(url: str, *, blocking: bool = False) -> redis.Redis:
    """Return a client for `url`; nothing is opened before its first command.

    With `blocking` the client is for commands that wait: each gets a connection of its own, so that it never delays an
    ordinary command.
    """
    options: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT,
        "socket_connect_timeout": REPLY_TIMEOUT,
        **redis.connection.parse_url(url),  # type: ignore[no-untyped-call]
        "retry": Retry(NoBackoff(), 0),
        # The notifications of a managed service would let the pool reuse a connection that has an unread reply.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    kind = options.pop("connection_class", redis.Connection)
    options["connection_class"] = _CONNECTION_CLASSES.get(kind, _Connection)
    if blocking:
        # A command that waits is answered late on purpose, whatever timeout the URL sets.
        options["socket_timeout"] = max(REPLY_TIMEOUT, options["socket_timeout"])
        pool: redis.ConnectionPool = redis.ConnectionPool(max_connections=MAX_BLOCKED_CONNECTIONS, **options)
    else:
        pool = _FairPool(MAX_CONNECTIONS, **options)
    return redis.Redis(connection_pool=pool)
