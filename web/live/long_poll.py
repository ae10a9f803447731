"""Long polling. All clients of this process that wait on a queue share one blocked Redis connection.

Waiting never removes a message. The first client in line blocks on `BLMOVE key key RIGHT RIGHT`, which returns once the
list is non-empty and leaves it unchanged. If that client is still connected, we then pop a message for it. So a client
that disconnects never takes a message with it; the next in line continues. After a pop that took a message, it tries to
pop before it blocks: a push of many messages serves many clients.

A queue is quiet once it has had no message for a second. Then the first client in line frees the connection and waits
for a change notification (`broker/changes/notifications.py`); it retries every 30 seconds, in case one was lost. If all
connections for blocking are in use, it does the same. Where Redis sends no notifications, the first client keeps
blocking, for a second at a time.

A client that waits on several queues is in the line of each. It blocks on none of them: where it is the first in line,
it waits for notifications at once. So each request has one attempt at a time, whichever of its queues has news.

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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import redis

from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.connections.errors import NotSent, Recovery, find_fault, is_transient, needs_reconnect
from broker.models import Batch, Result
from broker.queue import ReliableQueue
from web.live.disconnects import ClientConnection
from web.live.wait import Slots, Waiter

MAX_WAIT = 60.0  # seconds, the longest wait that a request can ask for
ANSWER_TIMEOUT = 54.0  # seconds after which any wait is answered: proxies cut off answers that are silent for 60
BLOCK_SECONDS = 1.0  # of one BLMOVE, and until a queue without a message is quiet
QUIET_RETRY_INTERVAL = 30.0  # seconds between two attempts on a quiet queue, in case a notification was lost
WATCHED_KEYS = ("paused", "settings", "reserved", "delayed")  # beside the list of a quiet queue
POLL_INTERVAL = 0.25  # seconds between two reads of a result, or of several queues, where Redis sends no notices
LINGER_SECONDS = 5.0  # for which notifications go on when nobody waits: most clients soon wait again
REPORT_INTERVAL = 0.1  # seconds between two checks whether the number of waiting clients has changed
REPORT_TTL = 30.0  # seconds until a reported number expires unless it is reported again

M = TypeVar("M", bound=bytes)
Attempt = Callable[[ReliableQueue], Batch[M]]

log = logging.getLogger(__name__)


class Waiters:
    """The clients of this process that wait on one queue, in order of arrival."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.order: deque[Waiter] = deque()
        self.names: dict[str, int] = {}  # -> the number of them that have this name, "" for none
        # The keys whose changes can make an attempt worthwhile.
        self.keys = [queue.key.encode(), *((queue.key_prefix + name).encode() for name in WATCHED_KEYS)]
        self.watched_keys: list[bytes] = []  # those that are notified now
        self.idle_since = time.monotonic()  # when the last message was taken
        self.may_have_more = False  # whether the last attempt took messages: then the next one need not block first
        self.left_at = 0.0  # when the last of them left, monotonic
        self.is_quiet = False  # then changes of `watched_keys` are notified
        self.is_limited = False  # whether the last attempt found the limits reached: then pushes are ignored
        self.changes = 0  # the number of notifications,
        self.tried_changes = 0  # and of those before the last attempt
        self.retry_at = 0.0  # when to attempt again without a notification, monotonic
        self.reported: dict[str, int] = {}  # the names last reported to Redis
        self.reported_at = 0.0

    @property
    def first(self) -> Waiter:
        """The waiter that attempts to take messages."""
        return self.order[0]

    def ignores(self, key: bytes) -> bool:
        """Return whether a change of a key makes no attempt worthwhile: a push while the limits are reached."""
        return self.is_limited and key == self.keys[0]

    def retry_delay(self) -> float:
        """Return the seconds until the next attempt on a quiet queue."""
        is_due = self.may_have_more or self.changes != self.tried_changes
        return 0.0 if is_due else self.retry_at - time.monotonic()


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
        queues: Sequence[ReliableQueue],
        seconds: float,
        attempt: Attempt[M],
        give_back: Callable[[ReliableQueue, list[M]], object] | None,
        client: ClientConnection,
        by: str = "",
    ) -> tuple[ReliableQueue, Batch[M]]:
        """Return the batch from `attempt`, waiting up to `seconds` (capped at 54) for one that has messages.

        It comes from the first of the queues that gives any, and that queue is returned too; if none does, the last.
        `by` is the name under which the client waits. Messages that were taken for a client that has disconnected go to
        `give_back`. Without it they are kept for the client's next request.

        Raises:
            ApiError: too many clients are waiting (429).
        """
        if seconds and client.is_disconnected():
            return queues[-1], Batch([])
        queue, batch = _first_batch(queues, attempt)
        if seconds and not batch.messages:
            with self._hold(client, seconds) as waiter, self._join(queues, waiter, by) as lines:
                if len(lines) == 1:
                    batch = self._wait_on_one(lines[0], waiter, attempt, batch)
                else:
                    queue, batch = self._wait_on_several(lines, waiter, attempt, batch)
        if seconds and batch.messages and give_back and client.confirm_disconnected():
            give_back(queue, batch.messages)
            return queue, Batch([])
        return queue, batch

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
                    waiter.wait(math.inf if self.timer.is_live else POLL_INTERVAL)
                return result
            finally:
                self.timer.unsubscribe(key, waiter.wake)

    @contextlib.contextmanager
    def _hold(self, client: ClientConnection, seconds: float) -> Iterator[Waiter]:
        with self.slots, Waiter(client, self.is_stopping, min(seconds, ANSWER_TIMEOUT)) as waiter:
            yield waiter

    # --- waiting for a message

    def _wait_on_one(self, waiters: Waiters, waiter: Waiter, attempt: Attempt[M], batch: Batch[M]) -> Batch[M]:
        """Attempt until a batch has messages or the wait ends; return the last batch. `batch` is the first one."""
        while not batch.messages and waiter.is_waiting():
            if waiters.first is not waiter:
                waiter.wait()
            elif not (waiters.is_quiet and self.tracker.is_live):
                if not waiters.may_have_more:
                    self._block(waiters, waiter, batch)
                if not waiter.client.is_disconnected():
                    batch = self._attempt_and_adapt(waiters, attempt)
            elif (delay := waiters.retry_delay()) > 0:
                waiter.wait(delay)
            else:
                batch = self._attempt_and_adapt(waiters, attempt)
        return batch

    def _wait_on_several(
        self, lines: list[Waiters], waiter: Waiter, attempt: Attempt[M], batch: Batch[M]
    ) -> tuple[ReliableQueue, Batch[M]]:
        """Attempt until a queue gives messages or the wait ends; return the last batch and its queue."""
        queue, last = lines[-1].queue, dict.fromkeys(lines, batch)
        while not batch.messages and waiter.is_waiting():
            leading = [line for line in lines if line.first is waiter]
            for line in leading:
                # The sweeper returns to the list what is due.
                self._set_quiet(line, True, line.keys if line.is_limited else line.keys[:3])
            if (delay := min((line.retry_delay() for line in leading), default=math.inf)) > 0:
                waiter.wait(delay)
                continue
            # A queue that has had no change since it was found empty is passed over, whoever is the first in its line.
            for line in lines:
                if not (line.is_quiet and self.tracker.is_live and line.retry_delay() > 0):
                    queue, last[line] = line.queue, self._attempt(line, attempt)
                    if last[line].messages:
                        return queue, last[line]
            batch = _none(last.values())
        return queue, batch

    def _attempt_and_adapt(self, waiters: Waiters, attempt: Attempt[M]) -> Batch[M]:
        """Attempt to take messages; notice when the queue becomes quiet, or is no longer."""
        batch = self._attempt(waiters, attempt)
        if batch.messages:
            self._set_quiet(waiters, False)
        elif time.monotonic() - waiters.idle_since >= BLOCK_SECONDS:
            self._set_quiet(waiters, True, waiters.keys)
        return batch

    def _attempt(self, waiters: Waiters, attempt: Attempt[M]) -> Batch[M]:
        """Attempt to take messages; retry once if the server refused because another may have taken over."""
        changes = waiters.changes
        waiters.may_have_more = waiters.is_limited = False  # also after an error
        try:
            batch = attempt(waiters.queue)
        except redis.RedisError as error:
            if not needs_reconnect(error):
                raise
            batch = attempt(waiters.queue)
        now = time.monotonic()
        waiters.may_have_more = bool(batch.messages)
        waiters.is_limited = batch.limited
        waiters.tried_changes = changes
        waiters.retry_at = now + _until_due(batch, QUIET_RETRY_INTERVAL if self.tracker.is_live else POLL_INTERVAL)
        if batch.messages:
            waiters.idle_since = now
        return batch

    def _block(self, waiters: Waiters, waiter: Waiter, last: Batch[M]) -> None:
        """Return when the queue may hold a message, or after BLOCK_SECONDS. `last` is the batch of the last attempt.

        Raises:
            NotSent: the connection broke. Nothing was taken, so no outcome is unknown.
        """
        seconds = min(waiter.seconds_left, _until_due(last, BLOCK_SECONDS))
        if last.limited:
            return self._wait_quietly(waiters, waiter, seconds)
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
        self._set_quiet(waiters, True, waiters.keys)
        if not self.tracker.is_live:
            waiter.wait(seconds)

    def _set_quiet(self, waiters: Waiters, is_quiet: bool, keys: Sequence[bytes] = ()) -> None:
        """Start or stop receiving notifications of these keys of a queue."""
        with self._lock:
            if is_quiet == waiters.is_quiet and list(keys) == waiters.watched_keys:
                return
            had_any = bool(self._quiet)
            waiters.is_quiet = is_quiet
            waiters.changes += 1  # an attempt must follow: changes until now were not notified
            for key in waiters.watched_keys:
                del self._quiet[key]
            waiters.watched_keys = list(keys)
            self._quiet |= dict.fromkeys(keys, waiters)
            if bool(self._quiet) != had_any:
                (self.tracker.unobserve if had_any else self.tracker.observe)(self._record_changes)

    def _record_changes(self, keys: Iterable[bytes] | None) -> None:
        """Wake the first client of each queue that has one of these keys; of every queue if the keys are not known."""
        with self._lock:
            changed = list(self._quiet) if keys is None else keys
            found = {one for key in changed if (one := self._quiet.get(key)) and not (keys and one.ignores(key))}
            for waiters in found:
                waiters.changes += 1
            for waiters in found:  # only now, as a client can be the first in several lines
                if waiters.order:
                    waiters.first.wake()

    @contextlib.contextmanager
    def _join(self, queues: Sequence[ReliableQueue], waiter: Waiter, by: str) -> Iterator[list[Waiters]]:
        with self._lock:
            lines = [self._queues.setdefault(queue.key, Waiters(queue)) for queue in queues]
            for waiters in lines:
                waiters.order.append(waiter)
                waiters.names[by] = waiters.names.get(by, 0) + 1
            if self._reporter is None:
                self._reporter = threading.Thread(target=self._report_loop, daemon=True, name="report-waiters")
                self._reporter.start()
        try:
            yield lines
        finally:
            with self._lock:
                for waiters in lines:
                    waiters.order.remove(waiter)
                    waiters.names[by] -= 1
                    if not waiters.names[by]:
                        del waiters.names[by]
                    waiters.left_at = time.monotonic()
                    if waiters.order:
                        waiters.first.wake()

    # --- reporting the waiting clients

    def _report_loop(self) -> None:
        """Report the waiting clients to Redis, as long as there are any."""
        while True:
            with self._lock:
                for waiters in self._queues.values():
                    if not waiters.order and time.monotonic() - waiters.left_at >= LINGER_SECONDS:
                        self._set_quiet(waiters, False)
                kept = {key: one for key, one in self._queues.items() if one.order or one.reported or one.is_quiet}
                self._queues = kept
                if not kept:
                    self._reporter = None
                    return
                reports = [(waiters, waiters.names.copy()) for waiters in kept.values()]
            for waiters, names in reports:
                self._report(waiters, names)
            time.sleep(REPORT_INTERVAL)

    def _report(self, waiters: Waiters, names: dict[str, int]) -> None:
        now = time.monotonic()
        if names == waiters.reported and now - waiters.reported_at <= REPORT_TTL / 3:
            return
        waiters.reported, waiters.reported_at = names, now
        try:
            waiters.queue.report_waiters(self._process, sum(names.values()), REPORT_TTL, names)
        except redis.RedisError:  # the next round reports again; meanwhile the last report expires
            waiters.reported_at = now - REPORT_TTL
        except Exception:  # keep going: the reports of all other queues depend on this loop
            log.exception("Could not report the number of clients that wait on %s", waiters.queue.name)
            waiters.reported_at = now - REPORT_TTL


def _first_batch(queues: Sequence[ReliableQueue], attempt: Attempt[M]) -> tuple[ReliableQueue, Batch[M]]:
    """Return the first batch that has messages, and its queue; if none has, why."""
    batches = []
    for queue in queues:
        batches.append(attempt(queue))
        if batches[-1].messages:
            return queue, batches[-1]
    return queues[-1], batches[0] if len(queues) == 1 else _none(batches)


def _none(batches: Collection[Batch[M]]) -> Batch[M]:
    """Return the batch of several queues that gave none: paused if all are, limited if all others are."""
    if all(batch.paused for batch in batches):
        return Batch([], paused=True)
    held = [batch.retry_after for batch in batches if batch.limited]
    return Batch([], retry_after=min(held) if all(one.paused or one.limited for one in batches) else 0)


def _until_due(batch: Batch[M], most: float) -> float:
    """Return the seconds until a lease or a delay ends, at most `most`."""
    return most if batch.next_due is None else min(most, batch.next_due)
