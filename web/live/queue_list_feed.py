"""All queues as one stream of server-sent events: the whole list, and then what changes.

Redis tells which keys change (`broker/changes/notifications.py`). Only their queues are counted again, for all streams
of a process at once. All keys are scanned at the start, now and then in case a change was not told, and all the time
where Redis tells no changes.
"""

import fnmatch
import logging
import math
import re
import threading
import time
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import redis

from broker.changes.notifications import Tracker
from broker.keys import DEAD_SUFFIX
from broker.listing import MAX_QUEUES, ListedQueue, QueueLister
from web.errors import from_redis
from web.input.codec import compact
from web.live.history import History
from web.live.queue_feed import HEARTBEAT_INTERVAL, RETRY_DELAY

EVENT_INTERVAL = 0.1  # seconds between two counts while queues change all the time, at the least,
REST_FACTOR = 4  # and how many times as long as a count took: many queues that change all the time cost a fifth
LIST_INTERVAL = 60.0  # seconds between two scans of all keys, in case a change was not told, at the least,
LIST_REST_FACTOR = 100  # and how many times as long as a scan took
UNTRACKED_SCAN_INTERVAL = 1.0  # the same where Redis tells no changes
SCAN_TIMEOUT = 20.0  # seconds; the first scan ends sooner, so that the first event comes soon
HISTORY_STEPS = 60  # of the samples, which is ten minutes
MAX_HISTORIES = 100  # queues whose history is told
MAX_CHANGES = 50  # kept for streams that read slowly; one that is further behind gets the whole list

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """What is new in a version of the list: the counts of queues, None for those that hold nothing any more."""

    version: int
    queues: dict[str, ListedQueue | None]


class QueueListFeed:
    """The list of all queues, kept up to date while anybody follows it."""

    def __init__(
        self, lister: QueueLister, tracker: Tracker, is_stopping: Callable[[], bool], history: History | None = None
    ) -> None:
        self.lister, self.tracker, self.is_stopping = lister, tracker, is_stopping
        self.history = history or History()
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)  # the streams wait for it,
        self._work = threading.Condition(self._lock)  # and the poller for this
        self._listeners = 0
        self._thread: threading.Thread | None = None
        self._changed_keys: set[bytes] = set()
        self._forget()

    def _forget(self) -> None:
        self._queues: dict[str, ListedQueue] = {}
        self._complete, self._unnamed = True, 0  # as in a Listing
        self._fault = ""  # the event that says why Redis cannot be asked
        self._version = 0  # of the list; 0 before the first
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._texts: dict[tuple[int, str, bool], str] = {}  # events that lead from a version to this one, by wishes
        self._listed_at = self._listing_due = self._rests_until = -math.inf  # monotonic

    def stream(
        self,
        match: str,
        is_gone: Callable[[], bool],
        watch_client: Callable[[Callable[[], object]], AbstractContextManager[float]],
        with_history: bool = False,
    ) -> Iterator[str]:
        """Yield the queues that match a pattern as an event, then every change, until the client is gone.

        The list comes with the history of some, if that is wanted. `watch_client` says when to ask whether the client
        is gone (see `Peer.watch`).
        """
        self._join()
        try:
            yield "retry: 1000\n\n"
            with watch_client(self._wake) as interval:
                yield from self._follow((match, with_history), is_gone, min(interval, HEARTBEAT_INTERVAL))
        finally:
            self._leave()

    def _follow(self, wishes: tuple[str, bool], is_gone: Callable[[], bool], interval: float) -> Iterator[str]:
        known, seen, sent_at = 0, (0, ""), time.monotonic()
        while not self.is_stopping() and not is_gone():
            with self._lock:
                if (self._version, self._fault) == seen:
                    self._news.wait(interval)
                is_new, seen = (self._version, self._fault) != seen, (self._version, self._fault)
                event = self._event_since(known, *wishes) if is_new else ""
                known = 0 if self._fault else self._version
            if not event and time.monotonic() - sent_at >= HEARTBEAT_INTERVAL - 0.1:
                event = ": nothing new\n\n"
            if event:
                sent_at = time.monotonic()
                yield event

    def _join(self) -> None:
        with self._lock:
            self._listeners += 1
            if self._thread is None:
                self.tracker.observe(self._note)
                self._thread = threading.Thread(target=self._poll_loop, daemon=True, name="watch-all")
                self._thread.start()

    def _leave(self) -> None:
        with self._lock:
            self._listeners -= 1
            self._work.notify()

    def _wake(self) -> None:
        """Let all streams look whether their clients are gone."""
        with self._lock:
            self._news.notify_all()

    # --- events

    def _event_since(self, version: int, match: str, with_history: bool = False) -> str:
        """Return the event for a stream that knows a version of the list (0: none), "" if it says nothing new to it."""
        if self._fault:
            return self._fault
        key = version, match, with_history
        if key not in self._texts:
            self._texts[key] = self._make_event(*key)
        return self._texts[key]

    def _make_event(self, version: int, match: str, with_history: bool) -> str:
        matches = re.compile(fnmatch.translate(match)).match
        facts = {"complete": self._complete, "unnamed": self._unnamed}
        missed = [change.queues for change in self._changes if change.version > version]
        if version == 0 or len(missed) < self._version - version:
            found = [self._queues[name] for name in sorted(self._queues) if matches(name)]
            histories = self._histories(found) if with_history else {}
            queues = [queue.as_dict() | histories.get(queue.name, {}) for queue in found]
            return f"event: queues\ndata: {compact({'queues': queues, **facts})}\n\n"
        changes = dict(ChainMap(*reversed(missed)))
        queues = [queue.as_dict() for name, queue in changes.items() if queue and matches(name)]
        removed = [name for name, counts in changes.items() if not counts and matches(name)]
        if changes and not queues and not removed:
            return ""
        return f"event: changed\ndata: {compact({'queues': queues, 'removed': removed, **facts})}\n\n"

    def _histories(self, found: Sequence[ListedQueue]) -> dict[str, dict[str, object]]:
        """Return what is known of the last minutes of those queues that are most likely to be in trouble."""
        histories: dict[str, dict[str, object]] = {}
        after = self.history.step() - HISTORY_STEPS - 1
        for queue in sorted(found, key=lambda queue: (-queue.counts.dead, -queue.counts.count))[:MAX_HISTORIES]:
            if history := self.history.history(queue.name, after):
                histories[queue.name] = {"history": {key: history[key] for key in ("at", "step", "count", "out")}}
        return histories

    def _publish(self, queues: Mapping[str, ListedQueue | None], complete: bool, unnamed: int) -> None:
        """Tell the streams the counts of queues, None for those that hold nothing."""
        with self._lock:
            changes = {name: counts for name, counts in queues.items() if self._queues.get(name) != counts}
            is_known = self._version > 0 and not self._fault
            if is_known and not changes and (self._complete, self._unnamed) == (complete, unnamed):
                return
            self._version += 1
            self._complete, self._unnamed, self._fault = complete, unnamed, ""
            self._changes.append(Change(self._version, changes))
            self._texts.clear()
            for name, counts in changes.items():
                self.history.record_depth(name, counts.counts.count if counts else 0)
                if counts:
                    self._queues[name] = counts
                else:
                    self._queues.pop(name, None)
            self._news.notify_all()

    def _publish_fault(self, error: redis.RedisError) -> None:
        with self._lock:
            self._fault = f"event: fault\ndata: {compact(from_redis(error, reading=True).answer())}\n\n"
            self._news.notify_all()

    # --- polling

    def _note(self, keys: Iterable[bytes] | None) -> None:
        """Let the queues of these keys be counted soon; list all if the keys are not known."""
        with self._lock:
            is_expected = bool(self._changed_keys)
            if keys is None:
                self._listing_due = min(self._listing_due, self._listed_at + UNTRACKED_SCAN_INTERVAL)
            else:
                self._changed_keys.update(keys)
            if not is_expected:
                self._work.notify()

    def _poll_loop(self) -> None:
        while self._wait_for_work():
            lists = time.monotonic() >= self._listing_due
            try:
                if lists:
                    self._list()
                else:
                    self._count()
            except redis.RedisError as error:
                if lists:
                    self._publish_fault(error)
                self._listing_due = time.monotonic() + RETRY_DELAY
            except Exception:  # whatever it is, the streams depend on going on
                log.exception("The queues could not be listed")
                self._listing_due = time.monotonic() + RETRY_DELAY

    def _wait_for_work(self) -> bool:
        """Return True once there is something to ask Redis for, False if this thread is not needed any more."""
        with self._lock:
            while self._listeners:
                due = max(self._rests_until, -math.inf if self._changed_keys else self._listing_due)
                delay = due - time.monotonic()
                if delay <= 0:
                    return True
                self._work.wait(delay)
            self.tracker.ignore(self._note)
            self._forget()
            self._thread = None
            return False

    def _list(self) -> None:
        """Scan the keys and count all queues."""
        began = time.monotonic()
        is_first = self._version == 0
        with self._lock:
            self._changed_keys, self._listing_due = set(), math.inf
        listing = self.lister.list_now(timeout=None if is_first else SCAN_TIMEOUT)
        found = {counts.name: counts for counts in listing.queues}
        self._publish({**dict.fromkeys(self._queues), **found}, listing.complete, listing.unnamed)
        with self._lock:
            self._listed_at = now = time.monotonic()
            is_settled = self.tracker.is_live and (listing.complete or not is_first)
            interval, factor = (
                (LIST_INTERVAL, LIST_REST_FACTOR) if is_settled else (UNTRACKED_SCAN_INTERVAL, REST_FACTOR)
            )
            self._listing_due = min(self._listing_due, now + max(interval, factor * (now - began)))
            self._rests_until = now + EVENT_INTERVAL

    def _count(self) -> None:
        """Count the queues whose keys have changed."""
        began = time.monotonic()
        with self._lock:
            keys, self._changed_keys = self._changed_keys, set()
        names = self.lister.names_of(keys)
        names |= self._queues.keys() & {name + DEAD_SUFFIX for name in names}
        if len(self._queues) >= MAX_QUEUES:
            names &= self._queues.keys()
        found = {counts.name: counts for counts in self.lister.count_queues(list(names))}
        self._publish({name: found.get(name) for name in names}, self._complete, self._unnamed)
        now = time.monotonic()
        self._rests_until = now + max(EVENT_INTERVAL, REST_FACTOR * (now - began))
