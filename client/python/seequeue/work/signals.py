"""SIGTERM stops the consumers and workers of the main thread. When the last of them has ended, it does what it did."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from seequeue.work import background

_stops: list[Callable[[], None]] = []
_before: Any = signal.SIG_DFL
_pid = 0


def _handle(number: int, frame: FrameType | None) -> None:
    if not _stops or _pid != os.getpid():  # they have ended in another thread, or this is a child of a fork
        signal.signal(number, _before)
        os.kill(os.getpid(), number)
        return
    for stop in list(_stops):
        background.later(stop)
    if callable(_before):  # of a server that they run in, such as uvicorn's
        _before(number, frame)


def start(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM, if this is the main thread: no other can handle signals."""
    global _before, _pid  # noqa: PLW0603 (a process has one handler)
    if threading.current_thread() is not threading.main_thread():
        return
    background.start()
    if _pid != os.getpid():
        _stops.clear()
    if not _stops:
        before = signal.getsignal(signal.SIGTERM)
        if before is not _handle:
            _before = signal.SIG_DFL if before is None else before
        signal.signal(signal.SIGTERM, _handle)
    _pid = os.getpid()
    _stops.append(stop)


def end(stop: Callable[[], None]) -> None:
    """Call `stop` no more. The last one restores the handler that was there before."""
    if stop not in _stops or _pid != os.getpid():
        return
    _stops.remove(stop)
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _handle
    if not _stops and is_ours:
        signal.signal(signal.SIGTERM, _before)


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGTERM within a `with` block."""
    start(stop)
    try:
        yield
    finally:
        end(stop)
