"""All the queues there are, found by scanning the keys for a limited time."""

import contextlib
import fnmatch
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis

from broker.names import DEAD_SUFFIX, NAME_PATTERN
from broker.reliable import ReliableQueue

SCAN_TIMEOUT = 1.0  # seconds; what was not seen by then is left out, and `complete` is false
SCAN_COUNT = 1000  # keys in one step
CACHE_TTL = 1.0  # seconds a listing is kept


@dataclass(frozen=True)
class Counts:
    """What a queue holds."""

    name: str
    count: int
    reserved: int
    dead: int


@dataclass(frozen=True)
class Listing:
    """The queues that hold something, by name, and whether all keys were scanned."""

    queues: list[Counts]
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class QueueLister:
    """Lists the queues of one Redis. A listing is kept for a second."""

    def __init__(self, client: Any, prefix: str, max_deliveries: int) -> None:
        self.client = client
        self.prefix = prefix
        self.max_deliveries = max_deliveries
        self._cache: dict[str, tuple[float, Listing]] = {}
        self._lock = threading.Lock()

    def list_queues(self, match: str = "*") -> Listing:
        """Return the queues whose name matches a glob pattern. Dead letters are counted with their queue."""
        with self._lock:
            now = time.monotonic()
            self._cache = {key: kept for key, kept in self._cache.items() if now - kept[0] < CACHE_TTL}
            if match in self._cache:
                return self._cache[match][1]
        listing = self._scan(match)
        with self._lock:
            self._cache[match] = time.monotonic(), listing
        return listing

    def _scan(self, match: str) -> Listing:
        names, complete = self._names(match)
        found: list[Counts] = []
        for start in range(0, len(names), SCAN_COUNT):
            found += self._counts([self._queue(name) for name in names[start : start + SCAN_COUNT]])
        return Listing(found, complete)

    def _queue(self, name: str) -> ReliableQueue:
        return ReliableQueue(self.client, name, self.prefix, self.max_deliveries)

    def _counts(self, queues: Sequence[ReliableQueue]) -> list[Counts]:
        """Return the counts of those queues that hold something; a key that is not a queue is left out."""
        pipeline = self.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.key_prefix + "reserved")
            pipeline.llen(queue.key_prefix + "dead")
        replies = pipeline.execute(raise_on_error=False)
        found = []
        for queue, *counts in zip(queues, replies[::3], replies[1::3], replies[2::3], strict=True):
            if not all(isinstance(count, int) for count in counts) or not any(counts):
                continue
            if counts[1]:  # some leases may have expired
                with contextlib.suppress(redis.ResponseError):  # one broken queue must not hide the others
                    state = queue.state()
                    counts = [state.count, state.reserved, state.dead]
            found.append(Counts(queue.name, *counts))
        return found

    def _names(self, match: str) -> tuple[list[str], bool]:
        """Return the names of the queues whose keys were seen, sorted, and whether all keys were scanned."""
        escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix)
        pattern = re.compile(
            r"\{?" + re.escape(self.prefix) + f"({NAME_PATTERN.pattern})" + r"(?:\}:((?:dead:)*)(?:reserved|dead))?"
        )
        matches = re.compile(fnmatch.translate(match)).match
        names: set[str] = set()
        end, cursor = time.monotonic() + SCAN_TIMEOUT, 0
        while True:
            cursor, keys = self.client.scan(cursor, match=f"*{escaped}*", count=SCAN_COUNT)
            for key in keys:
                found = pattern.fullmatch(key.decode(errors="replace"))
                if found:
                    # Dead letters may be reserved and die again: `dead:` stands as often as the name ends in .dead
                    name = found[1] + DEAD_SUFFIX * (found[2] or "").count(":")
                    if matches(name):
                        names.add(name)
            if cursor == 0 or time.monotonic() > end:
                return sorted(names), cursor == 0
