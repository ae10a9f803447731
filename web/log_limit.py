"""Bounds the log: a disk that the log fills takes no messages any more."""

import time
from collections.abc import Callable

SECONDS = 1.0  # between two lines of a kind


class LogLimit:
    """A line a second of each kind. The next one says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[str, tuple[float, int]] = {}  # kind -> when the last was logged, the number left out since

    def admit(self, kind: str) -> str | None:
        """Return what to append to a line of this kind; None if the line is to be left out."""
        now = self._clock()
        logged_at, left_out = self._lines.get(kind, (-SECONDS, 0))
        if now - logged_at < SECONDS:
            self._lines[kind] = logged_at, left_out + 1
            return None
        self._lines[kind] = now, 0
        return f" (and {left_out} more like it before)" if left_out else ""
