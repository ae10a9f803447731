"""What the clients of one process share fairly: the time to work, and the memory for bodies."""

import threading
import time

from web.errors import ApiError

MIN_PAUSE, MAX_PAUSE = 0.005, 0.05  # seconds between two turns, when there is a pause at all
MAX_PAUSES = 4  # between two turns
TURN_SECONDS = 0.01  # how long a turn takes in the middle of much work
FREE_BODY_BYTES = 1 << 16  # of each body that count for nothing: small requests are always read


class FairScheduler:
    """Lets clients that keep a process busy take turns, with everybody else in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began, self._began_cpu = 0.0, 0.0  # when the last turn began, by the clock and in seconds of work

    def take(self) -> None:
        """Let all others that are ready go first. Of those that call this, one goes on at a time.

        After much work there is a pause of the same length, and more of them while others fill them with work: a
        request waits a few times for Redis or its client, and would find the next turn in its way each time.
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
        """Take a turn if the last one has taken long enough; to be called often in the middle of much work."""
        if time.monotonic() - self._began > TURN_SECONDS:
            self.take()


class BodyMemory:
    """Bounds the bytes of all the bodies that a process holds at once. A body alone may be larger."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.reserved = 0
        self._lock = threading.Lock()

    def reserve(self, size: int, held: int) -> None:
        """Count `size` more bytes of a body of which `held` bytes are counted already; pair it with `release`.

        Raises:
            ApiError: too many are held (503).
        """
        with self._lock:
            if self.reserved + size > self.maximum and self.reserved > held:
                raise ApiError("too_many_bodies")
            self.reserved += size

    def release(self, size: int) -> None:
        """Count `size` bytes less."""
        if size:
            with self._lock:
                self.reserved -= size
