"""Waiting for messages. However many clients of a process wait on a queue, one of them asks Redis.

Waiting and taking are apart: the foremost client blocks in `BLMOVE key key RIGHT RIGHT`, which changes nothing
and returns when the list is not empty. Then it looks whether its client is still there, and only then takes. So a
client that hung up takes nothing with it, and the next in line goes on.
"""

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import redis

from broker.connection import NotSent
from broker.reliable import ReliableQueue, Taken
from web.errors import Refusal

TICK = 1.0  # seconds after which who waits looks whether its client is there and the server goes on
ANNOUNCED = 30.0  # seconds for which the number of waiting clients holds unless it is told again


class Line:
    """The clients of this process that wait on one queue, the foremost first."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.tickets: deque[threading.Event] = deque()
        self.told = 0  # the number Redis was told
        self.told_at = 0.0


class Waiting:
    """All the waiting of one process: at most `most` clients, with a client for commands that block."""

    def __init__(self, client: Any, most: int, stopping: Callable[[], bool]) -> None:
        self.client = client
        self.most = most
        self.stopping = stopping
        self.lines: dict[str, Line] = {}
        self.number = 0
        self._lock = threading.Lock()
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._teller: threading.Thread | None = None

    def enter(self) -> None:
        """Count one more client that stays for long; pair it with `leave`.

        Raises:
            Refusal: there are too many (429).
        """
        with self._lock:
            if self.number >= self.most:
                raise Refusal(
                    429, "too_many_waiting", f"More than MAX_WAITING ({self.most}) clients wait.", {"Retry-After": "1"}
                )
            self.number += 1

    def leave(self) -> None:
        """Count one client less."""
        with self._lock:
            self.number -= 1

    def take(
        self, queue: ReliableQueue, seconds: float, attempt: Callable[[], Taken], gone: Callable[[], bool]
    ) -> list[Any]:
        """Return what `attempt` takes, waiting up to `seconds` for it; [] in the end, or when the client is `gone`.

        Raises:
            Refusal: too many clients wait (429).
        """
        if seconds and gone():
            return []
        taken = attempt()
        if taken.messages or not seconds:
            return taken.messages
        self.enter()
        line, ticket = self._join(queue)
        try:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not self.stopping() and not gone():
                if line.tickets[0] is not ticket:
                    ticket.wait(min(left, TICK))
                    continue
                self._wait(queue, min(left, TICK, taken.due or TICK))
                if gone():
                    break
                taken = attempt()
                if taken.messages:
                    return taken.messages
            return []
        finally:
            self._quit(line, ticket)
            self.leave()

    def _wait(self, queue: ReliableQueue, seconds: float) -> None:
        """Return when the queue holds something, or after `seconds`. A lost reply leaves nothing unknown."""
        try:
            queue.wait(seconds, self.client)
        except (redis.AuthenticationError, redis.BusyLoadingError, NotSent):
            raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise NotSent(str(error)) from error

    def _join(self, queue: ReliableQueue) -> tuple[Line, threading.Event]:
        ticket = threading.Event()
        with self._lock:
            line = self.lines.setdefault(queue.key, Line(queue))
            line.tickets.append(ticket)
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, daemon=True, name="tell-waiters")
                self._teller.start()
        return line, ticket

    def _quit(self, line: Line, ticket: threading.Event) -> None:
        with self._lock:
            line.tickets.remove(ticket)
            if line.tickets:
                line.tickets[0].set()

    def _tell(self) -> None:
        """Keep Redis told how many clients wait here, as long as any does."""
        while True:
            now = time.monotonic()
            with self._lock:
                for key in [key for key, line in self.lines.items() if not line.tickets and not line.told]:
                    del self.lines[key]
                if not self.lines:
                    self._teller = None
                    return
                lines = [
                    (line, len(line.tickets))
                    for line in self.lines.values()
                    if len(line.tickets) != line.told or now - line.told_at > ANNOUNCED / 3
                ]
            for line, number in lines:
                line.told, line.told_at = number, now
                try:
                    line.queue.announce(self._process, number, ANNOUNCED)
                except Exception:  # whatever it is, the count of the waiting depends on going on
                    line.told_at = now - ANNOUNCED  # once more; what Redis was told last ends by itself
            time.sleep(0.1)
