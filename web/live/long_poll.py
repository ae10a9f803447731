"""Waiting for messages. However many clients of a process wait on a queue, one of them blocks on Redis.

Waiting and taking are two steps. The client at the head of the line blocks in `BLMOVE key key RIGHT RIGHT`, which
changes nothing and returns when the list is not empty. Then it is checked whether that client is still there, and only
then is a message taken for it. So a client that hung up takes nothing with it, and the next one in line goes on.

The connections that block are few. When all are in use a client waits without one until Redis tells a change of its
queue (`broker/changes/notifications.py`). It tries every second at the least, also when Redis has no room for one more
connection.
"""

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import redis

from broker.changes.notifications import Tracker
from broker.connections.errors import NotSent, Recovery, find_fault, is_transient, needs_reconnect
from broker.models import Batch, Paused
from broker.queue import ReliableQueue
from web.errors import ApiError

MAX_WAIT = 60.0  # seconds a request may ask to wait
ANSWER_TIMEOUT = 54.0  # seconds after which it is answered all the same: proxies cut off what is silent for 60
PEER_CHECK_INTERVAL = 1.0  # how often the first in line checks for a disconnect and for a stop, seconds
REPORT_INTERVAL = 0.1  # how often the numbers of waiting clients are looked at, seconds
REPORT_TTL = 30.0  # seconds a reported number holds unless it is reported again

M = TypeVar("M", bound=bytes)
Watch = Callable[[Callable[[], object]], AbstractContextManager[float]]  # as Peer.watch

log = logging.getLogger(__name__)


class WaitQueue:
    """The clients of this process that wait on one queue, in the order they came."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.waiters: deque[threading.Event] = deque()
        self.reported = 0  # the number that Redis was told
        self.reported_at = 0.0


class Waiting:
    """Everybody who waits in one process: at most `maximum` clients, with a Redis client for commands that block."""

    def __init__(
        self, client: Any, maximum: int, is_stopping: Callable[[], bool], tracker: Tracker | None = None
    ) -> None:
        self.client = client
        self.tracker = tracker
        self.maximum = maximum
        self.is_stopping = is_stopping
        self.number = 0
        self._queues: dict[str, WaitQueue] = {}
        self._lock = threading.Lock()
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._reporter: threading.Thread | None = None

    def acquire(self) -> None:
        """Count one more client that stays for long; pair it with `release`.

        Raises:
            ApiError: there are too many (429).
        """
        with self._lock:
            if self.number >= self.maximum:
                message = f"More than MAX_BLOCKED_CLIENTS ({self.maximum}) clients wait."
                raise ApiError(429, "too_many_blocked_clients", message, {"Retry-After": "1"})
            self.number += 1

    def release(self) -> None:
        """Count one client less."""
        with self._lock:
            self.number -= 1

    def take(
        self,
        queue: ReliableQueue,
        seconds: float,
        attempt: Callable[[], Batch[M]],
        give_back: Callable[[list[M]], object] | None,
        is_gone: Callable[[], bool],
        confirm_gone: Callable[[], bool] | None = None,
        watch: Watch | None = None,
    ) -> list[M]:
        """Return what `attempt` takes, waiting up to `seconds` for it (at most 55); [] when that was nothing.

        A client that `is_gone` takes nothing: what it was about to get is given back. `confirm_gone` is the surer
        question, asked once there is something to lose; `watch` says when to ask (see `Peer`). Without `give_back` it
        is kept for the client's next try, so there is nothing to undo.

        Raises:
            ApiError: too many clients wait (429).
            Paused: the queue is, and was not resumed meanwhile.
        """
        if seconds and is_gone():
            return []
        batch = self._wait_and_take(queue, seconds, attempt, is_gone, watch) if seconds else attempt()
        if batch.paused:
            raise Paused
        if seconds and batch.messages and give_back and (confirm_gone or is_gone)():
            give_back(batch.messages)
            return []
        return batch.messages

    def _wait_and_take(
        self,
        queue: ReliableQueue,
        seconds: float,
        attempt: Callable[[], Batch[M]],
        is_gone: Callable[[], bool],
        watch: Watch | None,
    ) -> Batch[M]:
        batch = attempt()
        if batch.messages:
            return batch
        self.acquire()
        line, turn = self._join(queue)
        try:
            with watch(turn.set) if watch else nullcontext(PEER_CHECK_INTERVAL) as interval:
                end = time.monotonic() + min(seconds, ANSWER_TIMEOUT)
                while (left := end - time.monotonic()) > 0 and not self.is_stopping() and not is_gone():
                    if line.waiters[0] is not turn:
                        turn.wait(min(left, interval))
                        turn.clear()
                        continue
                    longest = min(left, PEER_CHECK_INTERVAL, batch.next_due or PEER_CHECK_INTERVAL)
                    self._block(queue, longest, batch.paused)
                    if is_gone():
                        break
                    batch = _attempt(attempt)
                    if batch.messages:
                        break
            return batch
        finally:
            self._leave(line, turn)
            self.release()

    def _block(self, queue: ReliableQueue, seconds: float, paused: bool) -> None:
        """Return when the queue may give something, or after `seconds`. A lost reply leaves nothing unknown."""
        try:
            queue.wait(seconds, self.client, paused)
        except redis.RedisError as error:
            fault = find_fault(error)
            if isinstance(error, redis.MaxConnectionsError):
                self._wait_for_change(queue, seconds)
            elif fault and fault.recovery is not Recovery.REPAIR:
                time.sleep(seconds)  # a try to take says whether it has passed
            elif isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and is_transient(error):
                raise NotSent(str(error)) from error
            else:
                raise

    def _wait_for_change(self, queue: ReliableQueue, seconds: float) -> None:
        """Return when the queue may have changed, or after `seconds`, without a connection that blocks."""
        changed = threading.Event()
        subscription = self.tracker and self.tracker.subscribe(queue, changed.set)
        try:
            changed.wait(seconds)
        finally:
            if self.tracker and subscription:
                self.tracker.unsubscribe(subscription)

    def _join(self, queue: ReliableQueue) -> tuple[WaitQueue, threading.Event]:
        turn = threading.Event()
        with self._lock:
            line = self._queues.setdefault(queue.key, WaitQueue(queue))
            line.waiters.append(turn)
            if self._reporter is None:
                self._reporter = threading.Thread(target=self._report_loop, daemon=True, name="report-waiters")
                self._reporter.start()
        return line, turn

    def _leave(self, line: WaitQueue, turn: threading.Event) -> None:
        with self._lock:
            line.waiters.remove(turn)
            if line.waiters:
                line.waiters[0].set()

    def _report_loop(self) -> None:
        """Report how many clients wait here to Redis, as long as any does."""
        while True:
            with self._lock:
                self._queues = {key: line for key, line in self._queues.items() if line.waiters or line.reported}
                if not self._queues:
                    self._reporter = None
                    return
                lines = [(line, len(line.waiters)) for line in self._queues.values()]
            for line, number in lines:
                self._report(line, number)
            time.sleep(REPORT_INTERVAL)

    def _report(self, line: WaitQueue, number: int) -> None:
        now = time.monotonic()
        if number == line.reported and now - line.reported_at <= REPORT_TTL / 3:
            return
        line.reported, line.reported_at = number, now
        try:
            line.queue.report_waiters(self._process, number, REPORT_TTL)
        except redis.RedisError:  # the next round reports again; what was reported last ends by itself
            line.reported_at = now - REPORT_TTL
        except Exception:  # whatever it is, the count of all other queues depends on going on
            log.exception("The waiting clients of %s could not be reported", line.queue.name)
            line.reported_at = now - REPORT_TTL


def _attempt(attempt: Callable[[], Batch[M]]) -> Batch[M]:
    """Try to take; once more if another server may have taken over meanwhile, for nothing was taken from this one."""
    try:
        return attempt()
    except redis.RedisError as error:
        if not needs_reconnect(error):
            raise
        return attempt()
