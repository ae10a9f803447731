"""Fair shares of one process for its clients: CPU time, and memory for request bodies."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from web.errors import ApiError

SLICE_SECONDS = 0.01  # how long a client works before a checkpoint makes it yield
MIN_PAUSE, MAX_PAUSE = 0.005, 0.05  # seconds; shorter pauses are skipped
MAX_PAUSES = 4  # at one yield
FREE_BODY_BYTES = 1 << 16  # bytes of each body that are not counted: small requests are always read
STALL_SECONDS = 2.0  # for 64 KiB, which is slower than MIN_BYTES_PER_SECOND in web/input/body.py


class FairScheduler:
    """Cooperative scheduling: clients that keep a process busy take turns, and others run in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began, self._began_cpu = 0.0, 0.0  # of the current time slice, by the clock and in CPU seconds

    def yield_now(self) -> None:
        """Let everyone else that is ready run first. Of the clients that yield, one at a time continues.

        A busy slice is followed by a pause of the same length, which is repeated while others use most of it. Without
        the repeats, a request that waits several times for Redis or its client would wait for a slice each time.
        """
        with self._lock:
            pause = min(time.thread_time() - self._began_cpu, MAX_PAUSE)
            is_busy = pause > MIN_PAUSE and pause > (time.monotonic() - self._began) / 2
            if is_busy:
                self._pause(pause)
            else:
                time.sleep(0)
            self._began, self._began_cpu = time.monotonic(), time.thread_time()

    def _pause(self, seconds: float) -> None:
        for _ in range(MAX_PAUSES):
            began = time.thread_time()
            time.sleep(seconds)
            if time.thread_time() - began < seconds / 2:
                return

    def checkpoint(self) -> None:
        """Yield if the current time slice is used up; to be called often during long work."""
        if time.monotonic() - self._began > SLICE_SECONDS:
            self.yield_now()


@dataclass(eq=False)
class HeldBody:
    """A body that is being read or used."""

    cut: Callable[[], bool]  # ends its reading if its client keeps us waiting; returns whether it did
    size: int = 0  # bytes of `BodyMemory` that it uses
    progressed_at: float = 0.0  # when it last got a block of 64 KiB


class BodyMemory:
    """Bounds the bytes of all bodies that a process holds at once. A single body may be larger than the bound.

    When they are used up, the body that has stalled longest is cut for one that progresses.
    """

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.maximum = maximum
        self.reserved = 0
        self._clock = clock
        self._bodies: set[HeldBody] = set()
        self._lock = threading.Lock()

    def reserve(self, body: HeldBody, size: int) -> None:
        """Reserve `size` more bytes for a body. Call `release` when it is dropped.

        Raises:
            ApiError: bodies that progress, or are complete, use the memory (503).
        """
        with self._lock:
            while self.reserved + size > self.maximum and self.reserved > body.size:
                if not self._cut_slowest(body):
                    raise ApiError("too_many_bodies")
            self.reserved += size
            body.size += size
            body.progressed_at = self._clock()
            self._bodies.add(body)

    def release(self, body: HeldBody) -> None:
        """Release the bytes of a body."""
        with self._lock:
            self._forget(body)

    def _cut_slowest(self, other: HeldBody) -> bool:
        """Cut the body that has stalled longest, but not `other`; return whether there was one."""
        latest = self._clock() - STALL_SECONDS
        stalled = [body for body in self._bodies if body.progressed_at < latest and body is not other]
        for body in sorted(stalled, key=lambda body: body.progressed_at):
            if body.cut():
                self._forget(body)
                return True
        return False

    def _forget(self, body: HeldBody) -> None:
        self._bodies.discard(body)
        self.reserved -= body.size
        body.size = 0
