"""A server that takes commands and answers none is given no more: one that is stopped, or whose disk hangs.

It would do them when it goes on, long after their callers have given up. So once a command has waited for
BREAKER_TIMEOUT while nothing else was answered, new ones wait until the server answers again, for as long at most. Then
they fail, and were never sent. One of them at a time asks the server by a PING. A server that only takes long, for one
command or a large reply, answers that at once. What was sent before goes on waiting for its reply.
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
    """What must be known of a server."""

    def sent_times(self) -> Iterable[float]:
        """Return when each command was sent that has no reply yet; 0 says nothing."""

    def ping(self, timeout: float) -> None:
        """Return once the server has answered.

        Raises:
            redis.RedisError: it is, or was raised from, a redis.TimeoutError if there was no answer in time.
        """


class CircuitBreaker:
    """Whether a server is silent."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_on = False
        self._heard_at = -math.inf
        self._asking = threading.Lock()

    def record_success(self) -> None:
        """Note that the server has answered."""
        self._heard_at, self._is_on = time.monotonic(), False

    def trip(self) -> None:
        """Let the server be asked before it gets another command."""
        self._is_on = True

    def is_on(self) -> bool:
        """Return whether the server is silent, as far as that is known."""
        if not self._is_on:
            end = time.monotonic() - BREAKER_TIMEOUT
            self._is_on = self._heard_at < end and any(0 < sent < end for sent in self._server.sent_times())
        return self._is_on

    def wait(self) -> None:
        """Wait until the server answers, if it is silent.

        Raises:
            NotSent: it is still silent after BREAKER_TIMEOUT.
        """
        if not self.is_on():
            return
        end = time.monotonic() + BREAKER_TIMEOUT
        if self._asking.acquire(timeout=BREAKER_TIMEOUT):
            try:
                if self._is_on and (seconds := end - time.monotonic()) > 0:
                    self._ask(seconds)
            finally:
                self._asking.release()
        if self._is_on:
            raise NotSent("The server does not answer.")

    def _ask(self, seconds: float) -> None:
        try:
            self._server.ping(seconds)
        except redis.RedisError as error:
            if isinstance(error, redis.TimeoutError) or isinstance(error.__cause__, redis.TimeoutError):
                return
            # It refuses something, or its connections: commands are answered by that too.
        self.record_success()
