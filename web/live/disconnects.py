"""The connection to a client: detect that the client has disconnected; limit, read and drain the body it sends."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from werkzeug import Response

if TYPE_CHECKING:
    from web.request import Request  # it imports web/services.py, which imports this package

READ_SIZE = 1 << 16  # bytes read from a body at once
SEND_BUFFER = 1 << 16  # bytes the kernel buffers for a client that follows a stream
MAX_UNREAD_BYTES = 1 << 14  # that a client may send after its request; beyond, it counts as disconnected
PROBE_TIMEOUT = 2.0  # seconds for the client's system to acknowledge a byte
PROBE_INTERVAL = 0.01  # seconds between two checks for the acknowledgement
CHECK_INTERVAL = 1.0  # seconds between two checks for a disconnect
WATCHED_CHECK_INTERVAL = 15.0  # the same, where the worker reports disconnects

TCP_CLOSE_WAIT = 8  # the state of a connection whose client has closed its sending side


class ClientConnection:
    """The connection of a request's client. Without a socket (Flask's test client) it never disconnects.

    A client that closes its connection and one that closes only its sending side (`nc -N`) look the same here until we
    send something: the first replies with a reset. So the first bytes of the answer, which are the same for every
    answer, are sent early, one at a time: at the first sign of a disconnect, and at each `confirm_disconnected`.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.sock: Any = environ.get("gunicorn.socket")
        self.has_limits = hasattr(self.sock, "send_early")  # server/worker.py's connection; with TLS it is another
        self._still_reads = False

    def is_disconnected(self, confirm: bool = False) -> bool:
        """Return whether the client has disconnected.

        A client that has closed its sending side is probed: it must acknowledge a byte. Having passed one probe, it is
        probed again only with `confirm`.
        """
        if self.sock is None:
            return False
        plain = getattr(self.sock, "_sock", self.sock)  # gevent's socket would wait in spite of MSG_DONTWAIT
        try:
            if not self.has_limits or not hasattr(socket, "TCP_INFO"):  # TLS, or macOS
                return bool(plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
            plain.send(b"", socket.MSG_DONTWAIT)  # fails after a reset, and on a unix socket after a close
            if self.sock.unread_bytes() > MAX_UNREAD_BYTES:  # they would hide that it closes its sending side
                return True
            if _tcp_state(plain)[0] != TCP_CLOSE_WAIT:
                return False
            if confirm or not self._still_reads:
                self._still_reads = self._probe(plain)
            return not self._still_reads
        except BlockingIOError:
            return False
        except OSError:
            return True

    def confirm_disconnected(self) -> bool:
        """Return whether the client has disconnected, by a slower, more reliable check.

        It is called just before a message is handed over.
        """
        return self.is_disconnected(confirm=True)

    def watch(self, notify: Callable[[], object]) -> float:
        """Call `notify` when the client may have disconnected and when the worker stops, until `unwatch`.

        Return the seconds between two checks that the caller still has to make.
        """
        if not self.has_limits:
            return CHECK_INTERVAL
        self.sock.watch(notify)
        return WATCHED_CHECK_INTERVAL

    def unwatch(self) -> None:
        """Undo `watch`."""
        if self.has_limits:
            self.sock.unwatch()

    def _probe(self, plain: socket.socket) -> bool:
        """Send a byte of the answer and return whether the client's system acknowledged it."""
        if not self.sock.send_early():
            return False
        end = time.monotonic() + PROBE_TIMEOUT
        while (found := _tcp_state(plain)) != (TCP_CLOSE_WAIT, 0):
            if found[0] != TCP_CLOSE_WAIT or time.monotonic() > end:
                return False
            time.sleep(PROBE_INTERVAL)
        return True

    def shrink_buffer(self) -> None:
        """Shrink the send buffer for a client that follows a stream, so that we soon notice if it stops reading."""
        if self.sock is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def limit_body(self, seconds: float) -> None:
        """Set the deadline of the request's body: `seconds` from now."""
        if self.has_limits:
            self.sock.limit_body(seconds)

    def cut_body(self) -> bool:
        """End the reading of the body if its client keeps us waiting (408); return whether it does."""
        return self.has_limits and bool(self.sock.cut_body())

    def read_some(self, size: int) -> bytes:
        """Return the bytes of the body that have arrived, up to `size`; wait for the first. b"" at the end.

        gunicorn's own `read` waits until it has `size` bytes.
        """
        stream = self.environ["wsgi.input"]
        reader = getattr(stream, "reader", None)
        if reader is None:  # not gunicorn
            return bytes(stream.read(size))
        first: bytes = reader.read(1)
        buffered = reader.buf if hasattr(reader, "buf") else reader.unreader.buf  # chunked, or with a Content-Length
        return first + reader.read(min(size - 1, buffered.tell())) if first else b""

    @property
    def is_malformed(self) -> bool:
        """Whether the body's end cannot be found, so that the connection cannot be reused."""
        return bool(self.environ.get("client.malformed"))

    def mark_malformed(self) -> None:
        """Note that the body's end cannot be found."""
        self.environ["client.malformed"] = True

    def drain(self) -> None:
        """Read and drop the rest of the body, within the time limit of the worker."""
        done = False
        with contextlib.suppress(Exception):  # incomplete, malformed or too slow: then the connection is closed
            self.sock.begin_drain()
            if self.is_malformed:  # the rest could be taken for further requests: this answer is the last
                self.sock.shutdown(socket.SHUT_WR)
            read = self.sock.recv if self.is_malformed else self.environ["wsgi.input"].read
            while not done:
                done = not read(READ_SIZE)
        if self.is_malformed or not done:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _tcp_state(plain: socket.socket) -> tuple[int, int]:
    """Return the state of a TCP connection and its number of unacknowledged segments; (0, 0) for another socket."""
    if plain.family == socket.AF_UNIX:
        return 0, 0
    info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return info[0], struct.unpack_from("=I", info, 24)[0]


def drain_body(request: "Request", response: Response) -> Response:
    """Drain the rest of the request's body after the answer.

    A connection that is closed with unread bytes is reset, and the client might never see why it was refused.
    """
    client = ClientConnection(request.environ)
    has_body = request.content_length or request.headers.get("Transfer-Encoding")
    if has_body and not request.is_body_read and client.has_limits:
        response.call_on_close(client.drain)
    return response
