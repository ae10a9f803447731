"""A client's connection with timeouts for every phase of a request, each read and each write.

Nothing here sets a timer: a connection notes its current deadline, and the worker checks all connections four times a
second (`Worker._enforce_timeouts`). That costs less than a timer for each read and write.
"""

import contextlib
import errno
import fcntl
import math
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket
from gunicorn.http.errors import LimitRequestHeaders

from server import clock
from server.disconnect_poller import DisconnectPoller

if TYPE_CHECKING:  # gunicorn imports this module too early: gevent must first patch what this import would load
    from web.fairness import FairScheduler

KEEPALIVE_SECONDS = 75  # longer than the 60 s of load balancers, so that they close an idle connection first
HEAD_TIMEOUT = 20.0  # seconds from the first byte of a request to the end of its head
BODY_IDLE_TIMEOUT = 60.0  # seconds between two reads of a body
SEND_TIMEOUT = 10.0  # seconds for a client to read SEND_SIZE bytes
DRAIN_TIMEOUT = 30.0  # seconds to read the rest of a body after the response
DRAIN_IDLE_TIMEOUT = 5.0  # seconds between two reads of the rest of a body
LINGER_TIMEOUT = 1.0  # seconds for a client to close its end after the last response

MAX_HEAD_BYTES = 1 << 16
READ_SIZE = 1 << 16  # bytes per read
SEND_SIZE = 1 << 16  # bytes per write
PARSE_SIZE = 8192  # bytes that gunicorn reads at once to parse heads and chunk sizes
SLICE_SIZE = 2048  # bytes to parse in one time slice: 340 chunks of one byte take some milliseconds

RESPONSE_START = b"HTTP/1."  # the same for every response
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Phase:
    """A phase of a connection: the timeout of each read, the timeout of the whole phase (seconds), and a rank."""

    idle_timeout: float
    timeout: float
    rank: int = 0  # connections of a lower rank are evicted first


IDLE = Phase(KEEPALIVE_SECONDS, KEEPALIVE_SECONDS)
READING_HEAD = Phase(HEAD_TIMEOUT, HEAD_TIMEOUT)
HANDLING = Phase(BODY_IDLE_TIMEOUT, math.inf, rank=1)  # the app reads the body and responds
DRAINING = Phase(DRAIN_IDLE_TIMEOUT, DRAIN_TIMEOUT)
LINGERING = Phase(LINGER_TIMEOUT, LINGER_TIMEOUT)


class Connection(socket.socket):  # type: ignore[misc]
    """A client's connection."""

    def __init__(self, client: Any, scheduler: "FairScheduler", disconnects: DisconnectPoller) -> None:
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self.scheduler = scheduler
        self.disconnects = disconnects
        self.yielding: Any = None  # the greenlet that waits in `yield_now`
        self.has_read = False  # since the last request began
        self.is_pipelined = False  # the client sent another request before the response to the last one
        self.timed_out = False
        self.enter(IDLE)

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.began = clock.now()
        self.deadline = self.began + phase.timeout
        self.read_budget = PARSE_SIZE  # bytes to read before the connection yields
        self.head_bytes = 0
        self.sent_early = b""  # the bytes of RESPONSE_START that `send_early` has sent
        self.response_started = False
        self.held_head = b""  # the head of the response, to be sent with the first bytes of its body
        self.waiting_since: float | None = None  # when it began to wait for its client; None if it does not
        self.wait_deadline = self.deadline

    def limit_body(self, seconds: float) -> None:
        """Set the deadline for the whole body to `seconds` from now."""
        self.deadline = clock.now() + seconds

    def cut_body(self) -> bool:
        """End the reading of a body, as if it had timed out, if it waits for its client; return whether it does."""
        if self.waiting_since is None or self.yielding is not None or self.unread_bytes():
            return False
        self.timed_out = True
        self.end_wait()
        return True

    def begin_drain(self) -> None:
        """Send the rest of the response. From now on, whatever the client sends is read and dropped."""
        self.flush()
        self.enter(DRAINING)

    # --- reading

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Read some bytes; b"" at the end, and when reading a head times out.

        Raises:
            TimeoutError: reading a body timed out.
            LimitRequestHeaders: the head is too large.
        """
        if self.read_budget <= 0:
            self.yield_now()
            self.read_budget = SLICE_SIZE
        if self.read_budget <= SLICE_SIZE and size <= PARSE_SIZE:
            size = SLICE_SIZE
        data = self._recv_in_time(min(size, READ_SIZE), flags)
        if self.timed_out and self.phase is HANDLING:
            raise TimeoutError("The client is too slow.")
        self.has_read = True
        self.read_budget -= len(data)
        if self.phase is IDLE:
            self.enter(READING_HEAD)
        if self.phase is READING_HEAD:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                raise LimitRequestHeaders(f"The head is larger than {MAX_HEAD_BYTES} bytes")
        return data

    def _recv_in_time(self, size: int, flags: int) -> bytes:
        now = clock.now()
        if now > self.deadline:
            self.timed_out = True
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

    def unread_bytes(self) -> int:
        """Return the number of bytes that the kernel has received and we have not read."""
        return int.from_bytes(fcntl.ioctl(self._sock, termios.FIONREAD, bytes(4)), sys.byteorder)

    def has_request(self) -> bool:
        """Return whether the client has begun to send its next request."""
        return self.phase is IDLE and self.unread_bytes() > 0

    # --- sending

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all bytes. The head of a response is held until its body begins: one write instead of two.

        Raises:
            BrokenPipeError: the client has disconnected or does not read.
        """
        if not self.response_started and data.endswith(HEAD_END) and self.timeout != 0:
            self.held_head, self.response_started, self.is_pipelined = data, True, self.unread_bytes() > 0
            return
        if self.held_head:
            data, self.held_head = self.held_head + data, b""
        view = memoryview(data).cast("B")
        if self.sent_early:
            view, self.sent_early = view[len(self.sent_early) :], b""
        self.response_started = True
        for start in range(0, len(view), SEND_SIZE):
            self._send_in_time(view[start : start + SEND_SIZE], flags)

    def flush(self) -> None:
        """Send the head of a response that has no body."""
        if self.held_head:
            self.sendall(b"")

    def _send_in_time(self, view: memoryview, flags: int) -> None:
        if self.timeout == 0:  # gunicorn sends some errors without blocking
            super().sendall(view, flags)
            return
        with contextlib.suppress(BlockingIOError):
            view = view[self._sock.send(view, flags) :]
        if view:
            self._begin_wait(clock.now() + SEND_TIMEOUT)
            try:
                super().sendall(view, flags)
            finally:
                self.waiting_since = None

    # --- disconnects

    def watch(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the client may have disconnected and when the worker stops, until `unwatch`."""
        self.disconnects.add(self.fileno(), callback)

    def unwatch(self) -> None:
        self.disconnects.remove(self.fileno())

    def send_early(self) -> bool:
        """Send one byte of the response before the response is known; return whether that was possible.

        A client that has closed its connection answers with a reset. One that only closed its sending side does not.
        """
        if self.response_started or len(self.sent_early) == len(RESPONSE_START):
            return False
        self.sent_early += RESPONSE_START[len(self.sent_early) : len(self.sent_early) + 1]
        return bool(self._sock.send(self.sent_early[-1:]) == 1)

    def close(self) -> None:
        """Close the connection once the client has, or after LINGER_TIMEOUT.

        Bytes that arrive after a close are answered with a reset, and the client's system then drops what the client
        has not yet read of the response.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self.enter(LINGERING)
            while self._recv_in_time(READ_SIZE, 0):
                pass
        super().close()

    # --- waiting

    def yield_now(self) -> None:
        """Let other clients run first. The connection can be evicted while it waits; its body's deadline is extended.

        Raises:
            BrokenPipeError: the connection was evicted.
        """
        began, self.yielding = clock.now(), gevent.getcurrent()
        self._begin_wait(math.inf)
        try:
            self.scheduler.yield_now()
        finally:
            self.yielding = self.waiting_since = None
        if self.phase is HANDLING:
            self.deadline += clock.now() - began

    def _begin_wait(self, deadline: float) -> None:
        """Note that the connection waits for its client, until `waiting_since` is None again."""
        self.waiting_since = clock.now() if self.phase.rank else self.began
        self.wait_deadline = deadline

    def end_if_timed_out(self, now: float) -> None:
        """End a wait whose deadline has passed."""
        if self.waiting_since is not None and now > self.wait_deadline:
            self.timed_out = True
            self.end_wait()

    def end_wait(self) -> None:
        """End a wait for the client: a request with an incomplete body is still answered, anything else is aborted."""
        if self.phase is HANDLING and not self.response_started and self.yielding is None:
            self.end_reading()
        else:
            self.abort()

    def end_reading(self) -> None:
        """Receive nothing more. Bytes that have arrived can still be read."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End reading and sending at once."""
        self.waiting_since = None
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self.yielding:
            gevent.kill(self.yielding, BrokenPipeError(errno.EPIPE, "The connection was closed"))
