"""The objects that all requests of a process share: `request.services`, also `app.extensions["queue"]`."""

import logging
import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import redis

from broker.attached.notifications import KeyNotifications
from broker.attached.queue import AttachedQueue
from broker.attached.registry import AttachedLists
from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.connections.connection import connect
from broker.connections.health import find_warning
from broker.listing import QueueLister
from broker.queue import ReliableQueue
from broker.revoked_sessions import RevokedSessions
from settings import Settings
from web.access.throttle import AuthThrottle
from web.counters import Counters
from web.errors import from_redis
from web.fairness import BodyMemory, FairScheduler
from web.live.feed import EventStreams
from web.live.history import History
from web.live.long_poll import LongPoll
from web.live.wait import Slots
from web.log_limit import LogLimit

MAX_QUEUES = 1000  # that a process keeps ready
BODIES_AT_ONCE = 4  # bodies of MAX_BODY_BYTES that a process may hold
RETRY_DELAY = 1.0  # seconds between two attempts to reach Redis

log = logging.getLogger(__name__)


class Services:
    """The Redis clients, the feeds and the counters. Nothing is opened before its first use."""

    def __init__(self, settings: Settings, client: Any = None) -> None:
        """Use `client`, if given, for all commands, blocking ones too; else connect to the server in the settings."""
        self.settings = settings
        # gunicorn's hooks set these two before the first request: a low limit of open files reduces the first.
        self.max_blocked_clients = settings.max_blocked_clients
        self.is_stopping: Callable[[], bool] = lambda: False
        self.auth_throttle = AuthThrottle()
        self.scheduler = FairScheduler()
        self.counters = Counters()
        self.history = History()
        self.log_limit = LogLimit()
        self.body_memory = BodyMemory(BODIES_AT_ONCE * settings.max_body_bytes)
        self._client = client

    @cached_property
    def client(self) -> Any:
        """The client for ordinary commands."""
        return self._client or connect(self.settings.server_url)

    @cached_property
    def slots(self) -> Slots:
        """The limit on requests that stay open: blocked clients and event streams."""
        return Slots(self.max_blocked_clients)

    @cached_property
    def long_poll(self) -> LongPoll:
        """The requests that wait for a message or a result."""
        blocking_client = self._client or connect(self.settings.server_url, blocking=True)
        return LongPoll(blocking_client, self.slots, self.is_stopping, self.tracker, self.sweeper)

    @cached_property
    def event_streams(self) -> EventStreams:
        """The event streams of single queues and of all queues."""
        return EventStreams(self.is_stopping)

    @cached_property
    def tracker(self) -> ChangeNotifications:
        """The connection that receives change notifications from Redis."""
        return ChangeNotifications(self.client, self.settings.queue_prefix)

    @cached_property
    def sweeper(self) -> Sweeper:
        """The background sweeper, which also reports stored results."""
        return Sweeper(self.client, self.settings.queue_prefix, self._queues)

    @cached_property
    def lister(self) -> QueueLister:
        """The list of all queues."""
        settings = self.settings
        return QueueLister(self.client, settings.queue_prefix, settings.max_deliveries, self.attached_lists)

    @cached_property
    def attached_lists(self) -> AttachedLists:
        """The lists of other programs."""
        settings = self.settings
        return AttachedLists(
            self.client,
            settings.lists,
            settings.queue_prefix,
            own=settings.own_lists,
            is_shared=not settings.embedded,
            is_writable=settings.lists_writable,
            siblings=self.queue,
        )

    @cached_property
    def attached_tracker(self) -> KeyNotifications:
        """The connection that receives change notifications of the lists of other programs."""
        return KeyNotifications(self.client, self.attached_lists.watched_keys)

    @cached_property
    def revoked_sessions(self) -> RevokedSessions:
        """The sessions of the page that were signed out."""
        return RevokedSessions(self.client, self.settings.queue_prefix)

    def queue(self, name: str) -> ReliableQueue:
        """Return the queue of that name, or the list of another program.

        Raises:
            redis.RedisError: it cannot be found out yet whose it is.
        """
        return self.attached_lists.find(name) or self._queues(name)

    @cached_property
    def _queues(self) -> Callable[[str], ReliableQueue]:
        """The queues by name, as every request needs one; they have no state of their own."""
        settings = self.settings

        def make(name: str) -> ReliableQueue:
            queue = ReliableQueue(self.client, name, settings.queue_prefix, settings.max_deliveries)
            queue.siblings = self.queue
            return queue

        return lru_cache(maxsize=MAX_QUEUES)(make)

    def count_in(self, file: Path) -> None:
        """Keep counts and history in files beside those of the other processes; if that fails, in memory."""
        try:
            self.counters, self.history = Counters(file), History(file.with_suffix(".history"))
        except Exception as error:  # a full disk, or a damaged file
            log.warning("This process counts for itself, so /metrics and charts are incomplete: %s", error)

    def log_warning(self) -> None:
        """Wait until Redis is available, then log a warning if its configuration or state puts messages at risk.

        A Redis that is not available at the start is logged too, with the reason.
        """
        reason = ""
        while not self.is_stopping():
            try:
                name = self.settings.queue_name
                if isinstance(self.queue(name), AttachedQueue):
                    return  # it needs none of the permissions
                if warning := find_warning(self.client, name, self.settings.queue_prefix):
                    log.warning(warning)
                return
            except redis.RedisError as error:
                if not reason:
                    reason = from_redis(error, reading=True).message
                    log.warning("%s Trying again until it works.", reason.removesuffix(" Nothing was changed."))
                time.sleep(RETRY_DELAY)
