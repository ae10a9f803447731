"""A thread for what the handler of a signal, or a finalizer, must not do: it may interrupt the holder of a lock."""

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger("seequeue")

_calls: "SimpleQueue[Callable[[], object]]" = SimpleQueue()  # its put can be called from a handler
_pid = 0


def start() -> None:
    """Start the thread, if this process has none."""
    global _calls, _pid
    if _pid != os.getpid():
        _calls, _pid = SimpleQueue(), os.getpid()
        threading.Thread(target=_run, args=(_calls,), daemon=True, name="seequeue-background").start()


def later(call: Callable[[], object]) -> None:
    """Let the thread call a function soon."""
    _calls.put(call)


def _run(calls: "SimpleQueue[Callable[[], object]]") -> None:
    while True:
        try:
            calls.get()()
        except Exception:
            log.exception("A consumer was not ended.")
