"""Change notifications of single keys (`CLIENT TRACKING ON`, without BCAST).

Redis reports a change of exactly the keys that this connection has read, once each; then they are read again, at most
every REREAD_INTERVAL. So other keys cost nothing, however often they change. In a Cluster nothing is reported, and
subscribers poll.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis

from broker.attached.queue import AttachedQueue
from broker.changes.notifications import Observer
from broker.connections.cluster import ClusterClient
from broker.queue import ReliableQueue

REREAD_INTERVAL = 0.04  # seconds from a notification of a key until the key is read again
CHECK_INTERVAL = 5.0  # seconds of silence until the connection is checked, and again until it is given up
RETRY_DELAY = 1.0  # seconds until the next try after the connection was lost
REFUSED_RETRY_DELAY = 60.0  # the same, after a refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class KeySubscription:
    """A subscription to one attached list. `notify` is called from another thread and must not block."""

    keys: tuple[bytes, ...]
    notify: Callable[[], None]


class KeyNotifications:
    """Notifies of changes to attached lists. A thread runs only while there are subscribers or observers."""

    def __init__(self, client: Any, keys: Callable[[], Iterable[bytes]]) -> None:
        """`keys` returns those of all attached lists, for observers."""
        self.client = client
        self.is_live = False  # whether changes are reported now; if not, poll
        self._all_keys = keys
        self._subscriptions: set[KeySubscription] = set()
        self._observers: list[Observer] = []
        self._connection: Any = None
        self._armed: set[bytes] = set()  # keys read on this connection, and not reported since
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def subscribe(self, queue: ReliableQueue, notify: Callable[[], None]) -> KeySubscription:
        """Call `notify` when the list has changed or might have, and when `is_live` changes, until `unsubscribe`."""
        keys = queue.watched_keys if isinstance(queue, AttachedQueue) else (queue.key,)
        subscription = KeySubscription(tuple(key.encode() for key in keys), notify)
        with self._lock:
            self._subscriptions.add(subscription)
            self._start()
            self._arm(subscription.keys)
        return subscription

    def unsubscribe(self, subscription: KeySubscription) -> None:
        """End a subscription."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def observe(self, observer: Observer) -> None:
        """Call `observer` with changed keys of any attached list, or None if any might have changed."""
        with self._lock:
            self._observers.append(observer)
            self._start()
            self._arm(self._all_keys())

    def unobserve(self, observer: Observer) -> None:
        """Undo `observe`."""
        with self._lock:
            self._observers.remove(observer)

    def _start(self) -> None:
        if self._thread is None and not isinstance(self.client, ClusterClient):
            self._thread = threading.Thread(target=self._run, daemon=True, name="key-notifications")
            self._thread.start()

    def _wanted(self) -> set[bytes]:
        wanted = {key for subscription in self._subscriptions for key in subscription.keys}
        return wanted.union(self._all_keys()) if self._observers else wanted

    def _arm(self, keys: Iterable[bytes]) -> None:
        """Read keys, so that their next change is reported; the replies are ignored. Needs the lock."""
        new = set(keys) - self._armed
        if not new or self._connection is None:
            return
        self._armed |= new
        with contextlib.suppress(redis.RedisError, OSError):  # the thread notices it too
            self._connection.send_packed_command(self._connection.pack_commands([("EXISTS", key) for key in new]))

    def _run(self) -> None:
        while True:
            with self._lock:
                if not (self._subscriptions or self._observers):
                    self._thread = None
                    return
            delay = 0.0
            try:
                self._report_changes()
            except redis.ResponseError as error:
                delay = REFUSED_RETRY_DELAY
                log.info("Polling attached lists: change notifications are unavailable (%s)", error)
            except (redis.RedisError, OSError) as error:
                delay = RETRY_DELAY
                log.info("Polling attached lists: change notifications are unavailable (%s)", error)
            except Exception:  # subscribers poll until the next try succeeds
                delay = RETRY_DELAY
                log.exception("Unexpected error in change notifications of attached lists")
            was_live, self.is_live = self.is_live, False
            if was_live:
                self._notify(None)
            time.sleep(delay)

    def _report_changes(self) -> None:
        pool = self.client.connection_pool
        connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
        try:
            connection.connect()
            connection._parser.set_invalidation_push_handler(lambda push: push)
            connection.send_command("CLIENT", "TRACKING", "ON")
            connection.read_response(push_request=True)
            with self._lock:
                self._connection, self._armed = connection, set()
                self._arm(self._wanted())
            self.is_live = True
            self._notify(None)
            self._read_pushes(connection)
        finally:
            with self._lock:
                self._connection = None
            connection.disconnect()

    def _read_pushes(self, connection: Any) -> None:
        reread_at, is_checked = 0.0, False  # monotonic; 0: nothing is to be read again
        while self._subscriptions or self._observers:
            timeout = max(0.001, reread_at - time.monotonic()) if reread_at else CHECK_INTERVAL
            try:
                push = connection.read_response(push_request=True, timeout=timeout, disconnect_on_error=False)
                is_checked = False
            except redis.TimeoutError:
                push = None
                if not reread_at:
                    if is_checked:
                        raise
                    with self._lock:
                        connection.send_command("PING")
                    is_checked = True
                    reread_at = time.monotonic()  # more lists may have been found
            except redis.ResponseError:  # a key that this user may not read
                continue
            if isinstance(push, list) and push and push[0] == b"invalidate":
                with self._lock:
                    self._armed = set() if push[1] is None else self._armed.difference(push[1])
                self._notify(push[1])
                reread_at = reread_at or time.monotonic() + REREAD_INTERVAL
            if reread_at and time.monotonic() >= reread_at:
                reread_at = 0.0
                with self._lock:
                    keys = self._wanted() - self._armed
                    self._arm(keys)
                self._notify(keys)  # they may have changed in between

    def _notify(self, keys: Iterable[bytes] | None) -> None:
        """Notify all observers, and the subscribers of these keys; every subscriber if `keys` is None."""
        changed = None if keys is None else set(keys)
        with self._lock:
            found = [one for one in self._subscriptions if changed is None or not changed.isdisjoint(one.keys)]
            observers = list(self._observers)
        for observer in observers:
            observer(changed)
        for subscription in found:
            subscription.notify()
