"""Fair shares of one process for its clients: CPU time, and memory for request bodies."""

import threading
import time

from web.errors import ApiError

SLICE_SECONDS = 0.01  # how long a client works before a checkpoint makes it yield
MIN_PAUSE, MAX_PAUSE = 0.005, 0.05  # seconds; shorter pauses are skipped
MAX_PAUSES = 4  # at one yield
FREE_BODY_BYTES = 1 << 16  # bytes of each body that are not counted: small requests are always read


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


class BodyMemory:
    """Bounds the bytes of all bodies that a process holds at once. A single body may be larger than the bound."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.reserved = 0
        self._lock = threading.Lock()

    def reserve(self, size: int, held: int) -> None:
        """Reserve `size` more bytes for a body that already has `held`. Call `release` when it is dropped.

        Raises:
            ApiError: other bodies use the memory (503).
        """
        with self._lock:
            if self.reserved + size > self.maximum and self.reserved > held:
                raise ApiError("too_many_bodies")
            self.reserved += size

    def release(self, size: int) -> None:
        """Release `size` reserved bytes."""
        if size:
            with self._lock:
                self.reserved -= size
