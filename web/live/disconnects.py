"""The client at the other end of a request's connection: is it gone, how long may it take, what does it still send?"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug import Response

from web.request import Request

READ_SIZE = 1 << 16  # bytes read from a body at once
SEND_BUFFER = 1 << 16  # bytes the kernel buffers for a client that follows a stream
MAX_UNREAD_BYTES = 1 << 14  # that may follow a request before it is answered
PROBE_TIMEOUT = 2.0  # seconds until a client's system must have confirmed a byte
CHECK_INTERVAL = 1.0  # how often to ask whether a client is gone, seconds,
WATCHED_CHECK_INTERVAL = 15.0  # and how often where the worker tells
PROBE_INTERVAL = 0.01  # seconds between two checks for it

TCP_CLOSE_WAIT = 8  # the state of a connection whose client has ended its sending


class Peer:
    """The client of a request. Without a socket (in a test client) it is always there and has no limits.

    A client that closes its connection and one that only ends its own sending (`nc -N`) look the same from here, until
    something is sent to them: the first answers with a reset. So the first bytes of the answer, which are the same for
    every answer, are sent early and one at a time: on the first sign of leaving, and whenever `confirm` asks.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.sock: Any = environ.get("gunicorn.socket")
        self.is_limited = hasattr(self.sock, "send_early")  # server/worker.py's connection; with TLS it is another
        self._reads_on = False

    def is_gone(self, confirm: bool = False) -> bool:
        """Return whether the client has hung up. With `confirm` it must show that it reads on if it sends no more."""
        if self.sock is None:
            return False
        plain = getattr(self.sock, "_sock", self.sock)  # gevent's socket would wait in spite of MSG_DONTWAIT
        try:
            if not self.is_limited or not hasattr(socket, "TCP_INFO"):  # TLS, or macOS
                return bool(plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
            plain.send(b"", socket.MSG_DONTWAIT)  # fails after a reset, and on a unix socket after a close
            if self.sock.unread_bytes() > MAX_UNREAD_BYTES:  # then the end of its sending could not be seen
                return True
            if _tcp_state(plain)[0] != TCP_CLOSE_WAIT:
                return False
            if confirm or not self._reads_on:
                self._reads_on = self._probe(plain)
            return not self._reads_on
        except BlockingIOError:
            return False
        except OSError:
            return True

    @contextlib.contextmanager
    def watch(self, wake: Callable[[], object]) -> Iterator[float]:
        """Call `wake` when the client may have left and when the process is told to stop; then `is_gone` says more.

        Yield how often to ask all the same, in seconds.
        """
        if not self.is_limited:
            yield CHECK_INTERVAL
            return
        self.sock.watch(wake)
        try:
            yield WATCHED_CHECK_INTERVAL
        finally:
            self.sock.unwatch()

    def confirm_gone(self) -> bool:
        """Return whether the client can no longer get an answer; to be asked before it is given a message for good."""
        return self.is_gone(confirm=True)

    def _probe(self, plain: socket.socket) -> bool:
        """Send a byte of the answer and return whether the client's system took it."""
        if not self.sock.send_early():
            return False
        end = time.monotonic() + PROBE_TIMEOUT
        while (found := _tcp_state(plain)) != (TCP_CLOSE_WAIT, 0):
            if found[0] != TCP_CLOSE_WAIT or time.monotonic() > end:
                return False
            time.sleep(PROBE_INTERVAL)
        return True

    def shrink_buffer(self) -> None:
        """Keep little in the kernel for a client that follows a stream, so that it is soon seen if it stops reading."""
        if self.sock is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def limit_body(self, seconds: float) -> None:
        """Give up the body if it has not come within `seconds` from now."""
        if self.is_limited:
            self.sock.limit_body(seconds)

    def read_some(self, size: int) -> bytes:
        """Return what has come of the request's body, up to `size` bytes, and wait for the first; b"" at the end.

        gunicorn's own `read` waits until it has all that was asked for.
        """
        stream = self.environ["wsgi.input"]
        reader = getattr(stream, "reader", None)
        if reader is None:  # not gunicorn
            return bytes(stream.read(size))
        first: bytes = reader.read(1)
        held = reader.buf if hasattr(reader, "buf") else reader.unreader.buf  # of a chunked body, or of another
        return first + reader.read(min(size - 1, held.tell())) if first else b""

    @property
    def malformed(self) -> bool:
        """Whether the body's end cannot be found, so that the connection cannot be used again."""
        return bool(self.environ.get("peer.malformed"))

    def mark_malformed(self) -> None:
        self.environ["peer.malformed"] = True

    def drain(self) -> None:
        """Read what is left of the body for a while and drop it."""
        done = False
        with contextlib.suppress(Exception):  # a cut body, malformed chunks, too slow: the connection is closed then
            self.sock.begin_drain()
            if self.malformed:  # the rest cannot be told from further requests: this answer is the last
                self.sock.shutdown(socket.SHUT_WR)
            read = self.sock.recv if self.malformed else self.environ["wsgi.input"].read
            while not done:
                done = not read(READ_SIZE)
        if self.malformed or not done:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _tcp_state(plain: socket.socket) -> tuple[int, int]:
    """Return the state of a TCP connection and the number of unconfirmed segments; (0, 0) for another socket."""
    if plain.family == socket.AF_UNIX:
        return 0, 0
    info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return info[0], struct.unpack_from("=I", info, 24)[0]


def drain_body(request: Request, response: Response) -> Response:
    """After the answer, read the rest of the request's body.

    A connection that is closed with unread bytes is reset, and the client might never see why it was refused.
    """
    if has_unread_body(request):
        response.call_on_close(Peer(request.environ).drain)
    return response


def has_unread_body(request: Request) -> bool:
    """Return whether the client may still send a part of the request's body, over a connection that can be drained."""
    if request.is_body_read or not (request.content_length or request.headers.get("Transfer-Encoding")):
        return False
    return Peer(request.environ).is_limited
