"""The list of all queues, found by scanning the keys for a limited time."""

import contextlib
import fnmatch
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import redis

from broker.attached.queue import AttachedQueue
from broker.attached.registry import AttachedLists
from broker.connections.cluster import each_primary
from broker.connections.errors import is_transient
from broker.keys import NAME_PATTERN, parent_name, queue_of, tagged_key_pattern
from broker.models import QueueCounts
from broker.queue import ReliableQueue

LIST_TIMEOUT = 1.5  # seconds; queues that were not scanned and counted by then are left out
SCAN_COUNT = 1000  # keys a step, which takes Redis a millisecond or two
COUNT_BATCH = 200  # queues counted at once, which takes this process some milliseconds
MAX_QUEUES = 10_000  # in a listing, which then has a few MiB
CACHE_TTL = 1.0  # seconds
HOLDING_KEYS = ("reserved", "delayed", "dead", "paused")  # with any of these a queue is listed, even without a list
COUNTED_KEYS = (*HOLDING_KEYS, "waiters")  # a change of one of these changes the counts


@dataclass(frozen=True)
class ListedQueue:
    """A queue in a listing."""

    name: str
    counts: QueueCounts
    attached: dict[str, object] | None = None  # of a list of another program: as in AttachedQueue.about

    def as_dict(self) -> dict[str, Any]:
        attached = {"attached": self.attached} if self.attached else {}
        return {"name": self.name, **self.counts.as_dict(), **attached}


@dataclass(frozen=True)
class Listing:
    """The queues that are not empty, or are paused, sorted by name.

    `complete` is false if queues were left out: time ran out, a server did not answer, or there are too many. `unnamed`
    is the number of lists with the prefix whose name is not valid, so that this app cannot serve them.
    """

    queues: list[ListedQueue]
    complete: bool
    unnamed: int

    def as_dict(self) -> dict[str, Any]:
        queues = [queue.as_dict() for queue in self.queues]
        return {"queues": queues, "complete": self.complete, "unnamed": self.unnamed}


class QueueLister:
    """Lists the queues of one Redis. A listing is cached for a second; concurrent callers share one scan."""

    def __init__(self, client: Any, prefix: str, max_deliveries: int, attached: AttachedLists | None = None) -> None:
        self.client = client
        self.attached = attached
        self.prefix = prefix
        self.max_deliveries = max_deliveries
        self._prefix = prefix.encode()
        self._cache: dict[str, tuple[float, Future[Listing]]] = {}  # pattern -> expiry (monotonic), listing
        self._lock = threading.Lock()
        self._known: set[str] = set()  # found before, so that an incomplete scan does not lose them
        self._scanned_to = 0, 0  # where the last scan ran out of time: the number of the server, and the cursor
        name = f"{re.escape(prefix)}({NAME_PATTERN.pattern})"
        self._list_key = re.compile(name.encode())
        self._tagged_key = tagged_key_pattern(prefix)
        self._own_key = re.compile(rf"\{{(?:{name}|{re.escape(prefix)})\}}:".encode())

    def list_queues(self, match: str = "*") -> Listing:
        """Return the queues whose name matches a glob pattern. Dead letters are counted with their queue.

        Raises:
            redis.RedisError: no server answered.
        """
        with self._lock:
            now = time.monotonic()
            self._cache = {key: cached for key, cached in self._cache.items() if now < cached[0]}
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
        """Return a new listing of up to MAX_QUEUES queues, made within `timeout` seconds (LIST_TIMEOUT by default).

        Raises:
            redis.RedisError: no server answered.
        """
        matches = re.compile(fnmatch.translate(match)).match
        found: list[ListedQueue] = []
        attached = self._attached_queues()
        reached, counted, seen = self._known | attached.keys(), set[str](), set[bytes]()
        unnamed, complete = 0, False
        end = time.monotonic() + (LIST_TIMEOUT if timeout is None else timeout)

        def count(names: Iterable[str]) -> bool:
            """Count the queues that match; return whether time was enough for all of them."""
            left = [name for name in names if matches(name) and name not in counted]
            while left:
                batch, left = left[:COUNT_BATCH], left[COUNT_BATCH:]
                found.extend(self._count(batch))
                counted.update(batch)
                if is_over():
                    break
            return not left

        def is_over() -> bool:
            return len(found) > MAX_QUEUES or time.monotonic() > end

        all_counted = count(reached)
        for keys, is_whole in self._scan():
            names, others = self._sort_keys(keys, HOLDING_KEYS)
            others = {key for key in others if matches(self._shown(key))} - seen
            unnamed += self._number_of_lists(others)
            seen |= others
            reached |= names
            all_counted = all_counted and count(names)
            complete = is_whole and all_counted and len(found) <= MAX_QUEUES
            if is_over():
                break
        self._known = set(list((self._known | reached) - (counted - {queue.name for queue in found}))[:MAX_QUEUES])
        return Listing(sorted(found[:MAX_QUEUES], key=lambda queue: queue.name), complete, unnamed)

    def names_of(self, keys: Iterable[bytes]) -> set[str]:
        """Return the queues whose counts may have changed with these keys."""
        keys = set(keys)
        attached = self.attached.names_of(keys) if self.attached else set()
        return self._sort_keys(keys, COUNTED_KEYS)[0] | attached

    def count_queues(self, names: Sequence[str]) -> list[ListedQueue]:
        """Return the queues that are not empty or are paused.

        Raises:
            redis.RedisError: a server is unavailable.
        """
        return [queue for batch in batched(names, COUNT_BATCH) for queue in self._count(batch, partly=False)]

    def _scan(self) -> Iterator[tuple[list[bytes], bool]]:
        """Yield the keys of all servers in steps, and whether that is all of them: the last step, no server left out.

        It begins where the last scan was broken off, so that scans that run out of time find all queues together.

        Raises:
            redis.RedisError: no server answered. Servers of a cluster that do not answer are left out.
        """
        escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix)
        servers = each_primary(self.client)
        number, cursor = self._scanned_to if self._scanned_to[0] < len(servers) else (0, 0)
        is_whole, errors = (number, cursor) == (0, 0), list[redis.RedisError]()
        while True:
            keys = None
            try:
                cursor, keys = servers[number].scan(cursor, match=f"*{escaped}*", count=SCAN_COUNT)
            except redis.RedisError as error:
                errors.append(error)
                cursor = 0
            number += cursor == 0
            is_end = number == len(servers)
            self._scanned_to = (0, 0) if is_end else (number, cursor)
            if keys is not None:
                yield keys, is_end and is_whole and not errors
            if len(errors) == len(servers):
                raise errors[0]
            if is_end and is_whole:
                return
            if is_end:
                number, is_whole, errors = 0, True, []

    def _sort_keys(self, keys: Iterable[bytes], kinds: Sequence[str]) -> tuple[set[str], set[bytes]]:
        """Return the queues that have these keys (lists, or keys of these kinds), and the keys of no queue."""
        names, others = set(), set()
        ends = tuple(f":{kind}".encode() for kind in kinds)  # a cheap check: a million results are no holding keys
        for key in keys:
            if plain := self._list_key.fullmatch(key):
                name = plain[1].decode()
                if parent_name(name) is None:
                    names.add(name)
                else:
                    others.add(key)  # the dead letters of a queue have another key
            elif key.endswith(ends) and (tagged := self._tagged_key.fullmatch(key.decode(errors="replace"))):
                names.add(queue_of(tagged))
            elif key.startswith(self._prefix) and not self._own_key.match(key):
                others.add(key)
        return names, others

    def _shown(self, key: bytes) -> str:
        return key[len(self.prefix) :].decode(errors="replace")

    def _number_of_lists(self, keys: Iterable[bytes]) -> int:
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        return sum(isinstance(length, int) for length in pipeline.execute(raise_on_error=False))

    def _count(self, names: Iterable[str], partly: bool = True) -> list[ListedQueue]:
        """Return the queues that are not empty or are paused. Those with a key of a wrong type are left out.

        Queues whose server does not answer are left out too, or raise its error if `partly` is false.
        """
        attached, names = self._attached_queues(), list(names)
        found = self._count_attached([attached[name] for name in names if name in attached], partly)
        own = [name for name in names if name not in attached]
        queues = [ReliableQueue(self.client, name, self.prefix, self.max_deliveries) for name in own]
        pipeline = self.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.key_prefix + "reserved")
            pipeline.zcard(queue.key_prefix + "delayed")
            pipeline.llen(queue.key_prefix + "dead")
            pipeline.exists(queue.key_prefix + "waiters")
            pipeline.exists(queue.key_prefix + "paused")
        replies = pipeline.execute(raise_on_error=False)
        for reply in replies:
            if not partly and isinstance(reply, redis.RedisError) and is_transient(reply):
                raise reply
        for queue, (count, reserved, delayed, dead, waiters, paused) in zip(queues, batched(replies, 6), strict=True):
            holds = (count, reserved, delayed, dead, paused)
            if not all(isinstance(number, int) for number in holds) or not any(holds):
                continue
            counts = QueueCounts(count, reserved, delayed, dead, 0, paused == 1)
            if reserved or delayed or waiters:  # some of them may have expired
                with contextlib.suppress(redis.ResponseError):  # one broken queue must not hide the others
                    counts = queue.state().counts
            found.append(ListedQueue(queue.name, counts))
        return found

    def _attached_queues(self) -> dict[str, AttachedQueue]:
        """Return the lists of other programs, by name."""
        if not self.attached:
            return {}
        self.attached.refresh()
        return {queue.name: queue for queue in self.attached.queues()}

    def _count_attached(self, queues: Sequence[AttachedQueue], partly: bool) -> list[ListedQueue]:
        """Return those of these lists that hold something, or are shown even if they do not."""
        found: list[ListedQueue] = []
        pipeline = self.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.llen(queue.key)
        for queue, count in zip(queues, pipeline.execute(raise_on_error=False), strict=True):
            if not partly and isinstance(count, redis.RedisError) and is_transient(count):
                raise count
            if isinstance(count, int) and (count or queue.attached.shown_empty):
                found.append(ListedQueue(queue.name, QueueCounts(count), queue.about()))
        return found


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items in batches of `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
