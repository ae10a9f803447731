"""Which lists of this Redis are attached now: those of the settings, those found by `*`, and Sidekiq's.

Sidekiq's queues have the keys that ours have by default, `queue:<name>`. Its set `queues` names them.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import redis

from broker.attached.names import FROM_THE_LEFT, AttachedList, ListsSetting, name_of, with_names
from broker.attached.queue import TIDYING, AttachedQueue
from broker.connections.cluster import each_primary
from broker.connections.errors import NotSent, find_fault
from broker.keys import digest_of, is_name
from broker.queue import ReliableQueue
from RedisQueue import list_key

SIDEKIQ_PREFIX, SIDEKIQ_QUEUES = "queue:", "queues"
SIDEKIQ_INTERVAL = 5.0  # seconds between two looks at Sidekiq's queues
SCAN_INTERVAL = 30.0  # seconds between two scans for lists, at least,
SCAN_REST_FACTOR = 100  # and as a multiple of the time it took
SCAN_COUNT = 1000  # keys a step
MAX_FOUND = 1000  # lists that `*` attaches
_BESIDE = re.compile(r"\{.+\}:")  # keys beside a list: dead letters, and what was cleared

log = logging.getLogger(__name__)


class AttachedLists:
    """The attached lists of one Redis. It looks for new ones when it is asked, at most once in a while."""

    def __init__(
        self,
        client: Any,
        setting: ListsSetting,
        prefix: str,
        *,
        own: Iterable[str] = (),
        is_shared: bool = True,
        is_writable: bool = False,
        siblings: Callable[[str], ReliableQueue] | None = None,
    ) -> None:
        """`own` are queues that are ours although Sidekiq names them; `is_shared`: others may use that Redis.

        With `is_writable` the lists can be tidied up. `siblings` finds a queue to which messages are moved.
        """
        self._may = TIDYING if is_writable else ()
        self._siblings = siblings
        self.client, self.prefix, self.every = client, prefix, setting.every
        self._own = frozenset(own)
        self._looks_for_sidekiq = is_shared and prefix == SIDEKIQ_PREFIX
        self._set = with_names(setting, prefix)
        self._found: dict[str, AttachedList] = {}  # by `*`
        self._sidekiq: dict[str, AttachedList] = {}
        self._lock = threading.Lock()
        self._looking: Future[None] | None = None
        self._next_look = self._next_scan = 0.0  # monotonic
        self._queues: dict[str, AttachedQueue] = {}
        self._names_of: dict[bytes, set[str]] = {}
        self._collect()

    def find(self, name: str) -> AttachedQueue | None:
        """Return the attached list of that name, if there is one.

        Raises:
            redis.RedisError: Redis could not be asked at all yet, so it is not known whose the list is.
        """
        self.refresh()
        return self._queues.get(name)

    def queues(self) -> list[AttachedQueue]:
        """Return all attached lists."""
        return list(self._queues.values())

    def names_of(self, keys: Iterable[bytes]) -> set[str]:
        """Return the attached lists that are shown by these keys."""
        return {name for key in keys for name in self._names_of.get(key, ())}

    def watched_keys(self) -> set[bytes]:
        """Return the keys whose changes `names_of` understands."""
        return set(self._names_of)

    def refresh(self) -> None:
        """Look for new lists, if it is time; the first time, others wait for it."""
        if not (self._looks_for_sidekiq or self.every) or time.monotonic() < self._next_look:
            return
        is_first = self._next_look == 0
        with self._lock:
            looking, is_leader = self._looking or Future(), self._looking is None
            self._looking = looking
        if is_leader:
            self._look_for(looking)
        if is_first and (error := looking.exception()):
            raise error
        if is_leader:
            self._next_look = time.monotonic() + SIDEKIQ_INTERVAL

    def _look_for(self, looking: "Future[None]") -> None:
        """Look, and let all that wait for it know how it ended."""
        try:
            self._look()
            looking.set_result(None)
        except BaseException as error:
            is_lost = isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and not find_fault(error)
            unchanged = is_lost and not isinstance(error, NotSent)  # nothing was changed, though the reply is lost
            looking.set_exception(NotSent(str(error)) if unchanged else error)
            if not isinstance(error, redis.RedisError):
                raise
        finally:
            self._looking = None

    def _look(self) -> None:
        if self._looks_for_sidekiq:
            self._look_for_sidekiq()
        if self.every and time.monotonic() >= self._next_scan:
            began = time.monotonic()
            self._scan()
            now = time.monotonic()
            self._next_scan = now + max(SCAN_INTERVAL, SCAN_REST_FACTOR * (now - began))
        self._collect()

    def _look_for_sidekiq(self) -> None:
        try:
            names = {name.decode(errors="replace") for name in self.client.smembers(SIDEKIQ_QUEUES)}
        except redis.exceptions.NoPermissionError:
            self._looks_for_sidekiq = False  # each try would be an entry in the server's log
            return
        except redis.ResponseError:  # of another type, so it is not Sidekiq's
            names = set()
        for name in sorted(filter(is_name, names - self._own - self._sidekiq.keys())):
            self._sidekiq[name] = AttachedList(name, list_key(name, self.prefix), why="sidekiq", shown_empty=False)
            log.warning(
                "The queue %s belongs to Sidekiq, whose set `%s` names it, so it is only looked at. "
                "If it is yours, add it to OWN_LISTS.",
                name,
                SIDEKIQ_QUEUES,
            )
        for name in self._sidekiq.keys() - names:
            del self._sidekiq[name]

    def _scan(self) -> None:
        """Find all lists that are neither ours nor named in the settings."""
        known = {one.key for one in self._set.values()}
        keys = set[str]()
        for server in each_primary(self.client):
            for raw in server.scan_iter(count=SCAN_COUNT, _type="list"):
                key = raw.decode(errors="replace")
                if not (key.startswith(self.prefix) or key in known or _BESIDE.match(key) or "\ufffd" in key):
                    keys.add(key)
                if len(keys) >= MAX_FOUND:
                    break
        for key in sorted(keys - {one.key for one in self._found.values()}):
            name = name_of(key, self.prefix)
            if name in self._set or name in self._found:
                name = f"{name[:100]}-{digest_of(key.encode())[:6]}"
            is_left = FROM_THE_LEFT.fullmatch(key) is not None
            self._found[name] = AttachedList(name, key, is_left, why="*", shown_empty=False)
        if len(self._found) > MAX_FOUND:
            self._found = {name: one for name, one in self._found.items() if one.key in keys}

    def _collect(self) -> None:
        attached = self._sidekiq | self._found | self._set
        known, queues = self._queues, dict[str, AttachedQueue]()
        for name, one in attached.items():
            is_same = name in known and known[name].attached == one
            queues[name] = known[name] if is_same else AttachedQueue(self.client, one, self._may)
            queues[name].siblings = self._siblings
        if self.prefix:  # a queue of ours that is the same list goes by its own name too
            for queue in list(queues.values()):
                if queue.key.startswith(self.prefix):
                    queues.setdefault(queue.key.removeprefix(self.prefix), queue)
        names_of: dict[bytes, set[str]] = {}
        for queue in queues.values():
            for key in queue.watched_keys:
                names_of.setdefault(key.encode(), set()).add(queue.name)
        self._queues, self._names_of = queues, names_of
