"""Circuit breaker: stop sending commands to a server that does not respond.

A server that is stopped, or whose disk hangs, still accepts commands and would run them later, long after their callers
have given up. So the circuit opens once a command has waited BREAKER_TIMEOUT for its reply and no other reply came in
that time. While it is open, the next caller probes the server with a PING (half-open) and the others wait for that
probe. A reply closes the circuit; without one each caller fails with NotSent after at most BREAKER_TIMEOUT. Commands
that were sent before keep waiting for their replies.

A blocked client or a large reply does not delay the PING. A slow command does, because Redis runs one at a time: the
circuit then stays open until that command ends, or until Redis replies BUSY.
"""

import math
import threading
import time
from collections.abc import Iterable
from typing import Protocol

import redis

from broker.connections.errors import NotSent

BREAKER_TIMEOUT = 1.0  # seconds


class Server(Protocol):
    """A server as the circuit breaker sees it."""

    def sent_times(self) -> Iterable[float]:
        """Return when each command without a reply was sent (monotonic); zeros are ignored."""

    def ping(self, timeout: float) -> None:
        """Return once the server has replied to a PING, within `timeout` seconds.

        Raises:
            redis.RedisError: it is a redis.TimeoutError, or has one as its cause, if no reply came in time.
        """


class CircuitBreaker:
    """The circuit of one server: closed while the server responds, open when it does not."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._start()

    def _start(self) -> None:
        self._is_open = False
        self._replied_at = -math.inf
        self._probing = threading.Lock()

    def renew_after_fork(self) -> None:
        """Start anew: the thread that probes the server is one of the parent process."""
        self._start()

    def record_success(self) -> None:
        """Close the circuit: the server has replied."""
        self._replied_at, self._is_open = time.monotonic(), False

    def trip(self) -> None:
        """Open the circuit: the server is probed before the next command."""
        self._is_open = True

    def is_open(self) -> bool:
        """Return whether the circuit is open, and open it if a command has waited for too long."""
        if not self._is_open:
            end = time.monotonic() - BREAKER_TIMEOUT
            self._is_open = self._replied_at < end and any(0 < sent < end for sent in self._server.sent_times())
        return self._is_open

    def check(self) -> None:
        """Return if the circuit is closed, or once a probe has closed it.

        Raises:
            NotSent: the server did not respond within BREAKER_TIMEOUT.
        """
        if not self.is_open():
            return
        end = time.monotonic() + BREAKER_TIMEOUT
        if self._probing.acquire(timeout=BREAKER_TIMEOUT):
            try:
                if self._is_open and (seconds := end - time.monotonic()) > 0:
                    self._probe(seconds)
            finally:
                self._probing.release()
        if self._is_open:
            raise NotSent("The server does not respond.", reason="it does not respond")

    def _probe(self, seconds: float) -> None:
        try:
            self._server.ping(seconds)
        except redis.RedisError as error:
            if isinstance(error, redis.TimeoutError) or isinstance(error.__cause__, redis.TimeoutError):
                return
            # A server that refuses the command or the connection responds, and would refuse others as quickly.
        self.record_success()
