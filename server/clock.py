"""The time that this process has been running: it stands still while the process is stopped, frozen or asleep.

After `docker pause`, Ctrl-Z and `fg`, or a laptop's sleep, a client is not late because this process was not there.
"""

import time

MAX_GAP = 2.0  # seconds between two readings, which are made several times a second; in a longer one nothing ran


class RunningClock:
    """A monotonic clock that does not count gaps longer than MAX_GAP between two readings."""

    def __init__(self) -> None:
        self._read_at = time.monotonic()
        self._skipped = 0.0

    def now(self) -> float:
        """Return the time in seconds, since no particular moment."""
        now = time.monotonic()
        if now - self._read_at > MAX_GAP:
            self._skipped += now - self._read_at
        self._read_at = now
        return now - self._skipped


now = RunningClock().now  # of this process
