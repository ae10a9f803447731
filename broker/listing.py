"""All the queues there are, found by scanning the keys for a limited time."""

import contextlib
import fnmatch
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

import redis

from broker.connections.cluster import each_primary
from broker.connections.errors import is_transient
from broker.keys import NAME_PATTERN, beside_pattern, name_beside, parent_name
from broker.queue import ReliableQueue

LIST_TIMEOUT = 1.5  # seconds; what was not seen and counted by then is left out, and `complete` is false
SCAN_COUNT = 200  # keys in one step, which takes the process some milliseconds
MAX_QUEUES = 10_000  # in one listing, so that it has a few MiB
CACHE_TTL = 1.0  # seconds a listing is kept
HOLDING_KEYS = ("reserved", "delayed", "dead", "paused")  # beside a list, that make a queue worth showing
COUNTED_KEYS = (*HOLDING_KEYS, "waiters")  # beside a list, that its counts depend on


@dataclass(frozen=True)
class Counts:
    """What a queue holds."""

    name: str
    count: int
    reserved: int
    delayed: int
    dead: int
    waiters: int
    paused: bool


@dataclass(frozen=True)
class Listing:
    """The queues that hold something, by name.

    `complete` says whether all keys were looked at, and `unnamed` how many lists have the prefix and then a text that
    cannot be the name of a queue: other clients made them, and this app cannot show them.
    """

    queues: list[Counts]
    complete: bool
    unnamed: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class QueueLister:
    """Lists the queues of one Redis. A listing is kept for a second; whoever asks while it is made waits for it."""

    def __init__(self, client: Any, prefix: str, max_deliveries: int) -> None:
        self.client = client
        self.prefix = prefix
        self._prefix = prefix.encode()
        self.max_deliveries = max_deliveries
        self._cache: dict[str, tuple[float, Future[Listing]]] = {}  # pattern -> until when it is kept, and the listing
        self._lock = threading.Lock()
        name = f"{re.escape(prefix)}({NAME_PATTERN.pattern})"
        self._list_key = re.compile(name.encode())
        self._beside = beside_pattern(prefix)
        self._own_key = re.compile(rf"\{{(?:{name}|{re.escape(prefix)})\}}:".encode())

    def list_queues(self, match: str = "*") -> Listing:
        """Return the queues whose name matches a glob pattern. Dead letters are counted with their queue."""
        with self._lock:
            now = time.monotonic()
            self._cache = {key: kept for key, kept in self._cache.items() if now < kept[0]}
            is_new = match not in self._cache
            if is_new:
                self._cache[match] = math.inf, Future()
            listing = self._cache[match][1]
        if is_new:
            self._make(match, listing)
        return listing.result()

    def _make(self, match: str, listing: "Future[Listing]") -> None:
        ttl = 0.0
        try:
            listing.set_result(self.list_now(match))
            ttl = CACHE_TTL
        except BaseException as error:
            listing.set_exception(error)
            raise
        finally:
            with self._lock:
                self._cache[match] = time.monotonic() + ttl, listing

    def list_now(self, match: str = "*", timeout: float | None = None) -> Listing:
        """Return a new listing: what was found and counted in `timeout` (LIST_TIMEOUT) seconds, up to MAX_QUEUES."""
        matches = re.compile(fnmatch.translate(match)).match
        found: list[Counts] = []
        seen: set[str | bytes] = set()
        unnamed, complete = 0, False
        end = time.monotonic() + (LIST_TIMEOUT if timeout is None else timeout)
        for keys, is_last in self._scan():
            names, others = self._sort_out(keys, HOLDING_KEYS)
            names = {name for name in names if matches(name)} - seen
            others = {key for key in others if matches(self._shown(key))} - seen
            found += self._counts(names)
            unnamed += self._number_of_lists(others)
            seen |= names | others
            complete = is_last and len(found) <= MAX_QUEUES
            if len(found) > MAX_QUEUES or time.monotonic() > end:
                break
        return Listing(sorted(found[:MAX_QUEUES], key=lambda queue: queue.name), complete, unnamed)

    def names_of(self, keys: Iterable[bytes]) -> set[str]:
        """Return the queues whose counts may have changed with these keys."""
        return self._sort_out(keys, COUNTED_KEYS)[0]

    def count_queues(self, names: Sequence[str]) -> list[Counts]:
        """Return the counts of those of the queues that hold something.

        Raises:
            redis.RedisError: a server is away.
        """
        return [counts for some in batched(names, SCAN_COUNT) for counts in self._counts(some, partly=False)]

    def _scan(self) -> Iterator[tuple[list[bytes], bool]]:
        """Yield the keys of all servers some at a time, and whether these were the last and none was left out.

        Raises:
            redis.RedisError: no server can be asked. Of a cluster, one that cannot be asked is left out.
        """
        escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix)
        servers = each_primary(self.client)
        errors: list[redis.RedisError] = []
        for number, server in enumerate(servers, 1):
            cursor: int | None = None
            while cursor != 0:
                try:
                    cursor, keys = server.scan(cursor or 0, match=f"*{escaped}*", count=SCAN_COUNT)
                except redis.RedisError as error:
                    errors.append(error)
                    break
                yield keys, cursor == 0 and number == len(servers) and not errors
        if errors and len(errors) == len(servers):
            raise errors[0]

    def _sort_out(self, keys: Iterable[bytes], kinds: Sequence[str]) -> tuple[set[str], set[bytes]]:
        """Return the queues that have these keys, lists and kinds beside them, and the keys that lead to none."""
        names, others = set(), set()
        for key in keys:
            if plain := self._list_key.fullmatch(key):
                name = plain[1].decode()
                if parent_name(name) is None:
                    names.add(name)
                else:
                    others.add(key)  # the dead letters of a queue have another key
            elif (beside := self._beside.fullmatch(key.decode(errors="replace"))) and beside[3] in kinds:
                names.add(name_beside(beside))
            elif key.startswith(self._prefix) and not self._own_key.match(key):
                others.add(key)
        return names, others

    def _shown(self, key: bytes) -> str:
        return key[len(self.prefix) :].decode(errors="replace")

    def _queue(self, name: str) -> ReliableQueue:
        return ReliableQueue(self.client, name, self.prefix, self.max_deliveries)

    def _number_of_lists(self, keys: Iterable[bytes]) -> int:
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        return sum(isinstance(length, int) for length in pipeline.execute(raise_on_error=False))

    def _counts(self, names: Iterable[str], partly: bool = True) -> list[Counts]:
        """Return the counts of those queues that hold something; a key that is not a queue is left out.

        So are the queues of a primary that does not answer, unless `partly` is false: then that is an error.
        """
        queues = [self._queue(name) for name in names]
        pipeline = self.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.key_prefix + "reserved")
            pipeline.zcard(queue.key_prefix + "delayed")
            pipeline.llen(queue.key_prefix + "dead")
            pipeline.exists(queue.key_prefix + "waiters")
            pipeline.exists(queue.key_prefix + "paused")
        replies = pipeline.execute(raise_on_error=False)
        found = []
        for reply in replies:
            if not partly and isinstance(reply, redis.RedisError) and is_transient(reply):
                raise reply
        for queue, (count, reserved, delayed, dead, waiters, paused) in zip(queues, batched(replies, 6), strict=True):
            holds = (count, reserved, delayed, dead, paused)
            if not all(isinstance(number, int) for number in holds) or not any(holds):
                continue
            counts = Counts(queue.name, count, reserved, delayed, dead, 0, paused == 1)
            if reserved or delayed or waiters:  # some leases may have expired
                with contextlib.suppress(redis.ResponseError):  # one broken queue must not hide the others
                    counts = Counts(queue.name, **asdict(queue.state().counts))
            found.append(counts)
        return found


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
