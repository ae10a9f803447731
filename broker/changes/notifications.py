"""Redis tells which queues change, so that nobody has to ask.

One connection of a process gets a notice for every key with the queues' prefix that any client changes, by a plain
LPUSH, by a script, or that expires (`CLIENT TRACKING ON BCAST`). It tells who follows that queue. A notice says that
something has changed, never what, so nothing is lost when several become one. A cluster has a connection for each
primary, because a queue may move from one to another.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from broker.connections.cluster import ClusterClient
from broker.connections.errors import is_transient
from broker.connections.resp3 import iter_pushes
from broker.queue import ReliableQueue

CHECK_INTERVAL = 5.0  # seconds of silence after which the connection is checked, and then given up
RETRY_DELAY = 1.0  # seconds until the next try after the connection was lost
REFUSED_RETRY_DELAY = 60.0  # ... after the server refused to tell changes: it is too old, or the user may not ask

Observer = Callable[[Iterable[bytes] | None], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subscription:
    """Somebody who follows one queue: `notify` is called from another thread and must not block."""

    keys: tuple[bytes, bytes]  # the list's own key, and the prefix of the queue's other keys
    notify: Callable[[], None]


class Tracker:
    """Follows the changes of all queues with a prefix, as long as anybody is told of them."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self._servers: list[Any] = [] if isinstance(client, ClusterClient) else [client]  # to be followed
        self._live: list[Any] = []  # those of them that tell changes
        self._followers: dict[Any, threading.Thread] = {}  # of the primaries of a cluster
        self._prefixes = ["PREFIX", prefix, "PREFIX", "{" + prefix] if prefix else []
        self._subscriptions: dict[bytes, set[Subscription]] = {}
        self._observers: list[Observer] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def is_live(self) -> bool:
        """Whether changes are told; without it they must be asked for."""
        return bool(self._servers) and all(server in self._live for server in self._servers)

    def subscribe(self, queue: ReliableQueue, notify: Callable[[], None]) -> Subscription:
        """Call `notify` whenever the queue may have changed, and when `is_live` changes, until `unsubscribe`."""
        subscription = Subscription((queue.key.encode(), queue.key_prefix.encode()), notify)
        with self._lock:
            for key in subscription.keys:
                self._subscriptions.setdefault(key, set()).add(subscription)
            self._start()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with self._lock:
            for key in subscription.keys:
                self._subscriptions[key].discard(subscription)
                if not self._subscriptions[key]:
                    del self._subscriptions[key]

    def observe(self, observer: Observer) -> None:
        """Call `observer` with the keys that have changed, of any queue, until `ignore`. It must not block.

        It gets None when any key may have changed, and when `is_live` changes.
        """
        with self._lock:
            self._observers.append(observer)
            self._start()

    def ignore(self, observer: Observer) -> None:
        """Undo `observe`."""
        with self._lock:
            self._observers.remove(observer)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="follow-changes")
            self._thread.start()

    @property
    def _has_followers(self) -> bool:
        return bool(self._subscriptions or self._observers)

    def _is_needed(self) -> bool:
        """Return whether anybody is told of changes; the thread must end if nobody is."""
        with self._lock:
            if not self._has_followers:
                self._thread = None
            return self._thread is not None

    def _run(self) -> None:
        while self._is_needed():
            if isinstance(self.client, ClusterClient):
                self._follow_primaries(self.client)
                time.sleep(RETRY_DELAY)
            else:
                self._try_to_follow(self.client)

    def _follow_primaries(self, cluster: ClusterClient) -> None:
        """Let a thread follow each primary of a cluster. Now and then look whether there are others by now."""
        with contextlib.suppress(redis.RedisError):
            self._servers = cluster.each_primary()
        for server in self._servers:
            thread = self._followers.get(server)
            if not thread or not thread.is_alive():
                name = "follow-changes-of-primary"
                thread = threading.Thread(target=self._follow_primary, args=[server], daemon=True, name=name)
                self._followers[server] = thread
                thread.start()
        cluster.map.note_change(older_than=CHECK_INTERVAL)

    def _follow_primary(self, server: Any) -> None:
        while self._has_followers and server in self._servers:
            self._try_to_follow(server)

    def _try_to_follow(self, server: Any) -> None:
        """Tell a server's changes as long as that is possible, then wait until it may be again."""
        delay = 0.0
        try:
            self._follow(server)
        except redis.RedisError as error:
            delay = RETRY_DELAY if is_transient(error) else REFUSED_RETRY_DELAY
            log.info("Redis does not tell changes (%s); it is asked for them.", error)
        except Exception:  # whatever it is, Redis is asked for changes then
            delay = RETRY_DELAY
            log.exception("The changes of queues could not be followed")
        if server in self._live:
            self._live.remove(server)
            self._tell(None)
        time.sleep(delay)

    def _follow(self, server: Any) -> None:
        """Tell changes until the connection is lost, or the server need not be followed."""
        command = ["CLIENT", "TRACKING", "ON", "BCAST", *self._prefixes]
        with contextlib.closing(iter_pushes(server, command, CHECK_INTERVAL)) as pushes:
            for push in pushes:
                if server not in self._live:
                    self._live.append(server)
                    self._tell(None)
                if push and push[0] == b"invalidate":
                    self._tell(push[1])
                if not self._has_followers or server not in self._servers:
                    return

    def _tell(self, keys: Iterable[bytes] | None) -> None:
        """Notify those who follow the queues of these keys, and who observes all; everybody if they are not known."""
        with self._lock:
            found = self._subscriptions if keys is None else [part for key in keys for part in _parts(key)]
            told = {subscription for key in found for subscription in self._subscriptions.get(key, ())}
            observers = list(self._observers)
        for observer in observers:
            observer(keys)
        for subscription in told:
            subscription.notify()


def _parts(key: bytes) -> Iterator[bytes]:
    """Yield what a subscription may have in common with a key.

    `{queue:a}:dead:reserved` has the prefixes `{queue:a}:` and `{queue:a}:dead:`.
    """
    yield key
    end = key.find(b"}:") + 1
    while end > 0:
        yield key[: end + 1]
        end = key.find(b":", end + 1)
