"""Follow the server to wherever it moves: Sentinels name another primary, or a host name resolves to another address.

A replaced server often keeps accepting commands, whose effects are lost with it: for ten seconds or more after a
planned failover, and for as long as it runs behind a host name. So a location watches the open connections, and closes
those to another server; the next command then connects to the new one. A thread does this while a connection is open:
it subscribes to the events of one Sentinel, and asks it for the primary after every event and every CHECK_INTERVAL; or
it resolves the host name every RESOLVE_INTERVAL. All clients of a process share a location.
"""

import _socket
import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

import redis

from broker.connections.errors import NotSent

# The Sentinel that leads a failover names the new primary from +promoted-slave on, the others from +switch-master on.
EVENTS = ("+switch-master", "+promoted-slave")
CHECK_INTERVAL = 1.0  # seconds of silence until the Sentinel is asked for the primary
RESOLVE_INTERVAL = 3.0  # seconds between two lookups of a host name
RETRY_DELAY = 0.5  # seconds until the next try while no Sentinel responds

log = logging.getLogger(__name__)
_locations: "weakref.WeakValueDictionary[Any, Location]" = weakref.WeakValueDictionary()
L = TypeVar("L", bound="Location")


class Location:
    """Where a server is. It needs no lock, since a fork could copy one that is held."""

    def __init__(self, thread_name: str) -> None:
        self.changes = 0  # number of times that the server was found to have moved
        self._peers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # connection -> its server
        self._thread: threading.Thread | None = None
        self._thread_name = thread_name

    def direct(self, connection: Any) -> None:
        """Set the host and port of a connection that is about to be made.

        Raises:
            redis.ConnectionError: the server is not known.
        """

    def watch(self, connection: Any) -> None:
        """Close a new connection once its server has moved."""
        self._peers[connection] = self._peer(connection)
        self._start()

    def unwatch(self, connection: Any) -> None:
        """Undo `watch`."""
        self._peers.pop(connection, None)

    def _peer(self, connection: Any) -> Any:
        """Return the server that a connection leads to."""
        raise NotImplementedError

    def _check(self) -> None:
        """Wait for the next check, find out where the server is, and close connections to any other."""
        raise NotImplementedError

    def _leave(self, current: Container[Any], *, cut: bool) -> None:
        """Close connections to servers that are not current ones. Those in use are closed after their command.

        With `cut` a command in flight fails, unless it only waits.
        """
        for connection in self._open_connections():
            sock = connection._sock
            if sock is None or self._peers.get(connection) in current:
                continue
            connection.is_outdated = True
            if not connection.sent_at or (cut and not connection.is_blocking):
                _shut_down(sock)

    def _open_connections(self) -> list[Any]:
        """Return the watched connections that are open, without those that a fork has copied."""
        found = [ref() for ref in self._peers.keyrefs()]
        return [one for one in found if one is not None and one.is_connected and one.pid == os.getpid()]

    def _start(self) -> None:
        """Start the thread, unless it runs; a forked process starts its own."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, daemon=True, name=self._thread_name)
            self._thread.start()

    def _run(self) -> None:
        while self._must_run():
            try:
                self._check()
            except Exception:
                log.exception("Unexpected error while following a server")
                time.sleep(RETRY_DELAY)

    def _must_run(self) -> bool:
        """Return whether the thread is still needed; if not, it must end."""
        if self._thread is not threading.current_thread():  # two connections have started a thread at the same moment
            return False
        if self._open_connections():
            return True
        self._thread = None
        if self._open_connections():  # one was opened just now, and saw this thread running
            self._start()
        return False


class HostName(Location):
    """A host name, and the addresses that it resolves to. Commands in flight are not cut: a name can have several."""

    def __init__(self, host: str) -> None:
        super().__init__("follow-host-name")
        self.host = host

    def _peer(self, connection: Any) -> str:
        with contextlib.suppress(OSError, AttributeError):  # it has been closed
            return str(connection._sock.getpeername()[0])
        return ""

    def _check(self) -> None:
        time.sleep(RESOLVE_INTERVAL)
        with contextlib.suppress(OSError, UnicodeError):  # a failed lookup does not mean that the server has moved
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
            self._leave({address[0] for *_, address in found}, cut=False)


def host_name(host: str | None) -> HostName | None:
    """Return the location of a host name; None for an IP address or a unix socket, which never move."""
    if host is None:
        return None
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return None
    return shared(host, lambda: HostName(host))


def shared(key: object, make: Callable[[], L]) -> L:
    """Return the location of this process for a key, created on first use and kept while it is in use."""
    found: Any = _locations.get(key)
    return found or _locations.setdefault(key, make())  # type: ignore[return-value]


class Sentinels(Location):
    """The primary of a service, as its Sentinels name it. The Sentinel that replied last is asked first."""

    def __init__(self, service: str, openers: Sequence[Callable[[], Any]]) -> None:
        """Take an opener for each Sentinel, which returns a new connection to it."""
        super().__init__("follow-primary")
        self.service = service
        self.openers = list(openers)
        self._primary: tuple[str, int] | None = None  # as of the thread's last check

    def direct(self, connection: Any) -> None:
        connection.host, connection.port = self.find_primary()

    def find_primary(self) -> tuple[str, int]:
        """Return the host and port of the primary.

        Raises:
            redis.AuthenticationError: no Sentinel could be asked, and one of them refused the password.
            NotSent: no Sentinel can be reached, or none knows a primary.
        """
        refused: redis.AuthenticationError | None = None
        for opener in tuple(self.openers):
            try:
                primary = self.ask(opener)
            except redis.AuthenticationError as error:
                refused = error
                continue
            except redis.RedisError:
                continue
            if primary:
                self._prefer(opener)
                return primary
        raise refused or NotSent("No primary found.", reason=f"no Sentinel knows a primary of {self.service}")

    def ask(self, opener: Callable[[], Any]) -> tuple[str, int] | None:
        """Return the host and port of the primary according to one Sentinel; None if it does not know the service."""
        found = ask_once(opener, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return (found[0].decode(), int(found[1])) if found else None

    def _prefer(self, opener: Callable[[], Any]) -> None:
        self.openers.sort(key=lambda one: one is not opener)

    def _peer(self, connection: Any) -> tuple[str, int]:
        return connection.host, connection.port

    def _check(self) -> None:
        """Listen to one Sentinel after the other until no connection is open."""
        for opener in tuple(self.openers):
            with contextlib.suppress(redis.RedisError):
                self._listen(opener)
                return
        time.sleep(RETRY_DELAY)

    def _listen(self, opener: Callable[[], Any]) -> None:
        """Follow the reports of one Sentinel until no connection is open.

        Raises:
            redis.RedisError: the Sentinel is unavailable, or does not know the service.
        """
        connection = opener()
        try:
            connection.connect()
            connection._parser.set_pubsub_push_handler(lambda push: push)
            connection.send_command("SUBSCRIBE", *EVENTS)
            with contextlib.suppress(redis.ResponseError):  # a user without the permission: polling alone is slower
                connection.read_response(push_request=True)
            while self._open_connections():
                connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                if not (found := connection.read_response()):  # events that came before are skipped
                    raise NotSent("The Sentinel does not know the service.")
                self._prefer(opener)
                self._set_primary((found[0].decode(), int(found[1])))
                with contextlib.suppress(redis.TimeoutError):
                    connection.read_response(push_request=True, timeout=CHECK_INTERVAL, disconnect_on_error=False)
        finally:
            connection.disconnect()

    def _set_primary(self, primary: tuple[str, int]) -> None:
        """Record the primary. Commands in flight to any other server would be lost, so their connections are cut."""
        if self._primary not in (None, primary):
            self.changes += 1
            log.warning("The Sentinels have made %s:%d the primary of %s", *primary, self.service)
        self._primary = primary
        self._leave({primary}, cut=True)


def _shut_down(sock: Any) -> None:
    """End a connection that another thread may be reading from: it gets the end of the stream."""
    sock = getattr(sock, "_sock", sock)  # gevent's own socket would switch greenlets
    with contextlib.suppress(OSError):
        _socket.socket.shutdown(sock, socket.SHUT_RDWR)  # SSLSocket's own would continue to read without TLS


def ask_once(opener: Callable[[], Any], *command: str) -> Any:
    """Return the reply to a command, sent on a connection that is opened for it and closed."""
    connection = opener()
    try:
        connection.connect()
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()
