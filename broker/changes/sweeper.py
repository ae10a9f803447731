"""Whatever is due is given back on time, though nobody asks: leases and delays that are over.

Every command of a queue returns what is due there. Where none comes, this timer does it: one in each process of the
app, which knows when something is due next in the queues it has heard of. A script tells all timers of a lease or a
delay that ends before everything they know of (`announce_due`), and a timer that begins, or that was cut off,
scans the keys once. So an idle queue costs Redis nothing, and of several timers the first one does the work.
"""

import contextlib
import heapq
import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from broker.connections.cluster import each_primary
from broker.connections.errors import is_transient
from broker.connections.resp3 import iter_pushes
from broker.keys import queue_of, tagged_key_pattern
from broker.queue import ReliableQueue

CHECK_INTERVAL = 15.0  # seconds of silence after which the connection is checked, and then given up
MIN_SWEEP_INTERVAL = 0.1  # seconds between two sweeps of a queue
RETRY_DELAY = 1.0  # seconds until the next try while Redis is away
REFUSED_RETRY_DELAY = 60.0  # ... after the server refused: the user may not subscribe. Then there is a scan each time
SCAN_COUNT = 200  # keys in one step

log = logging.getLogger(__name__)


class Timer:
    """Returns what is due in all queues with a prefix, and tells which results were stored."""

    def __init__(self, client: Any, prefix: str, queue: Callable[[str], ReliableQueue]) -> None:
        self.client = client
        self.is_live = False  # whether notices come
        self._queue = queue
        self._pattern = "{" + re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*}:"  # of a glob
        self._beside = tagged_key_pattern(prefix)
        self._due: dict[str, float] = {}  # queue -> when something is due there, monotonic
        self._schedule: list[tuple[float, str]] = []  # a heap; an entry counts if its queue is due then
        self._subscriptions: dict[str, set[Callable[[], object]]] = {}  # key of a result -> whom to call
        self._changed = threading.Condition()

    def start(self) -> None:
        """Work until the process ends, in threads of its own."""
        for name, work in (("hear-notices", self._hear_all), ("return-due-messages", self._sweep_all)):
            threading.Thread(target=work, daemon=True, name=name).start()

    def subscribe(self, key: str, notify: Callable[[], object]) -> None:
        """Call `notify` whenever a result is stored under a key, until `unsubscribe`; it must not block."""
        with self._changed:
            self._subscriptions.setdefault(key, set()).add(notify)

    def unsubscribe(self, key: str, notify: Callable[[], object]) -> None:
        """End a subscription."""
        with self._changed:
            self._subscriptions[key].discard(notify)
            if not self._subscriptions[key]:
                del self._subscriptions[key]

    # --- hearing

    def _hear_all(self) -> None:
        while True:
            delay = RETRY_DELAY
            try:
                self._hear()
            except redis.RedisError as error:
                log.info("Redis sends no notices (%s).", error)
                if not is_transient(error):
                    delay = REFUSED_RETRY_DELAY
                    with contextlib.suppress(redis.RedisError):
                        self._scan()
            except Exception:  # whatever it is, the next try begins with a scan
                log.exception("The notices of queues could not be followed")
            self.is_live = False
            time.sleep(delay)

    def _hear(self) -> None:
        """Follow the notices until the connection is lost."""
        command = ["PSUBSCRIBE", self._pattern + "*notices"]  # of dead letters too: {queue:jobs}:dead:notices
        server = random.choice(each_primary(self.client))  # a cluster tells all its nodes
        with contextlib.closing(iter_pushes(server, command, CHECK_INTERVAL)) as pushes:
            for push in pushes:
                if not self.is_live:
                    self.is_live = self._scan()
                    self._tell()  # a notice may have been lost
                if push and push[0] == b"pmessage":
                    self._take_notice(push[2].decode(errors="replace"), push[3].decode(errors="replace"))

    def _take_notice(self, channel: str, notice: str) -> None:
        kind, _, what = notice.partition(" ")
        found = self._beside.fullmatch(channel)
        if kind == "due" and found and what.isdigit():
            self._set_due(queue_of(found), int(what) / 1000)
        elif kind == "result":
            self._tell(what)

    def _tell(self, *keys: str) -> None:
        """Let those who wait for the results under some keys look; without keys all of them."""
        with self._changed:
            told = [notify for key in keys or self._subscriptions for notify in self._subscriptions.get(key, ())]
        for notify in told:
            notify()

    def _scan(self) -> bool:
        """Find the queues in which something is reserved or delayed; return whether all servers answered."""
        is_whole = True
        for server in each_primary(self.client):
            try:
                for key in server.scan_iter(match=self._pattern + "*", count=SCAN_COUNT):
                    found = self._beside.fullmatch(key.decode(errors="replace"))
                    if found and found[3] in ("reserved", "delayed"):
                        self._set_due(queue_of(found), 0)
            except redis.RedisError:  # one that is away does not hold up the others
                is_whole = False
        return is_whole

    # --- returning

    def _set_due(self, name: str, delay: float) -> None:
        """Sweep a queue in `delay` seconds, or before."""
        due = time.monotonic() + delay
        with self._changed:
            if due < self._due.get(name, due + 1):
                self._due[name] = due
                heapq.heappush(self._schedule, (due, name))
                self._changed.notify()

    def _sweep_all(self) -> None:
        while True:
            name = self._next_queue()
            try:
                delay = self._queue(name).sweep()
            except redis.RedisError as error:
                delay = RETRY_DELAY if is_transient(error) else None
            except Exception:  # whatever it is, the other queues depend on going on
                log.exception("What is due in the queue %s could not be returned", name)
                delay = RETRY_DELAY
            if delay is not None:
                self._set_due(name, max(delay, MIN_SWEEP_INTERVAL))

    def _next_queue(self) -> str:
        """Return the queue to sweep next, once something is due there."""
        with self._changed:
            while True:
                delay = self._schedule[0][0] - time.monotonic() if self._schedule else None
                if delay is not None and delay <= 0:
                    due, name = heapq.heappop(self._schedule)
                    if self._due.get(name) == due:
                        del self._due[name]
                        return name
                    continue
                self._changed.wait(delay)
