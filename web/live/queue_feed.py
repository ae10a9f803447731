"""The live state of queues as server-sent events: one poll of Redis a change, however many clients watch.

Redis tells which queues change (`broker/changes/notifications.py`); their state is polled then, when a lease ends, and
now and then in case a change was not told. Where Redis does not tell changes, the watched queues are polled all the
time.
"""

import heapq
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import redis

from broker.changes.notifications import Subscription, Tracker
from broker.connections.errors import is_transient
from broker.models import State
from broker.queue import ReliableQueue
from web.errors import from_redis
from web.input.codec import compact, preview
from web.live.history import History

EVENT_INTERVAL = 0.04  # seconds between two polls of a queue that changes all the time
QUIET_POLL_INTERVAL = 30.0  # seconds between two polls of a queue of which no change is told
POLL_INTERVAL = 0.15  # seconds between two polls of a queue where Redis tells no changes
RETRY_DELAY = 1.0  # seconds until the next poll while Redis is away
MAX_POLLERS = 4  # polls at once: they must not delay other commands
MAX_POLLS = 100.0  # polls a second of all queues where Redis tells no changes; more queues are polled less often
MAX_QUIET_POLLS = 20.0  # the same of queues of which no change is told
MIN_FAILURES = 2  # polls that fail in a row before every queue is told to be away: one lost reply is one queue's
MAX_NEXT = 20  # messages in `next`
PREVIEW_CHARACTERS = 160  # of each
HEARTBEAT_INTERVAL = 15.0  # seconds between two comment lines
PEER_CHECK_INTERVAL = 1.0  # how often a stream checks for a disconnect and for a stop, seconds


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What is known of a queue, for all its streams. `heads` are the previews of the first messages."""

    kind: str
    data: dict[str, Any]
    heads: list[dict[str, Any]] = field(default_factory=list)
    _heads_text: dict[int, str] = field(default_factory=dict, compare=False)

    @cached_property
    def text(self) -> str:
        """The data as JSON."""
        return compact(self.data)

    def heads_text(self, number: int) -> str:
        """Return up to so many of the heads as JSON."""
        if number not in self._heads_text:
            self._heads_text[number] = compact(self.heads[:number])
        return self._heads_text[number]


class Watch:
    """The last event of one queue, kept up to date while anybody listens, and when to poll it next."""

    def __init__(self, queue: ReliableQueue, history: History) -> None:
        self.queue = queue
        self.history = history
        self.listeners = 0
        self.subscription: Subscription | None = None
        self.changed = threading.Condition()
        self.event: Event | None = None
        self.version = 0
        self.polled_step = 0  # of the samples, in which Redis answered last
        self.due = math.inf  # monotonic; infinite while it is polled
        self.polled_at = -math.inf
        self.is_polled = False
        self.is_outdated = False  # something has changed since the poll under way began

    def poll(self) -> State:
        """Ask Redis once, publish what is new or what is wrong, and return the state.

        Raises:
            redis.RedisError: Redis is away or refuses.
        """
        try:
            state = self.queue.state(MAX_NEXT, 0, 4 * PREVIEW_CHARACTERS)
        except redis.RedisError as error:
            self.publish_fault(error)
            raise
        self.history.record_depth(self.queue.name, state.counts.count, watched=True)
        self.polled_step = self.history.step()
        heads = [preview(head, size, PREVIEW_CHARACTERS) for head, size in state.heads]
        self.publish(Event("queue", {"name": self.queue.name, **state.counts.as_dict()}, heads))
        return state

    def wake(self) -> None:
        """Let all listeners look whether their clients are gone."""
        with self.changed:
            self.changed.notify_all()

    def publish_fault(self, error: redis.RedisError) -> None:
        """Tell the listeners why the queue could not be polled."""
        self.publish(Event("fault", from_redis(error, reading=True).answer()))

    def publish(self, event: Event) -> None:
        """Give the listeners an event, unless it is the one that they have."""
        if event != self.event:
            with self.changed:
                self.event = event
                self.version += 1
                self.changed.notify_all()


class Listener:
    """What one stream has told its client, so that it tells only what is new."""

    def __init__(self, watch: Watch, max_next: int, with_history: bool) -> None:
        self.watch = watch
        self.history = watch.history
        self.max_next = max_next
        self.with_history = with_history
        self._version = 0
        self._told: Event | None = None
        self._heads = ""
        self._step = 0  # the last step of the history that was told
        self._checked_step = 0  # the last in which nothing can be found that was not told

    def has_news(self) -> bool:
        """Return whether there may be something to tell."""
        has_ended = self._checked_step < self.watch.polled_step <= self._last_step()
        return self._version != self.watch.version or (self.with_history and has_ended)

    def patience(self) -> float:
        """Return the seconds after which there may be something to tell if no event is published."""
        is_awaited = self.with_history and self._checked_step < self.watch.polled_step
        return self.history.seconds_left() + 0.01 if is_awaited else math.inf

    def tell(self) -> str:
        """Return the text of an event; "" if nothing is new."""
        self._version, event = self.watch.version, self.watch.event
        if event is None:
            return ""
        is_new = self._told is None or (event.kind, event.data) != (self._told.kind, self._told.data)
        text = event.text[:-1]
        if event.kind == "queue":
            heads = event.heads_text(self.max_next)
            if heads != self._heads:
                is_new, self._heads = True, heads
                text += f',"next":{heads}'
            history = self._history(event) if self.with_history else None
            if history and (is_new or any(history["in"] + history["out"])):
                is_new, self._step = True, self._checked_step
                text += f',"history":{compact(history)}'
        self._told = event
        return f"event: {event.kind}\ndata: {text}}}\n\n" if is_new else ""

    def _last_step(self) -> int:
        return self.history.step() - 1

    def _history(self, event: Event) -> dict[str, Any] | None:
        """Return the steps that were not told yet, once a step. The event is true now, however old the last poll is."""
        if self._last_step() <= self._checked_step:
            return None
        self._checked_step = self._last_step()
        self.history.record_depth(event.data["name"], event.data["count"], watched=True)
        return self.history.history(event.data["name"], after=self._step)


class Events:
    """All the streams of one process. Without a tracker the watched queues are polled all the time."""

    def __init__(
        self, is_stopping: Callable[[], bool], tracker: Tracker | None = None, history: History | None = None
    ) -> None:
        self.is_stopping = is_stopping
        self.tracker = tracker
        self.history = history or History()
        self.watches: dict[str, Watch] = {}
        self._schedule: list[tuple[float, int, Watch]] = []  # a heap; an entry counts if its watch is due then
        self._numbers = itertools.count()  # entries that are due at once are in order
        self._pollers = 0
        self._failures = 0  # polls in a row that found Redis away
        self._lock = threading.Condition()

    def stream(
        self,
        queue: ReliableQueue,
        is_gone: Callable[[], bool],
        watch_client: Callable[[Callable[[], object]], AbstractContextManager[float]] | None = None,
        max_next: int = MAX_NEXT,
        with_history: bool = False,
    ) -> Generator[str, None, None]:
        """Yield the queue's state as an event, at once and after every change, until the client is gone.

        An event has up to `max_next` messages, and the queue's history if that is wanted. `watch_client` says when to
        ask whether the client is gone (see `Peer.watch`).
        """
        watch = self._join(queue)
        try:
            yield "retry: 1000\n\n"
            with watch_client(watch.wake) if watch_client else nullcontext(PEER_CHECK_INTERVAL) as interval:
                yield from self._follow(
                    Listener(watch, max_next, with_history), is_gone, min(interval, HEARTBEAT_INTERVAL)
                )
        finally:
            self._leave(watch)

    def _follow(self, listener: Listener, is_gone: Callable[[], bool], interval: float) -> Iterator[str]:
        changed, sent_at = listener.watch.changed, time.monotonic()
        while not self.is_stopping() and not is_gone():
            with changed:
                if not listener.has_news():
                    changed.wait(min(interval, listener.patience()))
            if text := listener.tell():
                sent_at = time.monotonic()
                yield text
            elif time.monotonic() - sent_at >= HEARTBEAT_INTERVAL - 0.1:
                sent_at = time.monotonic()
                yield ": nothing new\n\n"

    def _join(self, queue: ReliableQueue) -> Watch:
        with self._lock:
            watch = self.watches.get(queue.key)
            if watch is None:
                watch = self.watches[queue.key] = Watch(queue, self.history)
                if self.tracker:
                    watch.subscription = self.tracker.subscribe(queue, lambda: self._poll_soon(watch))
                self._set_due(watch, time.monotonic())
                if not self._pollers:
                    self._start_poller()
            watch.listeners += 1
        return watch

    def _leave(self, watch: Watch) -> None:
        with self._lock:
            watch.listeners -= 1
            if not watch.listeners:
                del self.watches[watch.queue.key]
                if self.tracker and watch.subscription:
                    self.tracker.unsubscribe(watch.subscription)
                if not self.watches:
                    self._schedule.clear()
                self._lock.notify_all()

    # --- polling

    def _poll_soon(self, watch: Watch) -> None:
        """Poll a queue that has changed: at once, unless it was polled just now."""
        with self._lock:
            if watch.is_polled:
                watch.is_outdated = True
            else:
                self._set_due(watch, max(time.monotonic(), watch.polled_at + EVENT_INTERVAL))

    def _set_due(self, watch: Watch, due: float) -> None:
        if due < watch.due:
            watch.due = due
            heapq.heappush(self._schedule, (due, next(self._numbers), watch))
            self._lock.notify()

    def _start_poller(self) -> None:
        self._pollers += 1
        threading.Thread(target=self._poll_loop, daemon=True, name="watch").start()

    def _poll_loop(self) -> None:
        while watch := self._next_watch():
            delay = RETRY_DELAY
            try:
                delay = self._delay_after(watch.poll())
                self._note_success()
            except redis.RedisError as error:
                self._note_failure(error)
            except Exception:  # whatever it is, the streams depend on going on
                log.exception("The queue %s could not be polled", watch.queue.name)
            with self._lock:
                watch.is_polled = False
                soon = watch.polled_at + EVENT_INTERVAL
                self._set_due(watch, soon if watch.is_outdated else max(soon, time.monotonic() + delay))

    def _note_failure(self, error: redis.RedisError) -> None:
        """Tell all streams that Redis is away: if it hangs, the polls of many queues would take long to find out."""
        with self._lock:
            if is_transient(error):
                self._failures += 1
            if self._failures == MIN_FAILURES:
                for watch in self.watches.values():
                    watch.publish_fault(error)

    def _note_success(self) -> None:
        with self._lock:
            if self._failures >= MIN_FAILURES:
                for watch in self.watches.values():
                    self._poll_soon(watch)
            self._failures = 0

    def _next_watch(self) -> Watch | None:
        """Return the watch to poll next, once it is due; None if this thread is not needed any more."""
        with self._lock:
            while self.watches:
                watch = self._first_watch()
                delay = watch.due - time.monotonic() if watch else None
                if watch and delay is not None and delay <= 0:
                    heapq.heappop(self._schedule)
                    watch.due, watch.polled_at = math.inf, time.monotonic()
                    watch.is_polled, watch.is_outdated = True, False
                    self._help()
                    return watch
                if self._pollers > 1:
                    break
                self._lock.wait(delay)
            self._pollers -= 1
            return None

    def _first_watch(self) -> Watch | None:
        while self._schedule:
            due, _, watch = self._schedule[0]
            if watch.due == due and watch.listeners:
                return watch
            heapq.heappop(self._schedule)
        return None

    def _help(self) -> None:
        """Let one more thread poll if there is more to do now."""
        watch = self._first_watch()
        if watch and watch.due <= time.monotonic() and self._pollers < MAX_POLLERS:
            self._start_poller()

    def _delay_after(self, state: State) -> float:
        """Return the seconds until a queue is polled again if no change of it is told."""
        if not self.tracker or not self.tracker.is_live:
            return max(POLL_INTERVAL, len(self.watches) / MAX_POLLS)
        quiet = max(QUIET_POLL_INTERVAL, len(self.watches) / MAX_QUIET_POLLS) * random.uniform(0.8, 1)
        return quiet if state.next_change is None else min(quiet, state.next_change)
