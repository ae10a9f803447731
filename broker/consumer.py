"""The loop of a Python consumer: reserve, work while the lease is kept alive, ack; give back what failed."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import redis

from broker.reliable import Delivery, ReliableQueue, Stale

TICK = 1.0  # seconds after which a waiting consumer looks whether it is to stop
AGAIN = 1.0  # seconds until the next try while Redis is away

AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)  # what passes, a failover too

log = logging.getLogger(__name__)


def consume(queue: ReliableQueue, lease: float, wait: float) -> Iterator[Delivery]:
    """Yield messages to a `for` loop until SIGTERM; see `RedisQueue.consume`."""
    if lease < 1 or wait <= 0:
        raise ValueError("consume needs a lease of at least 1 second and a wait of more than 0 seconds")
    stop = threading.Event()
    with _stopped_by_sigterm(stop):
        while not stop.is_set():
            delivery = _next(queue, lease, min(wait, TICK))
            if delivery is None:
                continue
            with _Kept(queue, delivery, lease):
                try:
                    yield delivery
                except GeneratorExit:  # the loop ended inside its body: by an exception, or by break
                    _surely(lambda: queue.release(delivery.id), lease)  # noqa: B023
                    raise
            _surely(lambda: queue.ack(delivery.id), lease)  # noqa: B023


def _next(queue: ReliableQueue, lease: float, wait: float) -> Delivery | None:
    """Return the next message, or None when there was none, or no Redis, for `wait` seconds."""
    try:
        taken = queue.reserve(lease)
        if taken.messages:
            delivery: Delivery = taken.messages[0]
            return delivery
        queue.wait(min(wait, taken.due or wait))
    except AWAY as error:
        log.warning("Redis is away (%s); trying again.", error)
        time.sleep(AGAIN)
    return None


def _surely(act: Callable[[], Any], seconds: float) -> None:
    """Ack or release: repeat what may have got lost, which is harmless, for as long as the lease can last."""
    end = time.monotonic() + seconds
    while True:
        try:
            act()
        except Stale:
            log.warning("The lease ran out before the work was done; the message was given to the next.")
        except AWAY as error:
            if time.monotonic() < end:
                log.warning("Redis is away (%s); trying again.", error)
                time.sleep(AGAIN)
                continue
            log.warning("Redis is away; the message comes back when its lease ends.")
        return


class _Kept:
    """Extends a lease, a third of it before each end, while the body of the loop runs."""

    def __init__(self, queue: ReliableQueue, delivery: Delivery, lease: float) -> None:
        self.queue, self.delivery, self.lease = queue, delivery, lease
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._extend, daemon=True, name="extend-lease")

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _extend(self) -> None:
        while not self.done.wait(self.lease / 3):
            try:
                self.queue.extend(self.delivery.id, self.lease)
            except Stale:
                return
            except redis.RedisError as error:
                log.warning("The lease was not extended: %s", error)


class _stopped_by_sigterm:
    """Sets an event on SIGTERM, in the main thread; elsewhere there is no signal to handle."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self.main:
            self.before = signal.signal(signal.SIGTERM, self._told)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        if isinstance(outer := getattr(self.before, "__self__", None), _stopped_by_sigterm):
            outer._told(number, frame)  # one loop in the body of another: both end

    def __exit__(self, *_: object) -> None:
        if self.main and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
