"""Background sweeper: return expired leases and due delays within a second, even if no client calls.

A command that takes, shows, releases or moves messages first returns those that are due in its queue. Where none comes,
the sweeper of each worker process does it. A script that starts a lease or delay publishes a notice if it ends before
all others (`announce_due` in clock.lua). A sweeper that starts, or that has lost its connection, scans the keys once.
So an idle queue costs nothing beyond a check of the connection every CHECK_INTERVAL, and the first of several sweepers
does the work. A notice also announces each result that is stored.

Leases and delays end by the wall clock of Redis, the sweeper waits by the monotonic clock of this machine. As long as
something is reserved or delayed, it compares the two every CLOCK_CHECK_INTERVAL. After a jump it sweeps all queues.
"""

import contextlib
import heapq
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from broker.connections.cluster import each_primary
from broker.connections.errors import is_transient
from broker.connections.resp3 import iter_pushes
from broker.keys import queue_of, tagged_key_glob, tagged_key_pattern
from broker.queue import ReliableQueue

CHECK_INTERVAL = 15.0  # seconds of silence until the connection is checked, and again until it is given up
MIN_SWEEP_INTERVAL = 0.1  # seconds between two sweeps of a queue
RETRY_DELAY = 1.0  # seconds until the next try while Redis is unavailable
REFUSED_RETRY_DELAY = 60.0  # the same, after a refusal: the user lacks the permission, so each try is a scan
SCAN_COUNT = 200  # keys in one step
CLOCK_CHECK_INTERVAL = 5.0  # seconds between two looks at the clock of Redis
MIN_CLOCK_JUMP = 1.0  # seconds; smaller corrections of a clock are normal

log = logging.getLogger(__name__)


class Sweeper:
    """Returns due messages in all queues with a prefix, and notifies of stored results."""

    def __init__(self, client: Any, prefix: str, queue: Callable[[str], ReliableQueue]) -> None:
        self.client = client
        self.is_live = False  # whether notices arrive; if not, poll for results
        self._queue = queue
        self._glob = tagged_key_glob(prefix)
        self._beside = tagged_key_pattern(prefix)
        self._due: dict[str, float] = {}  # queue -> when its next message is due, monotonic
        self._schedule: list[tuple[float, str]] = []  # a heap; an entry is valid if it equals the one in _due
        self._clocks: list[float] = []  # of each server: its clock minus the monotonic one of this machine
        self._clocks_at = -math.inf  # monotonic, when they were compared
        self._subscriptions: dict[str, set[Callable[[], object]]] = {}  # key of a result -> callbacks
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start two threads that run until the process ends."""
        for name, work in (("listen-for-notices", self._listen_forever), ("sweep-queues", self._sweep_forever)):
            threading.Thread(target=work, daemon=True, name=name).start()

    def subscribe(self, key: str, notify: Callable[[], object]) -> None:
        """Call `notify` whenever a result is stored under a key, until `unsubscribe`. It must not block."""
        with self._changed:
            self._subscriptions.setdefault(key, set()).add(notify)

    def unsubscribe(self, key: str, notify: Callable[[], object]) -> None:
        """End a subscription."""
        with self._changed:
            self._subscriptions[key].discard(notify)
            if not self._subscriptions[key]:
                del self._subscriptions[key]

    # --- notices

    def _listen_forever(self) -> None:
        was_refused = False
        while True:
            delay = RETRY_DELAY
            try:
                self._listen()
            except redis.RedisError as error:
                is_refused = not is_transient(error)
                level = logging.WARNING if is_refused and not was_refused else logging.INFO
                log.log(level, "Notices from Redis are unavailable, so due messages can return late (%s)", error)
                was_refused = is_refused
                if is_refused:
                    delay = REFUSED_RETRY_DELAY
                    with contextlib.suppress(redis.RedisError):
                        self._scan()
            except Exception:  # the next try starts with a scan, so nothing is missed
                log.exception("Unexpected error while listening for notices")
            self.is_live = False
            time.sleep(delay)

    def _listen(self) -> None:
        """Handle notices until the connection is lost."""
        command = ["PSUBSCRIBE", self._glob]  # a user may subscribe to exactly the patterns of its ACL
        server = random.choice(each_primary(self.client))  # the nodes of a cluster forward them to each other
        with contextlib.closing(iter_pushes(server, command, CHECK_INTERVAL)) as pushes:
            for push in pushes:
                if not self.is_live:
                    self.is_live = self._scan()
                    self._notify()  # a notice might have been lost
                if push and push[0] == b"pmessage":
                    self._handle_notice(push[2].decode(errors="replace"), push[3].decode(errors="replace"))

    def _handle_notice(self, channel: str, notice: str) -> None:
        kind, _, value = notice.partition(" ")
        found = self._beside.fullmatch(channel)
        if kind == "due" and found and value.isdigit():
            self._set_due(queue_of(found), int(value) / 1000)
        elif kind == "results":
            self._notify(*value.split(" "))

    def _notify(self, *keys: str) -> None:
        """Notify the subscribers of the results under these keys; without keys, of all."""
        with self._changed:
            callbacks = [notify for key in keys or self._subscriptions for notify in self._subscriptions.get(key, ())]
        for notify in callbacks:
            notify()

    def _scan(self) -> bool:
        """Schedule each queue that has reserved or delayed messages; return whether all servers replied."""
        is_complete = True
        for server in each_primary(self.client):
            try:
                for key in server.scan_iter(match=self._glob, count=SCAN_COUNT):
                    found = self._beside.fullmatch(key.decode(errors="replace"))
                    if found and found[3] in ("reserved", "delayed"):
                        self._set_due(queue_of(found), 0)
            except redis.RedisError:  # an unavailable server does not hold up the others
                is_complete = False
        return is_complete

    # --- sweeps

    def _set_due(self, name: str, delay: float) -> None:
        """Schedule a sweep of a queue in at most `delay` seconds."""
        due = time.monotonic() + delay
        with self._changed:
            if due < self._due.get(name, due + 1):
                self._due[name] = due
                heapq.heappush(self._schedule, (due, name))
                self._changed.notify()

    def _sweep_forever(self) -> None:
        while True:
            name = self._next_queue()
            if time.monotonic() - self._clocks_at >= CLOCK_CHECK_INTERVAL:
                self._check_clocks()
            if name is None:
                continue
            try:
                delay = self._queue(name).sweep()
            except redis.RedisError as error:
                delay = RETRY_DELAY if is_transient(error) else None
            except Exception:  # the other queues must still be swept
                log.exception("Unexpected error while sweeping the queue %s", name)
                delay = RETRY_DELAY
            if delay is not None:
                self._set_due(name, max(delay, MIN_SWEEP_INTERVAL))

    def _check_clocks(self) -> None:
        """If the clock of a server has jumped, sweep all queues now."""
        clocks = []
        with contextlib.suppress(redis.RedisError):
            for server in each_primary(self.client):
                seconds, microseconds = server.time()
                clocks.append(seconds + microseconds / 1e6 - time.monotonic())
        self._clocks_at = time.monotonic()
        known, self._clocks = self._clocks, clocks
        jumps = [abs(new - old) for new, old in zip(clocks, known, strict=False)]
        if len(clocks) != len(known) or max(jumps, default=0) >= MIN_CLOCK_JUMP:
            with self._changed:
                names = list(self._due)
            for name in names:
                self._set_due(name, 0)

    def _next_queue(self) -> str | None:
        """Wait until a queue is due, and return its name; None if the clocks must be compared before."""
        with self._changed:
            while True:
                delay = self._schedule[0][0] - time.monotonic() if self._schedule else None
                if delay is not None and delay <= 0:
                    due, name = heapq.heappop(self._schedule)
                    if self._due.get(name) == due:
                        del self._due[name]
                        return name
                    continue
                if delay is not None and delay > (left := self._clocks_at + CLOCK_CHECK_INTERVAL - time.monotonic()):
                    if left <= 0:
                        return None
                    delay = left
                self._changed.wait(delay)
