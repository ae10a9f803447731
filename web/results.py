"""Waiting for the result of a job. The timer hears of every result, so waiting costs Redis nothing."""

import threading
import time
from collections.abc import Callable

from broker.reliable import ReliableQueue, Result
from broker.timer import Timer
from web.peer import Peer
from web.waiting import ANSWER_TIMEOUT, Waiting

POLL_INTERVAL = 0.25  # seconds between two looks where no notices come


def wait_for_result(
    queue: ReliableQueue,
    job: str,
    seconds: float,
    peer: Peer,
    waiting: Waiting,
    timer: Timer,
    is_stopping: Callable[[], bool],
) -> Result | None:
    """Return the result of a job, waiting up to `seconds` for it (at most 54); None when there was none.

    Raises:
        ApiError: too many clients wait (429).
    """
    result = queue.result(job)
    if result or not seconds:
        return result
    key, stored = queue.result_key(job), threading.Event()
    waiting.acquire()
    timer.subscribe(key, stored.set)
    try:
        with peer.watch(stored.set) as interval:
            end = time.monotonic() + min(seconds, ANSWER_TIMEOUT)
            while True:
                stored.clear()
                result = queue.result(job)  # after `subscribe`, so that none is missed
                left = end - time.monotonic()
                if result or left <= 0 or is_stopping() or peer.is_gone():
                    return result
                stored.wait(min(left, interval, interval if timer.is_live else POLL_INTERVAL))
    finally:
        timer.unsubscribe(key, stored.set)
        waiting.release()
