"""All queues as one stream of server-sent events: the whole list first, then what changes.

Only the queues whose keys have changed are counted again, once for all streams of a process. All keys are scanned at
the start, now and then in case a change notification was lost, and every second where Redis sends none.
"""

import fnmatch
import math
import re
import threading
import time
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis

from broker.attached.notifications import KeyNotifications
from broker.changes.notifications import ChangeNotifications
from broker.keys import DEAD_SUFFIX
from broker.listing import MAX_QUEUES, ListedQueue, QueueLister
from web.errors import from_redis
from web.input.codec import compact
from web.live.age import find_age
from web.live.feed import Feed, Reader
from web.live.history import History

EVENT_INTERVAL = 0.1  # seconds from one count of changed queues to the next, at least,
REST_FACTOR = 4  # and as a multiple of the time it took, so that counting never takes more than a fifth of the time
SCAN_INTERVAL = 60.0  # seconds between two scans of all keys, at least,
SCAN_REST_FACTOR = 100  # and as a multiple of the time it took
UNTRACKED_SCAN_INTERVAL = 1.0  # the same where Redis sends no change notifications
SCAN_TIMEOUT = 20.0  # seconds; the first scan ends sooner, so that the first event comes soon
HISTORY_STEPS = 60  # in the history of a queue, which is ten minutes
MAX_HISTORIES = 100  # queues that are sent with their history
MAX_CHANGES = 50  # kept for streams that read slowly; one that is further behind gets the whole list


class QueueListFeed(Feed):
    """The counts of all queues that hold something."""

    def __init__(
        self,
        lister: QueueLister,
        tracker: ChangeNotifications,
        history: History,
        attached_tracker: KeyNotifications | None = None,
    ) -> None:
        super().__init__("all queues", EVENT_INTERVAL)
        self.lister, self.tracker, self.history = lister, tracker, history
        self.attached_tracker = attached_tracker
        self._lock = threading.Lock()
        self._queues: dict[str, ListedQueue] = {}
        self._complete, self._unnamed = True, 0  # as in a Listing
        self._fault = ""  # the event that says why Redis cannot be polled
        # The changes that led to the last versions: counts, None for a queue that no longer holds anything.
        self._changes: deque[tuple[int, dict[str, ListedQueue | None]]] = deque(maxlen=MAX_CHANGES)
        self._texts: dict[tuple[int, str, bool], str] = {}  # the events of this version, by the arguments of `news`
        self._changed_keys: set[bytes] = set()
        self._scanned_at = self._scan_due = -math.inf  # monotonic

    def start(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self.tracker.observe(self._record_change)
        if self.attached_tracker:
            self.attached_tracker.observe(self._record_change)

    def stop(self) -> None:
        self.tracker.unobserve(self._record_change)
        if self.attached_tracker:
            self.attached_tracker.unobserve(self._record_change)

    def news(self, version: int, match: str, with_history: bool = False) -> tuple[int, str]:
        """Return the current version, and the event for a stream that last sent `version` (0: none).

        The event has the queues that match a glob pattern, and is "" if none of them has changed. With `with_history`,
        a whole list includes the history of some queues.
        """
        with self._lock:
            key = version, match, with_history
            if key not in self._texts:
                self._texts[key] = self._fault or self._make_event(*key)
            return self.version, self._texts[key]

    def _make_event(self, version: int, match: str, with_history: bool) -> str:
        matches = re.compile(fnmatch.translate(match)).match
        facts = {"complete": self._complete, "unnamed": self._unnamed}
        missed = [changes for changed_to, changes in self._changes if changed_to > version]
        if version == 0 or len(missed) < self.version - version:
            found = [self._queues[name] for name in sorted(self._queues) if matches(name)]
            histories = self._histories(found) if with_history else {}
            queues = [self._shown(queue) | histories.get(queue.name, {}) for queue in found]
            return f"event: queues\ndata: {compact({'queues': queues, **facts})}\n\n"
        changes = dict(ChainMap(*reversed(missed)))
        queues = [self._shown(queue) for name, queue in changes.items() if queue and matches(name)]
        removed = [name for name, queue in changes.items() if not queue and matches(name)]
        if changes and not queues and not removed:
            return ""
        return f"event: changed\ndata: {compact({'queues': queues, 'removed': removed, **facts})}\n\n"

    def _shown(self, queue: ListedQueue) -> dict[str, Any]:
        return {**queue.as_dict(), "age": find_age(self.history, queue.name, queue.counts.count)}

    def _histories(self, found: Sequence[ListedQueue]) -> dict[str, dict[str, object]]:
        """Return the recent history, where known, of the queues that are most likely to be in trouble."""
        histories: dict[str, dict[str, object]] = {}
        after = self.history.current_step() - HISTORY_STEPS - 1
        for queue in sorted(found, key=lambda queue: (-queue.counts.dead, -queue.counts.count))[:MAX_HISTORIES]:
            if steps := self.history.steps(queue.name, after):
                histories[queue.name] = {"history": {key: steps[key] for key in ("at", "step", "count", "out")}}
        return histories

    def _publish(self, queues: Mapping[str, ListedQueue | None], complete: bool, unnamed: int) -> None:
        """Publish the counts of queues, None for those that hold nothing."""
        with self._lock:
            changes = {name: queue for name, queue in queues.items() if self._queues.get(name) != queue}
            is_known = self.version > 0 and not self._fault
            if is_known and not changes and (self._complete, self._unnamed) == (complete, unnamed):
                return
            if is_known:
                self._changes.append((self.version + 1, changes))
            self._complete, self._unnamed, self._fault = complete, unnamed, ""
            self._texts.clear()
            for name, queue in changes.items():
                self.history.record_listed(name, queue.counts.count if queue else 0)
                if queue:
                    self._queues[name] = queue
                else:
                    self._queues.pop(name, None)
            self.wake_streams()

    def publish_fault(self, error: redis.RedisError) -> None:
        with self._lock:
            fault = f"event: fault\ndata: {compact(from_redis(error, reading=True).answer())}\n\n"
            if fault != self._fault:
                self._fault, self._scan_due = fault, -math.inf
                self._changes.clear()
                self._texts.clear()
                self.wake_streams()

    # --- polling

    def _record_change(self, keys: Iterable[bytes] | None) -> None:
        """Schedule a count of the queues of these keys, or a scan of all keys if they are not known."""
        with self._lock:
            if keys is None:
                self._scan_due = min(self._scan_due, self._scanned_at + UNTRACKED_SCAN_INTERVAL)
            else:
                self._changed_keys.update(keys)
        self._notify()

    def poll(self, feeds: int) -> float:
        began = time.monotonic()
        is_scan = began >= self._scan_due
        try:
            if is_scan:
                self._scan(began)
            elif self._changed_keys:
                self._count(began)
        except BaseException as error:
            self._scan_due = -math.inf
            if is_scan and isinstance(error, redis.RedisError):
                self.publish_fault(error)
            raise
        return self._scan_due - time.monotonic()

    def _scan(self, began: float) -> None:
        """Scan the keys and count all queues."""
        is_first = self.version == 0
        with self._lock:
            self._changed_keys, self._scan_due = set(), math.inf
        listing = self.lister.list_now(timeout=None if is_first else SCAN_TIMEOUT)
        found = {queue.name: queue for queue in listing.queues}
        self._publish({**dict.fromkeys(self._queues), **found}, listing.complete, listing.unnamed)
        with self._lock:
            self._scanned_at = now = time.monotonic()
            is_live = self.tracker.is_live and (not self.attached_tracker or self.attached_tracker.is_live)
            is_settled = is_live and (listing.complete or not is_first)
            interval, factor = (
                (SCAN_INTERVAL, SCAN_REST_FACTOR) if is_settled else (UNTRACKED_SCAN_INTERVAL, REST_FACTOR)
            )
            self._scan_due = min(self._scan_due, now + max(interval, factor * (now - began)))
            self.rest = EVENT_INTERVAL

    def _count(self, began: float) -> None:
        """Count the queues whose keys have changed."""
        with self._lock:
            keys, self._changed_keys = self._changed_keys, set()
        names = self.lister.names_of(keys)
        names |= self._queues.keys() & {name + DEAD_SUFFIX for name in names}
        if len(self._queues) >= MAX_QUEUES:
            names &= self._queues.keys()
        found = {queue.name: queue for queue in self.lister.count_queues(list(names))}
        self._publish({name: found.get(name) for name in names}, self._complete, self._unnamed)
        self.rest = max(EVENT_INTERVAL, REST_FACTOR * (time.monotonic() - began))


class QueueListReader(Reader):
    """Keeps track of what one stream has sent of the list of queues."""

    def __init__(self, feed: QueueListFeed, match: str, with_history: bool = False) -> None:
        self.feed = feed
        self.match = match
        self.with_history = with_history
        self._version = 0

    def next_event(self) -> str:
        if self._version == self.feed.version:
            return ""
        self._version, event = self.feed.news(self._version, self.match, self.with_history)
        return event
