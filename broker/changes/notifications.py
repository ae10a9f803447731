"""Change notifications instead of polling (`CLIENT TRACKING ON BCAST`).

On a dedicated connection, this process receives an invalidation for every key with the queues' prefix that expires or
that any client changes, by a plain LPUSH or a script. It notifies the subscribers of the key's queue. An invalidation
names keys but not what changed, so several can be merged into one. With an empty prefix Redis reports every key of the
server. A cluster needs a connection to each primary, because a queue can move from one to another.

An idle connection is checked every CHECK_INTERVAL. Without subscribers there is no connection.
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

CHECK_INTERVAL = 5.0  # seconds of silence until the connection is checked, and again until it is given up
RETRY_DELAY = 1.0  # seconds until the next try after the connection was lost
REFUSED_RETRY_DELAY = 60.0  # the same, after the server refused: it is too old, or the user lacks a permission

Observer = Callable[[Iterable[bytes] | None], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subscription:
    """A subscription to one queue. `notify` is called from another thread and must not block."""

    keys: tuple[bytes, bytes]  # the key of the list, and the prefix of the queue's other keys
    notify: Callable[[], None]


class ChangeNotifications:
    """Notifies of changes to the queues with a prefix. Threads run only while there are subscribers or observers."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self._servers: list[Any] = [] if isinstance(client, ClusterClient) else [client]  # to be tracked
        self._live: list[Any] = []  # those of them that report changes now
        self._threads: dict[Any, threading.Thread] = {}  # of the primaries of a cluster
        self._prefixes = ["PREFIX", prefix, "PREFIX", "{" + prefix] if prefix else []
        self._subscriptions: dict[bytes, set[Subscription]] = {}
        self._observers: list[Observer] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def is_live(self) -> bool:
        """Whether every server reports its changes now. If not, poll."""
        return bool(self._servers) and all(server in self._live for server in self._servers)

    def subscribe(self, queue: ReliableQueue, notify: Callable[[], None]) -> Subscription:
        """Call `notify` when the queue has changed or might have, and when `is_live` changes, until `unsubscribe`."""
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
        """Call `observer` with the changed keys of all queues, until `unobserve`. It must not block.

        It gets None if any key might have changed, and when `is_live` changes.
        """
        with self._lock:
            self._observers.append(observer)
            self._start()

    def unobserve(self, observer: Observer) -> None:
        """Undo `observe`."""
        with self._lock:
            self._observers.remove(observer)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="change-notifications")
            self._thread.start()

    @property
    def _is_used(self) -> bool:
        return bool(self._subscriptions or self._observers)

    def _must_run(self) -> bool:
        """Return whether the thread is still needed. If not, it must end; the next subscriber starts another."""
        with self._lock:
            if not self._is_used:
                self._thread = None
            return self._thread is not None

    def _run(self) -> None:
        while self._must_run():
            if isinstance(self.client, ClusterClient):
                self._track_primaries(self.client)
                time.sleep(RETRY_DELAY)
            else:
                self._track(self.client)

    def _track_primaries(self, cluster: ClusterClient) -> None:
        """Run a thread for each primary of a cluster, and refresh the map from time to time."""
        with contextlib.suppress(redis.RedisError):
            self._servers = cluster.each_primary()
        for server in self._servers:
            thread = self._threads.get(server)
            if not thread or not thread.is_alive():
                name = "change-notifications-of-primary"
                thread = threading.Thread(target=self._track_primary, args=[server], daemon=True, name=name)
                self._threads[server] = thread
                thread.start()
        cluster.map.mark_outdated(older_than=CHECK_INTERVAL)

    def _track_primary(self, server: Any) -> None:
        while self._is_used and server in self._servers:
            self._track(server)

    def _track(self, server: Any) -> None:
        """Report a server's changes until that fails or has no subscribers, then wait before the next try."""
        delay = 0.0
        try:
            self._report_changes(server)
        except redis.RedisError as error:
            delay = RETRY_DELAY if is_transient(error) else REFUSED_RETRY_DELAY
            log.info("Polling Redis: change notifications are unavailable (%s)", error)
        except Exception:  # subscribers poll until the next try succeeds
            delay = RETRY_DELAY
            log.exception("Unexpected error in change notifications")
        if server in self._live:
            self._live.remove(server)
            self._notify(None)
        time.sleep(delay)

    def _report_changes(self, server: Any) -> None:
        command = ["CLIENT", "TRACKING", "ON", "BCAST", *self._prefixes]
        with contextlib.closing(iter_pushes(server, command, CHECK_INTERVAL)) as pushes:
            for push in pushes:
                if server not in self._live:
                    self._live.append(server)
                    self._notify(None)
                if push and push[0] == b"invalidate":
                    self._notify(push[1])
                if not self._is_used or server not in self._servers:
                    return

    def _notify(self, keys: Iterable[bytes] | None) -> None:
        """Notify all observers and the subscribers of the queues of these keys; every subscriber if `keys` is None."""
        with self._lock:
            found = self._subscriptions if keys is None else [part for key in keys for part in _parts(key)]
            subscribers = {subscription for key in found for subscription in self._subscriptions.get(key, ())}
            observers = list(self._observers)
        for observer in observers:
            observer(keys)
        for subscription in subscribers:
            subscription.notify()


def _parts(key: bytes) -> Iterator[bytes]:
    """Yield the keys under which the subscriptions to a key's queues are found: itself and its prefixes.

    `{queue:a}:dead:reserved` has the prefixes `{queue:a}:` and `{queue:a}:dead:`.
    """
    yield key
    end = key.find(b"}:") + 1
    while end > 0:
        yield key[: end + 1]
        end = key.find(b":", end + 1)
