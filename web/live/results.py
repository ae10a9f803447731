"""Waiting for the result of a job. The timer hears of every result, so waiting costs Redis nothing."""

import threading
import time

from broker.models import Result
from broker.queue import ReliableQueue
from web.live.disconnects import Peer
from web.live.long_poll import ANSWER_TIMEOUT
from web.request import Request

POLL_INTERVAL = 0.25  # seconds between two looks where no notices come


def wait_for_result(request: Request, queue: ReliableQueue, job: str, seconds: float) -> Result | None:
    """Return the result of a job, waiting up to `seconds` for it (at most 54); None when there was none.

    Raises:
        ApiError: too many clients wait (429).
    """
    result = queue.result(job)
    if result or not seconds:
        return result
    shared, peer = request.services, Peer(request.environ)
    key, stored = queue.result_key(job), threading.Event()
    shared.waiting.acquire()
    shared.timer.subscribe(key, stored.set)
    try:
        with peer.watch(stored.set) as interval:
            end = time.monotonic() + min(seconds, ANSWER_TIMEOUT)
            while True:
                stored.clear()
                result = queue.result(job)  # after `subscribe`, so that none is missed
                left = end - time.monotonic()
                if result or left <= 0 or shared.is_stopping() or peer.is_gone():
                    return result
                stored.wait(min(left, interval, interval if shared.timer.is_live else POLL_INTERVAL))
    finally:
        shared.timer.unsubscribe(key, stored.set)
        shared.waiting.release()
