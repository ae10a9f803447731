"""The consumer loop: reserve a message, extend its lease while it is processed, then ack it or schedule a retry."""

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import redis

from broker.connections.errors import error_text, is_transient
from broker.models import Delivery, LeaseExpired
from broker.queue import ReliableQueue

STOP_INTERVAL = 1.0  # how often a waiting consumer checks whether to stop, seconds
RETRY_DELAY = 1.0  # seconds until the next try while Redis is unavailable or refuses commands
MAX_BACKOFF = 3600.0  # seconds
MAX_DELAY = 2_592_000.0  # seconds, 30 days
MAX_REASON = 1000  # characters

RetryDelay = float | Callable[[int], float]

log = logging.getLogger(__name__)


class Reject(Exception):
    """Raise it for a message that can never succeed: it is buried at once, with this text as the reason."""


class Message(Delivery):
    """A message to process. An error in the body of `with message:` is logged, and the message is retried later.

    Set `result` to store the result of a job for its producer, in one step with the ack.
    """

    result: tuple[str, bytes] | None = None  # the name of the job, and its result
    error: Exception | None = None  # what the body raised

    def __enter__(self) -> "Message":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = error
        return True


def backoff(deliveries: int) -> float:
    """Return the number of seconds until a retry: 1 to 2 after the first delivery, doubling each time, an hour at most.

    The delay is random, so that messages that failed together are not retried together.
    """
    return min(MAX_BACKOFF, 2.0 ** min(deliveries, 30)) * random.uniform(0.5, 1)


def consume(
    queue: ReliableQueue, *, lease: float = 30, wait: float = 20, retry_delay: RetryDelay = backoff
) -> Iterator[Message]:
    """Yield reserved messages until SIGTERM.

        for message in consume(queue):
            with message:
                work(message)

    A message is acked when the loop's body finishes. If the body of `with message:` raises an error, the message is
    delivered again after `retry_delay`: seconds, or a function of the number of deliveries. The error becomes the
    reason, such as "ValueError: text". After the queue's `max_deliveries`, or at once for a `Reject`, the message goes
    to the dead letters, `<name>.dead`. An error outside of `with message:`, `break` or `return` ends the loop and
    releases the message, which is then delivered again at once.

    The lease of `lease` seconds is extended while the body runs; one wait on Redis lasts `wait` seconds at most. While
    Redis is unavailable, or refuses commands for a time (a failover, a running script, a full disk), the loop logs
    warnings and retries.

    Raises:
        ValueError: the lease is shorter than a second, or the wait is not positive, or a delay is negative.
        redis.RedisError: Redis refuses commands for a lasting reason: a wrong password, or a key of another type.
    """
    if lease < 1 or wait <= 0:
        raise ValueError("consume needs a lease of at least 1 second and a wait of more than 0 seconds")
    if not callable(retry_delay) and retry_delay < 0:
        raise ValueError("consume needs a retry_delay of 0 seconds or more")
    return _consume(queue, lease, min(wait, STOP_INTERVAL), retry_delay)


def _consume(queue: ReliableQueue, lease: float, wait: float, retry_delay: RetryDelay) -> Iterator[Message]:
    stop = threading.Event()
    with _StopOnSigterm(stop):
        while not stop.is_set():
            delivery = _next(queue, lease, wait)
            if delivery is None:
                continue
            message = Message(delivery)
            vars(message).update(vars(delivery))
            with _LeaseKeeper(queue, delivery, lease):
                try:
                    yield message
                except GeneratorExit:  # the loop ended inside its body: by an exception, or by break
                    _retry(partial(queue.release, message.id, reason="the consumer left its loop"), seconds=lease)
                    raise
            _retry(partial(_end, queue, message, retry_delay), seconds=lease)


def _end(queue: ReliableQueue, message: Message, retry_delay: RetryDelay) -> None:
    """Ack a message that succeeded, bury one that was rejected, and release one that failed for a later retry."""
    error = message.error
    if error is None:
        if message.result:
            queue.ack_with(message.id, *message.result)
        else:
            queue.ack(message.id)
        return
    reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
    if isinstance(error, Reject):
        log.warning("A message was rejected: %s", reason)
        queue.release(message.id, dead=True, reason=reason)
        return
    delay = retry_delay(message.deliveries) if callable(retry_delay) else retry_delay
    log.warning("Delivery %d of a message failed: %s", message.deliveries, reason, exc_info=error)
    queue.release(message.id, delay=max(0.0, min(delay, MAX_DELAY)), reason=reason)


def _next(queue: ReliableQueue, lease: float, wait: float) -> Delivery | None:
    """Return the next message; None if none came in `wait` seconds, or Redis is unavailable or refuses commands."""
    try:
        batch = queue.reserve(lease)
        if batch.messages:
            return batch.messages[0]
        seconds = batch.retry_after or batch.next_due or wait
        queue.wait(min(wait, seconds), paused=batch.paused or batch.limited)
    except redis.RedisError as error:
        if not is_transient(error):
            raise
        log.warning("Redis is unavailable or refuses commands (%s); retrying.", error_text(error))
        time.sleep(RETRY_DELAY)
    return None


def _retry(operation: Callable[[], Any], *, seconds: float) -> None:
    """Ack or release, and retry while Redis is unavailable or refuses commands, for as long as the lease can last.

    Repeating it after a lost reply is harmless.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            operation()
        except LeaseExpired:
            log.warning("The lease ended before the work was done, so the message is delivered again.")
        except redis.RedisError as error:
            if not is_transient(error):
                raise
            if time.monotonic() < end:
                log.warning("Redis is unavailable or refuses commands (%s); retrying.", error_text(error))
                time.sleep(RETRY_DELAY)
                continue
            log.warning("Redis is still unavailable; the message returns to the queue when its lease ends.")
        return


class _LeaseKeeper:
    """Extends a lease each time a third of it has passed, while the loop's body runs."""

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
            except LeaseExpired:
                return
            except redis.RedisError as error:
                log.warning("The lease was not extended: %s", error_text(error))
                delay = min(delay, RETRY_DELAY)


class _StopOnSigterm:
    """Sets an event on SIGTERM. Only the main thread can handle signals; in any other, it does nothing."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.in_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self.in_main_thread:
            self.before = signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()
        if isinstance(outer := getattr(self.before, "__self__", None), _StopOnSigterm):
            outer._handle(number, frame)  # nested loops: both end

    def __exit__(self, *_: object) -> None:
        if self.in_main_thread and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
