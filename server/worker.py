"""The gunicorn worker: gevent's, with limits on what one client may take from the others.

Every read and write of a connection has a time limit by the clock. A client that sends faster than it is served takes
turns with the others. When nearly all connections are in use, one that waits for its client is closed for a new one.
When the worker stops, connections end soon.
"""

import contextlib
import errno
import fcntl
import heapq
import itertools
import math
import select
import ssl
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey, socket
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    from web.fairness import (
        FairScheduler,  # gunicorn imports this module before gevent patches the ones that this would import
    )

KEEPALIVE_SECONDS = 75  # longer than the 60 s of load balancers, so that they close an idle connection first
HEAD_TIMEOUT = 20.0  # seconds from the first byte of a request to the end of its head
BODY_IDLE_TIMEOUT = 60.0  # seconds a client may take for the next bytes of a body
SEND_TIMEOUT = 10.0  # seconds a client may take to read SEND_SIZE bytes
DRAIN_TIMEOUT = 30.0  # seconds to read what a client still sends after its answer
DRAIN_IDLE_TIMEOUT = 5.0  # seconds it may take for its next bytes then
LINGER_TIMEOUT = 1.0  # seconds a client may take to end a connection after its last answer
STOP_TIMEOUT = 5.0  # seconds from SIGTERM until clients that have not finished reading or sending are cut off
CHECK_INTERVAL = 0.25  # how often a worker looks for what is too slow, and whether it was told to stop, seconds

LEAVING_CHECKS = 4  # of these checks one looks for clients that may have left
LEAVING = select.POLLRDHUP if hasattr(select, "POLLRDHUP") else select.POLLHUP

MAX_HEAD_BYTES = 1 << 16
READ_SIZE = 1 << 16  # bytes read at once
SEND_SIZE = 1 << 16  # bytes sent at once
PARSE_SIZE = 8192  # bytes that gunicorn reads at once to parse heads and the sizes of chunks
TURN_SIZE = 2048  # and what it gets in a turn: 340 chunks of one byte take some milliseconds
MAX_ACCEPT = 16  # connections taken in one round of the event loop; the next ones may find another worker idle
SPARE_CONNECTIONS = 100  # kept free for new clients; of few connections, a tenth
MIN_PATIENCE = 1.0  # seconds that a client may take before its connection is closed to make room: its request may come

ANSWER_START = b"HTTP/1."  # what every answer begins with
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Phase:
    """What a connection does, and how long its client may take for it: for each read, and in all (seconds)."""

    idle_timeout: float
    timeout: float
    rank: int = 0  # connections of a lower rank are closed first to make room


IDLE = Phase(KEEPALIVE_SECONDS, KEEPALIVE_SECONDS)
HEAD = Phase(HEAD_TIMEOUT, HEAD_TIMEOUT)
ANSWER = Phase(BODY_IDLE_TIMEOUT, float("inf"), rank=1)  # the app reads the body and answers
DRAIN = Phase(DRAIN_IDLE_TIMEOUT, DRAIN_TIMEOUT)
LINGER = Phase(LINGER_TIMEOUT, LINGER_TIMEOUT)


class DisconnectPoller:
    """Tells those who keep clients waiting when one may have left: one look at all costs less than one at each."""

    def __init__(self) -> None:
        self._poll = monkey.get_original("select", "poll")()
        self._wakes: dict[int, Callable[[], object]] = {}

    def add(self, file: int, wake: Callable[[], object]) -> None:
        """Call `wake` whenever the client at the socket may have left, until `remove`."""
        self._wakes[file] = wake
        self._poll.register(file, LEAVING)

    def remove(self, file: int) -> None:
        if self._wakes.pop(file, None):
            self._poll.unregister(file)

    def poll(self) -> None:
        """Wake those whose clients may have left."""
        for file, _ in self._poll.poll(0):
            self._wakes[file]()

    def wake_all(self) -> None:
        for wake in list(self._wakes.values()):
            wake()


class Connection(socket.socket):  # type: ignore[misc]
    """A client's connection."""

    def __init__(self, client: Any, scheduler: "FairScheduler", disconnects: DisconnectPoller) -> None:
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self.scheduler = scheduler
        self.disconnects = disconnects
        self.greenlet: Any = None  # the one that waits for its turn
        self.has_read = False  # since the last request began
        self.is_pipelined = False  # whether the client has sent a further request before its last one was answered
        self.is_late = False  # whether its client was too slow
        self.enter(IDLE)

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.began = time.monotonic()
        self.deadline = self.began + phase.timeout
        self.credit = PARSE_SIZE  # bytes it may read before it takes a turn
        self.head_bytes = 0
        self.early = b""  # how much of the answer's first bytes was sent by `send_early`
        self.has_answered = False
        self.head = b""  # of the answer, which is sent with the first bytes of its body
        self.waiting_since: float | None = None  # when it began to wait for its client, None: it does not
        self.waits_until = self.deadline  # then it is too slow

    def limit_body(self, seconds: float) -> None:
        """Let the whole body come within `seconds` from now."""
        self.deadline = time.monotonic() + seconds

    def begin_drain(self) -> None:
        """Let what the client still sends be read and dropped, for a while."""
        self.flush()
        self.enter(DRAIN)

    # --- reading

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Read some bytes; b"" when the client has ended, or is too slow for the head of a request.

        Raises:
            TimeoutError: the client is too slow for a body.
            LimitRequestHeaders: the head is too large.
        """
        if self.credit <= 0:
            self.yield_to_others()
            self.credit = TURN_SIZE
        if self.credit <= TURN_SIZE and size <= PARSE_SIZE:
            size = TURN_SIZE
        data = self._recv_in_time(min(size, READ_SIZE), flags)
        if self.is_late and self.phase is ANSWER:
            raise TimeoutError("The client is too slow.")
        self.has_read = True
        self.credit -= len(data)
        if self.phase is IDLE:
            self.enter(HEAD)
        if self.phase is HEAD:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                raise LimitRequestHeaders(f"The head is larger than {MAX_HEAD_BYTES} bytes")
        return data

    def _recv_in_time(self, size: int, flags: int) -> bytes:
        now = time.monotonic()
        if now > self.deadline:
            self.is_late = True
            return b""
        try:
            data: bytes = self._sock.recv(size, flags)
            return data
        except BlockingIOError:
            pass
        self._begin_wait(min(self.deadline, now + self.phase.idle_timeout))
        try:
            return bytes(super().recv(size, flags))
        finally:
            self.waiting_since = None

    # --- sending

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all the bytes.

        Raises:
            BrokenPipeError: the client is gone or does not read.
        """
        if not self.has_answered and data.endswith(HEAD_END) and self.timeout != 0:
            self.head, self.has_answered, self.is_pipelined = data, True, self.unread_bytes() > 0
            return
        if self.head:
            data, self.head = self.head + data, b""
        view = memoryview(data).cast("B")
        if self.early:
            view, self.early = view[len(self.early) :], b""
        self.has_answered = True
        for start in range(0, len(view), SEND_SIZE):
            self._send_in_time(view[start : start + SEND_SIZE], flags)

    def flush(self) -> None:
        """Send the head of an answer that has no body."""
        if self.head:
            self.sendall(b"")

    def _send_in_time(self, view: memoryview, flags: int) -> None:
        if self.timeout == 0:  # gunicorn sends some errors without waiting
            super().sendall(view, flags)
            return
        with contextlib.suppress(BlockingIOError):
            view = view[self._sock.send(view, flags) :]
        if view:
            self._begin_wait(time.monotonic() + SEND_TIMEOUT)
            try:
                super().sendall(view, flags)
            finally:
                self.waiting_since = None

    def unread_bytes(self) -> int:
        """Return how many bytes have come and were not read."""
        return int.from_bytes(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(4)), sys.byteorder)

    def has_request(self) -> bool:
        """Return whether the client's next request has begun to come."""
        return self.phase is IDLE and self.unread_bytes() > 0

    def send_early(self) -> bool:
        """Send the answer's next byte before the answer is known; return whether that was possible.

        A client that has closed its connection resets it then; one that has only ended its own sending reads on.
        """
        if self.has_answered or len(self.early) == len(ANSWER_START):
            return False
        self.early += ANSWER_START[len(self.early) : len(self.early) + 1]
        return bool(self._sock.send(self.early[-1:]) == 1)

    def watch(self, wake: Callable[[], object]) -> None:
        """Call `wake` when the client may have left and when the worker stops, until `unwatch`."""
        self.disconnects.add(self.fileno(), wake)

    def unwatch(self) -> None:
        self.disconnects.remove(self.fileno())

    def close(self) -> None:
        """End the connection once the client has, or soon: bytes that come after the end would reset it.

        Then the client's system would drop what it has not read of the answer.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self.enter(LINGER)
            while self._recv_in_time(READ_SIZE, 0):
                pass
        super().close()

    # --- waiting for the client

    def yield_to_others(self) -> None:
        """Let other clients go first; that counts as waiting, but not as the client's time for a body.

        Raises:
            BrokenPipeError: the connection was closed meanwhile, to make room.
        """
        began, self.greenlet = time.monotonic(), gevent.getcurrent()
        self._begin_wait(math.inf)
        try:
            self.scheduler.take()
        finally:
            self.greenlet = self.waiting_since = None
        if self.phase is ANSWER:
            self.deadline += time.monotonic() - began

    def _begin_wait(self, until: float) -> None:
        """Note that the connection waits for its client from now on, until it sets `waiting_since` to None again."""
        self.waiting_since = time.monotonic() if self.phase.rank else self.began
        self.waits_until = until

    def end_if_late(self, now: float) -> None:
        """End what the client is too slow for."""
        if self.waiting_since is not None and now > self.waits_until:
            self.is_late = True
            self.end_waiting()

    def end_reading(self) -> None:
        """Let reading end, once what has already come is read."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def end_waiting(self) -> None:
        """End what its client is too slow for: a body that is not complete can still be answered."""
        if self.phase is ANSWER and not self.has_answered and self.greenlet is None:
            self.end_reading()
        else:
            self.cut()

    def cut(self) -> None:
        """End reading and sending."""
        self.waiting_since = None
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self.greenlet:
            gevent.kill(self.greenlet, BrokenPipeError(errno.EPIPE, "The connection was closed"))


@lru_cache(maxsize=1)
def _format_date(second: int) -> str:
    return formatdate(second, usegmt=True)


class Worker(GeventWorker):  # type: ignore[misc]
    """gevent's worker, whose clients share it fairly. gunicorn.conf.py gives it the app's `turns`."""

    scheduler: "FairScheduler"

    def run(self) -> None:
        self._spare_gunicorn_work()
        self.connections: set[Connection] = set()
        self.disconnects = DisconnectPoller()
        self.server_class = self._make_server
        gevent.spawn(self._watch_connections)
        super().run()

    def _spare_gunicorn_work(self) -> None:
        """Let gunicorn do once what it does for each request: that took a tenth of a request's time."""
        # A setting is looked up by a function, dozens of times a request, unless it is an attribute.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        environ = wsgi.base_environ(self.cfg)
        wsgi.base_environ = lambda _: environ.copy()
        util.http_date = lambda: _format_date(int(time.time()))

    def _make_server(self, listener: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """Return what accepts connections. gunicorn's own takes one in a round, however many are coming."""
        ssl_options = {"ssl_context": options["ssl_context"]} if "ssl_context" in options else {}
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=spawn, **ssl_options)
        server.max_accept = MAX_ACCEPT
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends."""
        if isinstance(client, ssl.SSLSocket):
            super().handle(listener, client, addr)
            return
        connection = Connection(client, self.scheduler, self.disconnects)
        self._make_room()
        self.connections.add(connection)
        try:
            super().handle(listener, connection, addr)
        finally:
            self.connections.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer one request; those that come before they could be answered take turns with other clients."""
        if not isinstance(sock, Connection):
            return super().handle_request(listener_name, req, sock, addr)
        if sock.is_pipelined or not sock.has_read:
            sock.yield_to_others()
        sock.has_read = False
        sock.enter(ANSWER)
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.flush()
            sock.enter(IDLE)

    def _make_room(self, max_cut: int = 1) -> None:
        """When nearly all connections are in use, close those that have waited longest for their clients.

        A heap, since thousands may wait and each new connection asks for one of them.
        """
        spare = min(SPARE_CONNECTIONS, self.worker_connections // 10)
        wanted = min(max_cut, len(self.connections) + 1 - (self.worker_connections - spare))
        if wanted <= 0:
            return
        before = time.monotonic() - MIN_PATIENCE
        idle = [
            (one.phase.rank, one.waiting_since, number, one)
            for number, one in enumerate(self.connections)
            if one.waiting_since is not None and one.waiting_since < before
        ]
        heapq.heapify(idle)
        while idle and wanted:
            *_, connection = heapq.heappop(idle)
            if not connection.has_request():
                connection.cut()
                wanted -= 1

    def _watch_connections(self) -> None:
        """End what clients are too slow for; one timer for all costs less than one for each read and write.

        After SIGTERM end idle connections at once, and after STOP_TIMEOUT those that wait for their clients.
        """
        stops_at = math.inf
        for number in itertools.count():
            gevent.sleep(CHECK_INTERVAL)
            now = time.monotonic()
            self._make_room(SPARE_CONNECTIONS)
            if number % LEAVING_CHECKS == 0:
                self.disconnects.poll()
            if not self.alive:
                stops_at = min(stops_at, now + STOP_TIMEOUT)
                self.disconnects.wake_all()
            for connection in list(self.connections):
                connection.end_if_late(now)
                if not self.alive and connection.phase is IDLE:
                    connection.end_reading()
                elif now > stops_at and connection.waiting_since is not None:
                    connection.end_waiting()
