"""The client at the other end of a request's connection: is it gone, how long may it take, what does it still send?"""

import contextlib
import socket
import time
from typing import Any

from flask import Response, request

READ_SIZE = 1 << 16  # bytes read from a body at once
READ_TIMEOUT = 60.0  # seconds a client may take for its next bytes
SEND_TIMEOUT = 10.0  # seconds a part of a stream may take to be sent
SEND_BUFFER = 1 << 16  # bytes the kernel buffers for a client that follows a stream
DRAIN_TIMEOUT = 30.0  # seconds to read what a client still sends after its answer
DRAIN_IDLE_TIMEOUT = 5.0  # seconds it may take for its next bytes then


class Peer:
    """The client of a request. Without a socket (in a test client) it is always there and has no limits."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.sock: Any = environ.get("gunicorn.socket")

    def is_gone(self) -> bool:
        """Return whether the client has closed its connection."""
        plain = getattr(self.sock, "_sock", self.sock)  # gevent's socket would wait in spite of MSG_DONTWAIT
        try:
            return plain is not None and plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def limit_sends(self) -> None:
        """Drop the client if it stops reading."""
        if self.sock is not None:
            self.sock.settimeout(SEND_TIMEOUT)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def limit_reads(self) -> None:
        """Give up a body whose next bytes do not come in time; `drain` takes the limit back."""
        if self.sock is not None:
            self.sock.settimeout(READ_TIMEOUT)

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
        end, done = time.monotonic() + DRAIN_TIMEOUT, False
        with contextlib.suppress(Exception):  # a cut body, malformed chunks, the timeout: the connection is closed then
            self.sock.settimeout(DRAIN_IDLE_TIMEOUT)
            if self.malformed:  # the rest cannot be told from further requests: this answer is the last
                self.sock.shutdown(socket.SHUT_WR)
            read = self.sock.recv if self.malformed else self.environ["wsgi.input"].read
            while not done and time.monotonic() < end:
                done = not read(READ_SIZE)
        with contextlib.suppress(OSError):
            self.sock.settimeout(None)
            if self.malformed or not done:
                self.sock.shutdown(socket.SHUT_RDWR)


def drain_body(response: Response) -> Response:
    """After the answer, read the rest of the request's body.

    A connection that is closed with unread bytes is reset, and the client might never see why it was refused.
    """
    peer = Peer(request.environ)
    if peer.sock is not None and (request.content_length or "Transfer-Encoding" in request.headers):
        response.call_on_close(peer.drain)
    return response
