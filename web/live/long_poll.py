"""Long polling. All clients of this process that wait on a queue share one blocked Redis connection.

Waiting never removes a message. The first client in line blocks on `BLMOVE key key RIGHT RIGHT`, which returns once the
list is non-empty and leaves it unchanged. If that client is still connected, we then pop a message for it. So a client
that disconnects never takes a message with it; the next in line continues. After a pop that took a message, it tries to
pop before it blocks: a push of many messages serves many clients.

A queue is quiet once it has had no message for a second. Then the first client in line frees the connection and waits
for a change notification (`broker/changes/notifications.py`); it retries every 30 seconds, in case one was lost. If all
connections for blocking are in use, it does the same. Where Redis sends no notifications, the first client keeps
blocking, for a second at a time.

A queue whose limits are reached is quiet at once, and its list is not watched: the first client tries again when a
reservation ends, when the rate allows another message, or when the settings change.
"""

import contextlib
import logging
import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import redis

from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.connections.errors import NotSent, Recovery, find_fault, is_transient, needs_reconnect
from broker.models import Batch, Limited, Paused, Result
from broker.queue import ReliableQueue
from web.live.disconnects import ClientConnection
from web.live.wait import Slots, Waiter

MAX_WAIT = 60.0  # seconds, the longest wait that a request can ask for
ANSWER_TIMEOUT = 54.0  # seconds after which any wait is answered: proxies cut off answers that are silent for 60
BLOCK_SECONDS = 1.0  # of one BLMOVE, and until a queue without a message is quiet
QUIET_RETRY_INTERVAL = 30.0  # seconds between two attempts on a quiet queue, in case a notification was lost
WATCHED_KEYS = ("reserved", "delayed", "paused", "settings")  # beside the list of a quiet queue
RESULT_POLL_INTERVAL = 0.25  # seconds between two reads of a result where Redis sends no notices
REPORT_INTERVAL = 0.1  # seconds between two checks whether the number of waiting clients has changed
REPORT_TTL = 30.0  # seconds until a reported number expires unless it is reported again

M = TypeVar("M", bound=bytes)

log = logging.getLogger(__name__)


class Waiters:
    """The clients of this process that wait on one queue, in order of arrival."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.order: deque[Waiter] = deque()
        # The keys whose changes can make an attempt worthwhile.
        self.keys = [queue.key.encode(), *((queue.key_prefix + name).encode() for name in WATCHED_KEYS)]
        self.idle_since = time.monotonic()  # when the last message was taken
        self.may_have_more = False  # whether the last attempt took messages: then the next one need not block first
        self.is_quiet = False  # then changes of these keys are notified
        self.is_limited = False  # whether the last attempt found the limits reached: then pushes are ignored
        self.changes = 0  # the number of notifications,
        self.tried_changes = 0  # and of those before the last attempt
        self.retry_at = 0.0  # when to attempt again without a notification, monotonic
        self.reported = 0  # the number of waiters last reported to Redis
        self.reported_at = 0.0

    @property
    def first(self) -> Waiter:
        """The waiter that attempts to take messages."""
        return self.order[0]

    def retry_delay(self) -> float:
        """Return the seconds until the next attempt on a quiet queue."""
        return self.retry_at - time.monotonic() if self.changes == self.tried_changes else 0.0


class LongPoll:
    """The requests of one process that wait for a message or for a result."""

    def __init__(
        self, client: Any, slots: Slots, is_stopping: Callable[[], bool], tracker: ChangeNotifications, timer: Sweeper
    ) -> None:
        """`client` is a Redis client for commands that block."""
        self.client = client
        self.slots = slots
        self.is_stopping = is_stopping
        self.tracker = tracker
        self.timer = timer
        self._queues: dict[str, Waiters] = {}
        self._quiet: dict[bytes, Waiters] = {}  # by each of their keys
        self._lock = threading.RLock()
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._reporter: threading.Thread | None = None

    def take(
        self,
        queue: ReliableQueue,
        seconds: float,
        attempt: Callable[[], Batch[M]],
        give_back: Callable[[list[M]], object] | None,
        client: ClientConnection,
    ) -> Batch[M]:
        """Return the batch from `attempt`, waiting up to `seconds` (capped at 54) for one that has messages.

        Messages that were taken for a client that has disconnected go to `give_back`. Without it they are kept for the
        client's next request.

        Raises:
            ApiError: too many clients are waiting (429).
            Paused: the queue is paused, and was not resumed in time.
            Limited: the limits of the queue are reached, and no message was allowed in time.
        """
        if seconds and client.is_disconnected():
            return Batch([])
        batch = attempt()
        if seconds and not batch.messages:
            batch = self._wait_and_take(queue, seconds, attempt, client, batch)
        if batch.paused:
            raise Paused
        if batch.limited:
            raise Limited(batch.retry_after)
        if seconds and batch.messages and give_back and client.confirm_disconnected():
            give_back(batch.messages)
            return Batch([])
        return batch

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
            self.timer.subscribe(key, waiter.wake)  # before reading again, so that no notice is missed
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
        """Attempt until a batch has messages or the wait ends; return the last batch. `batch` is the first one."""
        with self._hold(client, seconds) as waiter, self._join(queue, waiter) as waiters:
            while not batch.messages and waiter.is_waiting():
                if waiters.first is not waiter:
                    waiter.wait()
                elif not (waiters.is_quiet and self.tracker.is_live):
                    if not waiters.may_have_more:
                        self._block(waiters, waiter, batch)
                    if not client.is_disconnected():
                        batch = self._attempt(waiters, attempt)
                elif (delay := waiters.retry_delay()) > 0:
                    waiter.wait(delay)
                else:
                    batch = self._attempt(waiters, attempt)
            return batch

    def _attempt(self, waiters: Waiters, attempt: Callable[[], Batch[M]]) -> Batch[M]:
        """Attempt to take messages; retry once if the server refused because another may have taken over."""
        changes = waiters.changes
        waiters.may_have_more = waiters.is_limited = False  # also after an error
        try:
            batch = attempt()
        except redis.RedisError as error:
            if not needs_reconnect(error):
                raise
            batch = attempt()
        now = time.monotonic()
        waiters.may_have_more = bool(batch.messages)
        waiters.is_limited = batch.limited
        waiters.tried_changes = changes
        waiters.retry_at = now + _until_due(batch, QUIET_RETRY_INTERVAL)
        if batch.messages:
            waiters.idle_since = now
            self._set_quiet(waiters, False)
        elif now - waiters.idle_since >= BLOCK_SECONDS:
            self._set_quiet(waiters, True)
        return batch

    def _block(self, waiters: Waiters, waiter: Waiter, last: Batch[M]) -> None:
        """Return when the queue may hold a message, or after BLOCK_SECONDS. `last` is the batch of the last attempt.

        Raises:
            NotSent: the connection broke. Nothing was taken, so no outcome is unknown.
        """
        seconds = min(waiter.seconds_left, _until_due(last, BLOCK_SECONDS))
        if last.limited:
            self._wait_quietly(waiters, waiter, seconds)
            return
        try:
            waiters.queue.wait(seconds, self.client, last.paused)
        except redis.MaxConnectionsError:  # no connection is left
            self._wait_quietly(waiters, waiter, seconds)
        except redis.RedisError as error:
            fault = find_fault(error)
            if fault and fault.recovery is not Recovery.REPAIR:
                waiter.wait(seconds)  # the next attempt shows whether the fault has passed
            elif isinstance(error, redis.TimeoutError) and not isinstance(error, NotSent):
                pass  # both may have been paused; if the server hangs, the next attempt finds out and sends nothing
            elif isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and is_transient(error):
                raise NotSent(str(error)) from error
            else:
                raise

    def _wait_quietly(self, waiters: Waiters, waiter: Waiter, seconds: float) -> None:
        """Receive notifications for a queue; while there are none, wait without a connection."""
        self._set_quiet(waiters, True)
        if not self.tracker.is_live:
            waiter.wait(seconds)

    def _set_quiet(self, waiters: Waiters, is_quiet: bool) -> None:
        """Start or stop receiving notifications for a queue."""
        with self._lock:
            if is_quiet == waiters.is_quiet:
                return
            had_any = bool(self._quiet)
            waiters.is_quiet = is_quiet
            waiters.changes += 1  # an attempt must follow: changes until now were not notified
            for key in waiters.keys:
                if is_quiet:
                    self._quiet[key] = waiters
                else:
                    del self._quiet[key]
            if bool(self._quiet) != had_any:
                (self.tracker.unobserve if had_any else self.tracker.observe)(self._record_changes)

    def _record_changes(self, keys: Iterable[bytes] | None) -> None:
        """Wake the first client of each queue that has one of these keys; of every queue if the keys are not known."""
        with self._lock:
            for key in list(self._quiet) if keys is None else keys:
                waiters = self._quiet.get(key)
                if waiters and not (waiters.is_limited and keys and key == waiters.keys[0]):
                    waiters.changes += 1
                    waiters.first.wake()

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
                else:
                    self._set_quiet(waiters, False)

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
        except redis.RedisError:  # the next round reports again; meanwhile the last report expires
            waiters.reported_at = now - REPORT_TTL
        except Exception:  # keep going: the reports of all other queues depend on this loop
            log.exception("Could not report the number of clients that wait on %s", waiters.queue.name)
            waiters.reported_at = now - REPORT_TTL


def _until_due(batch: Batch[M], most: float) -> float:
    """Return the seconds until a lease or a delay ends, at most `most`."""
    return most if batch.next_due is None else min(most, batch.next_due)
