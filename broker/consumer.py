"""The loop of a Python consumer: reserve, work while the lease is kept alive, ack; release what failed."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import redis

from broker.refusals import error_text, is_passing
from broker.reliable import Delivery, ReliableQueue, Stale

STOP_INTERVAL = 1.0  # how often a waiting consumer checks whether to stop, seconds
RETRY_DELAY = 1.0  # seconds until the next try while Redis is away or refuses

log = logging.getLogger(__name__)


def consume(queue: ReliableQueue, *, lease: float = 30, wait: float = 20) -> Iterator[Delivery]:
    """Yield reserved messages until SIGTERM: `for message in consume(queue): ...`.

    A message is acked when the loop's body finishes. It is released, to be delivered again, when the body raises or
    leaves the loop (by `break` or `return`). Its lease of `lease` seconds is extended while the body runs; one wait on
    Redis lasts `wait` seconds at most. After the queue's `max_deliveries` it goes to the dead letters, `<name>.dead`.
    A Redis that is away, or refuses for a while (at a failover, while a script runs, when its disk is full), is waited
    for with a warning.

    Raises:
        ValueError: the lease is shorter than a second, or the wait is not positive.
        redis.RedisError: Redis refuses, and that does not pass: a wrong password, a key of another type.
    """
    if lease < 1 or wait <= 0:
        raise ValueError("consume needs a lease of at least 1 second and a wait of more than 0 seconds")
    return _consume(queue, lease, min(wait, STOP_INTERVAL))


def _consume(queue: ReliableQueue, lease: float, wait: float) -> Iterator[Delivery]:
    stop = threading.Event()
    with _StopOnSigterm(stop):
        while not stop.is_set():
            delivery = _next(queue, lease, wait)
            if delivery is None:
                continue
            with _LeaseKeeper(queue, delivery, lease):
                try:
                    yield delivery
                except GeneratorExit:  # the loop ended inside its body: by an exception, or by break
                    _retry(queue.release, delivery.id, seconds=lease)
                    raise
            _retry(queue.ack, delivery.id, seconds=lease)


def _next(queue: ReliableQueue, lease: float, wait: float) -> Delivery | None:
    """Return the next message; None when there was none for `wait` seconds, or Redis is away or refuses."""
    try:
        batch = queue.reserve(lease)
        if batch.messages:
            return batch.messages[0]
        queue.wait(min(wait, batch.next_due or wait), paused=batch.paused)
    except redis.RedisError as error:
        if not is_passing(error):
            raise
        log.warning("Redis is away or refuses (%s); trying again.", error_text(error))
        time.sleep(RETRY_DELAY)
    return None


def _retry(operation: Callable[[str], Any], id: str, *, seconds: float) -> None:
    """Ack or release, again while Redis is away or refuses, for as long as the lease can last.

    If a reply was lost, doing it twice is harmless.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            operation(id)
        except Stale:
            log.warning("The lease ended before the work did; the message was delivered again.")
        except redis.RedisError as error:
            if not is_passing(error):
                raise
            if time.monotonic() < end:
                log.warning("Redis is away or refuses (%s); trying again.", error_text(error))
                time.sleep(RETRY_DELAY)
                continue
            log.warning("Redis is still away; the message returns to the queue when its lease ends.")
        return


class _LeaseKeeper:
    """Extends a lease, a third of it before each end, while the loop's body runs."""

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
        delay = self.lease / 3
        while not self.done.wait(delay):
            delay = self.lease / 3
            try:
                self.queue.extend(self.delivery.id, self.lease)
            except Stale:
                return
            except redis.RedisError as error:
                log.warning("The lease was not extended: %s", error_text(error))
                delay = min(delay, RETRY_DELAY)


class _StopOnSigterm:
    """Sets an event on SIGTERM, in the main thread; elsewhere there is no signal to handle."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.in_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self.in_main_thread:
            self.before = signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        if isinstance(outer := getattr(self.before, "__self__", None), _StopOnSigterm):
            outer._handle(number, frame)  # one loop in the body of another: both end

    def __exit__(self, *_: object) -> None:
        if self.in_main_thread and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
