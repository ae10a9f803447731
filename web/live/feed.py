"""Server-sent events. However many streams follow a feed, Redis is polled once per change.

A feed is what streams follow: one queue (`queue_feed.py`), or the list of all queues (`queue_list_feed.py`). It is
polled when a change is notified (`broker/changes/notifications.py`), and after the delay that its last poll returned:
some changes are due to time alone, a notification may be lost, and some servers send none.
"""

import heapq
import itertools
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar, cast

import redis

from broker.connections.errors import is_transient
from web.live.disconnects import ClientConnection
from web.live.wait import Waiter

RECONNECT = "retry: 1000\n\n"  # milliseconds until a browser reconnects
HEARTBEAT = ": nothing new\n\n"
HEARTBEAT_INTERVAL = 15.0  # seconds
RETRY_DELAY = 1.0  # seconds until the next poll while Redis is unavailable
MAX_POLLERS = 4  # concurrent polls; more would delay other commands
MIN_FAILURES = 2  # failed polls in a row after which all feeds report a fault: a single one may be a lost reply

log = logging.getLogger(__name__)


class Feed(ABC):
    """A source of events that streams follow. It starts with its first stream, and is dropped after its last."""

    def __init__(self, key: str, rest: float) -> None:
        self.key = key
        self.rest = rest  # seconds from a poll until the next one, at least
        self.version = 0  # of its state; 0: none yet
        self.waiters: set[Waiter] = set()  # of the streams that follow it
        self.due = math.inf  # when to poll it, monotonic; infinite while it is polled
        self.rests_until = -math.inf  # monotonic
        self.is_polled = False
        self.is_outdated = False  # it has changed since the current poll began

    @abstractmethod
    def start(self, notify: Callable[[], None]) -> None:
        """Call `notify` at every change, from any thread, until `stop`."""

    @abstractmethod
    def stop(self) -> None:
        """Undo `start`."""

    @abstractmethod
    def poll(self, feeds: int) -> float:
        """Read the state from Redis and publish it. Return the seconds until the next poll unless a change is notified.

        The more `feeds` are polled together, the less often each of them should be.

        Raises:
            redis.RedisError: Redis is unavailable or refuses.
        """

    @abstractmethod
    def publish_fault(self, error: redis.RedisError) -> None:
        """Publish the reason why Redis cannot be polled."""

    def wake_streams(self) -> None:
        """Give the new state a version, and wake the streams to send it."""
        self.version += 1
        for waiter in tuple(self.waiters):
            waiter.wake()


class Reader(ABC):
    """Keeps track of what one stream has sent of its feed, so that it sends only what is new."""

    @abstractmethod
    def next_event(self) -> str:
        """Return the next event to send, "" if there is no news."""

    def patience(self) -> float:
        """Return the seconds after which there may be news although no new state was published."""
        return math.inf


F = TypeVar("F", bound=Feed)


class EventStreams:
    """The event streams of one process."""

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        self.is_stopping = is_stopping
        self.feeds: dict[str, Feed] = {}
        self._schedule: list[tuple[float, int, Feed]] = []  # a heap; an entry counts if its feed is due then
        self._numbers = itertools.count()  # of the entries, so that no two feeds are compared
        self._pollers = 0
        self._failures = 0  # polls in a row that found Redis unavailable
        self._lock = threading.Condition()

    def stream(
        self,
        feed: F,
        make_reader: Callable[[F], Reader],
        client: ClientConnection,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Generator[str, None, None]:
        """Yield the state of a feed as an event at once and after every change, and a heartbeat in between.

        It ends when the client disconnects, the worker stops, or `is_over` returns true. If a feed with the same key is
        followed already, it is used instead of `feed`.
        """
        with Waiter(client, lambda: self.is_stopping() or is_over()) as waiter:
            feed = self._join(feed, waiter)
            try:
                yield RECONNECT
                reader, sent_at = make_reader(feed), time.monotonic()
                while waiter.is_waiting():
                    heartbeat_due = sent_at + HEARTBEAT_INTERVAL
                    event = reader.next_event() or (HEARTBEAT if time.monotonic() >= heartbeat_due else "")
                    if event:
                        sent_at = time.monotonic()
                        yield event
                    waiter.wait(min(reader.patience(), sent_at + HEARTBEAT_INTERVAL - time.monotonic()))
            finally:
                self._leave(feed, waiter)

    def _join(self, new: F, waiter: Waiter) -> F:
        with self._lock:
            feed = cast(F, self.feeds.setdefault(new.key, new))
            feed.waiters.add(waiter)
            if feed is new:
                feed.start(partial(self._poll_soon, feed))
                self._set_due(feed, time.monotonic())
                if not self._pollers:
                    self._start_poller()
        return feed

    def _leave(self, feed: Feed, waiter: Waiter) -> None:
        with self._lock:
            feed.waiters.discard(waiter)
            if not feed.waiters:
                del self.feeds[feed.key]
                feed.stop()
                if not self.feeds:
                    self._schedule.clear()
                self._lock.notify_all()

    # --- polling

    def _poll_soon(self, feed: Feed) -> None:
        """Poll a feed that has changed: at once, unless it was polled just now."""
        with self._lock:
            if feed.is_polled:
                feed.is_outdated = True
            else:
                self._set_due(feed, max(time.monotonic(), feed.rests_until))

    def _set_due(self, feed: Feed, due: float) -> None:
        if due < feed.due:
            feed.due = due
            heapq.heappush(self._schedule, (due, next(self._numbers), feed))
            self._lock.notify()

    def _start_poller(self) -> None:
        self._pollers += 1
        threading.Thread(target=self._poll_loop, daemon=True, name="poll-feeds").start()

    def _poll_loop(self) -> None:
        while feed := self._next_feed():
            delay = RETRY_DELAY
            try:
                delay = feed.poll(len(self.feeds))
                self._record_success()
            except redis.RedisError as error:
                self._record_failure(error)
            except Exception:  # keep polling: all streams depend on this loop
                log.exception("Could not poll %s", feed.key)
            with self._lock:
                feed.is_polled = False
                now = time.monotonic()
                feed.rests_until = now + feed.rest
                if feed.waiters:
                    self._set_due(feed, feed.rests_until if feed.is_outdated else now + max(feed.rest, delay))

    def _record_failure(self, error: redis.RedisError) -> None:
        """Report a fault of Redis on all feeds at once: while Redis hangs, polling each of them would take long."""
        with self._lock:
            if is_transient(error):
                self._failures += 1
            if self._failures == MIN_FAILURES:
                for feed in self.feeds.values():
                    feed.publish_fault(error)

    def _record_success(self) -> None:
        with self._lock:
            if self._failures >= MIN_FAILURES:
                for feed in self.feeds.values():
                    self._poll_soon(feed)
            self._failures = 0

    def _next_feed(self) -> Feed | None:
        """Return the feed to poll next, once it is due; None if this thread is no longer needed."""
        with self._lock:
            while self.feeds:
                feed = self._first_feed()
                delay = feed.due - time.monotonic() if feed else None
                if feed and delay is not None and delay <= 0:
                    heapq.heappop(self._schedule)
                    feed.due, feed.is_polled, feed.is_outdated = math.inf, True, False
                    self._start_helper()
                    return feed
                if self._pollers > 1:
                    break
                self._lock.wait(delay)
            self._pollers -= 1
            return None

    def _first_feed(self) -> Feed | None:
        while self._schedule:
            due, _, feed = self._schedule[0]
            if feed.due == due and feed.waiters:
                return feed
            heapq.heappop(self._schedule)
        return None

    def _start_helper(self) -> None:
        """Start one more poller if another feed is due now."""
        feed = self._first_feed()
        if feed and feed.due <= time.monotonic() and self._pollers < MAX_POLLERS:
            self._start_poller()
