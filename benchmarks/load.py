"""A load generator: many keep-alive connections in one thread that send prepared requests and count the replies."""

import select
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Result:
    """The measurements of a run."""

    seconds: float
    count: int = 0
    failures: int = 0  # answers other than 200
    latencies: list[float] = field(default_factory=list)  # seconds

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.count / self.seconds

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.latencies, n=100)[percent - 1]


Next = Callable[[bytes], bytes]  # returns the next request of a connection, given the body of the last reply

FORM = "application/x-www-form-urlencoded"


def request(path: str, body: bytes = b"", kind: str = FORM, token: str = "") -> bytes:
    """Return the bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {kind}\r\n" if body else ""
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    return head.encode() + b"\r\n" + body


class _Connection:
    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.body = b""  # of the last reply
        self.sent_at = 0.0

    def send(self, data: bytes, at: float) -> None:
        self.sent_at = at
        self.sock.sendall(data)

    def receive(self) -> int | None:
        """Return the status of a complete answer; None while it is incomplete."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed a connection")
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return None
        lower = self.buffer[:head].lower()
        at = lower.find(b"content-length: ")
        length = int(lower[at + 16 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < head + 4 + length:
            return None
        status = int(self.buffer[9:12])
        self.body, self.buffer = self.buffer[head + 4 :], b""
        return status


def run(port: int, data: bytes | Next, *, clients: int = 64, seconds: float = 1.5, rate: float | None = None) -> Result:
    """Send the same request for `seconds`: `rate` per second, however slow the answers, or else without a pause.

    Instead of a request, `data` can be a function that returns the next one.
    """
    next_of = data if callable(data) else lambda _: data
    connections = [_Connection(port) for _ in range(clients)]
    poll = select.epoll()
    by_fd = {one.sock.fileno(): one for one in connections}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    idle = deque(connections)
    result = Result(seconds)
    start = now = time.perf_counter()
    end, sent = start + seconds, 0
    while now < end:
        while idle and (rate is None or start + sent / rate <= now):
            one = idle.popleft()
            one.send(next_of(one.body), now if rate is None else start + sent / rate)
            sent += 1
        for fd, _ in poll.poll(0.05 if rate is None else 0.0005):
            one = by_fd[fd]
            status = one.receive()
            if status is None:
                continue
            now = time.perf_counter()
            result.count += 1
            result.failures += status != 200
            result.latencies.append(now - one.sent_at)
            if rate is None and now < end:
                one.send(next_of(one.body), now)
                sent += 1
            else:
                idle.append(one)
        now = time.perf_counter()
    result.seconds = now - start
    waiting = clients - len(idle)  # let pending requests finish, so that the next run begins on an idle server
    stop = time.perf_counter() + 5
    while waiting and time.perf_counter() < stop:
        for fd, _ in poll.poll(0.1):
            waiting -= by_fd[fd].receive() is not None
    for one in connections:
        one.sock.close()
    return result
