"""The job of the Python programs. It does nothing, except that it reports on standard output how fast such jobs are."""

import itertools
import os
import time

JOBS = int(os.environ.get("JOBS", "0"))  # enqueued before the worker started
_numbers = itertools.count()  # next() is atomic
_first = 0


def job(sent: int) -> None:
    """Report the jobs per second after JOBS of them; or the nanoseconds since `sent`, unless it is 0."""
    global _first  # noqa: PLW0603
    now = time.monotonic_ns()
    if sent:
        os.write(1, b"%d\n" % (now - sent))
        return
    number = next(_numbers)
    if number == 0:
        _first = now
    elif number == JOBS - 1:
        os.write(1, b"%f\n" % (number / (now - _first) * 1e9))
