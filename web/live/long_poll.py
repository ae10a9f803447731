"""Long polling. All clients of this process that wait on a queue share one blocked Redis connection.

Waiting never removes a message. The first client in line blocks on `BLMOVE key key RIGHT RIGHT`, which returns once the
list is non-empty and leaves it unchanged. If that client is still connected, we then pop a message for it. So a client
that disconnects never takes a message with it; the next in line continues.

The number of connections that block is limited. When all are in use, the first client in line waits for a change
notification of its queue instead (`broker/changes/notifications.py`). It retries every second in any case, also when
Redis accepts no more connections.
"""

import contextlib
import logging
import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import redis

from broker.changes.notifications import Tracker
from broker.changes.sweeper import Timer
from broker.connections.errors import NotSent, Recovery, find_fault, is_transient, needs_reconnect
from broker.queue import Batch, Paused, ReliableQueue, Result
from web.live.disconnects import ClientConnection
from web.live.wait import Slots, Waiter

MAX_WAIT = 60.0  # seconds, the longest wait that a request can ask for
ANSWER_TIMEOUT = 54.0  # seconds after which it is answered all the same: proxies cut off what is silent for 60
BLOCK_SECONDS = 1.0  # of one BLMOVE, during which a disconnect and a stop go unnoticed
RESULT_POLL_INTERVAL = 0.25  # seconds between two reads of a result where no notices arrive
REPORT_INTERVAL = 0.1  # seconds between two checks for a number of waiting clients that has changed
REPORT_TTL = 30.0  # seconds until a reported number expires unless it is reported again

M = TypeVar("M", bound=bytes)

log = logging.getLogger(__name__)


class Waiters:
    """The clients of this process that wait on one queue, in order of arrival."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.order: deque[Waiter] = deque()
        self.reported = 0  # the number of waiters that Redis has
        self.reported_at = 0.0

    @property
    def first(self) -> Waiter:
        """The one that looks for messages; the others wait until it has left."""
        return self.order[0]


class LongPoll:
    """The requests of one process that wait for a message or for a result."""

    def __init__(
        self, client: Any, slots: Slots, is_stopping: Callable[[], bool], tracker: Tracker, timer: Timer
    ) -> None:
        """`client` is a Redis client for commands that block."""
        self.client = client
        self.slots = slots
        self.is_stopping = is_stopping
        self.tracker = tracker
        self.timer = timer
        self._queues: dict[str, Waiters] = {}
        self._lock = threading.Lock()
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._reporter: threading.Thread | None = None

    def take(
        self,
        queue: ReliableQueue,
        seconds: float,
        attempt: Callable[[], Batch[M]],
        give_back: Callable[[list[M]], object] | None,
        client: ClientConnection,
    ) -> list[M]:
        """Return the messages from `attempt`, waiting up to `seconds` (capped at 54); an empty list if none arrived.

        What was taken for a client that has disconnected is given back. Without `give_back` it is kept for the client's
        next try.

        Raises:
            ApiError: too many clients are waiting (429).
            Paused: the queue is paused, and was not resumed in time.
        """
        if seconds and client.is_disconnected():
            return []
        batch = attempt()
        if seconds and not batch.messages:
            batch = self._wait_and_take(queue, seconds, attempt, client, batch)
        if batch.paused:
            raise Paused
        if seconds and batch.messages and give_back and client.confirm_disconnected():
            give_back(batch.messages)
            return []
        return batch.messages

    def result(self, queue: ReliableQueue, job: str, seconds: float, client: ClientConnection) -> Result | None:
        """Return the result of a job, waiting up to `seconds` for it (capped at 54); None if there is none.

        Raises:
            ApiError: too many clients are waiting (429).
        """
        result = queue.result(job)
        if result or not seconds:
            return result
        key = queue.result_key(job)
        with self._hold(client, seconds) as waiter:
            self.timer.subscribe(key, waiter.wake)  # before the next look, so that none is missed
            try:
                while not (result := queue.result(job)) and waiter.is_waiting():
                    waiter.wait(math.inf if self.timer.is_live else RESULT_POLL_INTERVAL)
                return result
            finally:
                self.timer.unsubscribe(key, waiter.wake)

    @contextlib.contextmanager
    def _hold(self, client: ClientConnection, seconds: float) -> Iterator[Waiter]:
        with self.slots, Waiter(client, self.is_stopping, min(seconds, ANSWER_TIMEOUT)) as waiter:
            yield waiter

    # --- waiting for a message

    def _wait_and_take(
        self,
        queue: ReliableQueue,
        seconds: float,
        attempt: Callable[[], Batch[M]],
        client: ClientConnection,
        batch: Batch[M],
    ) -> Batch[M]:
        """Return the batch of the first attempt that takes messages, else of the last; `batch` is that of the first."""
        with self._hold(client, seconds) as waiter, self._join(queue, waiter) as waiters:
            while waiter.is_waiting():
                if waiters.first is not waiter:
                    waiter.wait()
                    continue
                self._block(waiters, waiter, batch)
                if client.is_disconnected():
                    break
                batch = _attempt(attempt)
                if batch.messages:
                    break
            return batch

    def _block(self, waiters: Waiters, waiter: Waiter, last: Batch[M]) -> None:
        """Return when the queue may hold a message, or after BLOCK_SECONDS. The last attempt says what to wait for.

        Raises:
            NotSent: the connection broke. Nothing was taken, so no outcome is unknown.
        """
        seconds = min(waiter.seconds_left, BLOCK_SECONDS, last.next_due or BLOCK_SECONDS)
        try:
            waiters.queue.wait(seconds, self.client, last.paused)
        except redis.MaxConnectionsError:
            self._wait_for_change(waiters.queue, waiter, seconds)
        except redis.RedisError as error:
            fault = find_fault(error)
            if fault and fault.recovery is not Recovery.REPAIR:
                waiter.wait(seconds)  # the next attempt shows whether it has passed
            elif isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and is_transient(error):
                raise NotSent(str(error)) from error
            else:
                raise

    def _wait_for_change(self, queue: ReliableQueue, waiter: Waiter, seconds: float) -> None:
        subscription = self.tracker.subscribe(queue, waiter.wake)
        try:
            waiter.wait(seconds)
        finally:
            self.tracker.unsubscribe(subscription)

    @contextlib.contextmanager
    def _join(self, queue: ReliableQueue, waiter: Waiter) -> Iterator[Waiters]:
        with self._lock:
            waiters = self._queues.setdefault(queue.key, Waiters(queue))
            waiters.order.append(waiter)
            if self._reporter is None:
                self._reporter = threading.Thread(target=self._report_loop, daemon=True, name="report-waiters")
                self._reporter.start()
        try:
            yield waiters
        finally:
            with self._lock:
                waiters.order.remove(waiter)
                if waiters.order:
                    waiters.first.wake()

    # --- reporting the number of waiting clients

    def _report_loop(self) -> None:
        """Report the number of waiting clients to Redis, as long as there are any."""
        while True:
            with self._lock:
                kept = {key: waiters for key, waiters in self._queues.items() if waiters.order or waiters.reported}
                self._queues = kept
                if not kept:
                    self._reporter = None
                    return
                numbers = [(waiters, len(waiters.order)) for waiters in kept.values()]
            for waiters, number in numbers:
                self._report(waiters, number)
            time.sleep(REPORT_INTERVAL)

    def _report(self, waiters: Waiters, number: int) -> None:
        now = time.monotonic()
        if number == waiters.reported and now - waiters.reported_at <= REPORT_TTL / 3:
            return
        waiters.reported, waiters.reported_at = number, now
        try:
            waiters.queue.report_waiters(self._process, number, REPORT_TTL)
        except redis.RedisError:  # the next round reports again; the last report expires by itself
            waiters.reported_at = now - REPORT_TTL
        except Exception:  # whatever it is, the reports of all other queues depend on going on
            log.exception("Could not report the number of clients that wait on %s", waiters.queue.name)
            waiters.reported_at = now - REPORT_TTL


def _attempt(attempt: Callable[[], Batch[M]]) -> Batch[M]:
    """Attempt to take messages; once more if this server took none because another may have taken over."""
    try:
        return attempt()
    except redis.RedisError as error:
        if not needs_reconnect(error):
            raise
        return attempt()
