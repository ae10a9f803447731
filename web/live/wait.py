"""Requests that are held open, and the limit on their number."""

import math
import threading
import time
from collections.abc import Callable

from web.errors import ApiError
from web.live.disconnects import ClientConnection


class Slots:
    """The long-lived requests of one process, blocked clients and event streams: at most `maximum` of them."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.used = 0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Reserve a slot for a long-lived request. Call `release` when it ends.

        Raises:
            ApiError: all slots are in use (429).
        """
        with self._lock:
            if self.used >= self.maximum:
                raise ApiError("too_many_blocked_clients", limit=self.maximum)
            self.used += 1

    def release(self) -> None:
        """Free a slot."""
        with self._lock:
            self.used -= 1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Waiter:
    """A request that waits for news: until its client disconnects, its time is up, or the worker stops.

    Loop in a `with` block while `is_waiting`, and call `wait` in each round.
    """

    def __init__(self, client: ClientConnection, is_stopping: Callable[[], bool], seconds: float = math.inf) -> None:
        self.client = client
        self._is_stopping = is_stopping
        self._deadline = time.monotonic() + seconds
        self._woken = threading.Event()
        self.wake = self._woken.set  # ends `wait`; to be called from any thread

    def __enter__(self) -> "Waiter":
        self._check_interval = self.client.watch(self.wake)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.unwatch()

    @property
    def seconds_left(self) -> float:
        """Seconds until its time is up."""
        return self._deadline - time.monotonic()

    def is_waiting(self) -> bool:
        """Return whether there is time left, the client is still connected, and the worker is not stopping."""
        return self.seconds_left > 0 and not self._is_stopping() and not self.client.is_disconnected()

    def wait(self, seconds: float = math.inf) -> None:
        """Return when woken, after `seconds`, or earlier, when it is time to check `is_waiting`."""
        self._woken.wait(max(0.0, min(seconds, self.seconds_left, self._check_interval)))
        self._woken.clear()
