"""A Redis client that never sends a command twice, and says whether a failed one was sent at all."""

import threading
from collections import deque
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

IN_FLIGHT = 10  # connections a process uses at once; further commands wait their turn
TIMEOUT = 5.0  # seconds for one reply, and for a free connection


class NotSent(redis.ConnectionError):
    """No connection could be made, so the command was never sent and nothing has changed."""


class _SaysNotSent:
    """Mixed into a connection class: a failed connect is told apart from a lost reply."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (redis.AuthenticationError, redis.BusyLoadingError):
            raise
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse) as error:
            raise NotSent(str(error), status_code=error.status_code) from error


class _Connection(_SaysNotSent, redis.Connection):
    pass


class _SSLConnection(_SaysNotSent, redis.SSLConnection):
    pass


class _UnixConnection(_SaysNotSent, redis.UnixDomainSocketConnection):
    pass


class _FairPool(redis.ConnectionPool):
    """A pool in which commands get their turn in the order they came; redis-py's own lets newcomers go first.

    Raises redis.MaxConnectionsError for a command that gets no turn within TIMEOUT.
    """

    def __init__(self, turns: int, **options: Any) -> None:
        super().__init__(max_connections=turns, **options)
        self._turns = turns
        self._out: set[Any] = set()
        self._line: deque[threading.Event] = deque()
        self._line_lock = threading.Lock()

    def get_connection(self, *_: Any, **__: Any) -> Any:
        self._take_turn()
        try:
            connection = super().get_connection()
        except BaseException:
            self._give_turn()
            raise
        self._out.add(connection)
        return connection

    def release(self, connection: Any) -> None:
        try:
            super().release(connection)
        finally:
            if connection in self._out:  # else it could not connect: redis-py releases it, its turn is given above
                self._out.discard(connection)
                self._give_turn()

    def _take_turn(self) -> None:
        with self._line_lock:
            if self._turns:
                self._turns -= 1
                return
            mine = threading.Event()
            self._line.append(mine)
        if not mine.wait(TIMEOUT):
            with self._line_lock:
                if not mine.is_set():
                    self._line.remove(mine)
                    raise redis.MaxConnectionsError("No connection available.")

    def _give_turn(self) -> None:
        with self._line_lock:
            if self._line:
                self._line.popleft().set()
            else:
                self._turns += 1


_CLASSES = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}


def connect(url: str, *, blocking: bool = False) -> redis.Redis:
    """Return a client for `url`; nothing is opened before its first command.

    With `blocking` the client is for commands that wait: they get a connection each, so that they never
    keep an ordinary command from its turn.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        **redis.connection.parse_url(url),  # type: ignore[no-untyped-call]
        "retry": Retry(NoBackoff(), 0),
        # Notices of a managed service would make the pool reuse a connection that has an unread reply.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    kind = options.pop("connection_class", redis.Connection)
    options["connection_class"] = _CLASSES.get(kind, _Connection)
    if blocking:
        # A command that waits is answered late on purpose, whatever time limit the URL sets.
        options["socket_timeout"] = max(TIMEOUT, options["socket_timeout"])
        pool: redis.ConnectionPool = redis.ConnectionPool(max_connections=100_000, **options)
    else:
        pool = _FairPool(IN_FLIGHT, **options)
    return redis.Redis(connection_pool=pool)
