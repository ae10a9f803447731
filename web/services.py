"""What the requests of one process share. Every request knows it, and the app has it as `app.extensions["queue"]`."""

import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.connections.connection import connect
from broker.connections.health import find_warning
from broker.listing import QueueLister
from broker.queue import ReliableQueue
from broker.revoked_sessions import RevokedSessions
from settings import Settings
from web.counters import Counters
from web.fairness import BodyMemory, FairScheduler
from web.live.history import History
from web.live.long_poll import Waiting
from web.live.queue_feed import Events
from web.live.queue_list_feed import QueueListFeed
from web.throttle import AuthThrottle

BODIES_AT_ONCE = 4  # bodies of MAX_BODY_BYTES that a process may hold
RETRY_DELAY = 1.0  # seconds until the next look at a Redis that is away

log = logging.getLogger(__name__)


class Services:
    """The Redis clients, and everybody who waits. Nothing is opened before its first use."""

    def __init__(self, settings: Settings, client: Any = None) -> None:
        """Use `client` where it is given, for waiting too; else connect to the settings' server."""
        self.settings = settings
        self.max_blocked_clients = (
            settings.max_blocked_clients
        )  # gunicorn.conf.py lowers it where the limit of open files is low
        self.stopping: Callable[[], bool] = lambda: False  # gunicorn.conf.py says how to know
        self.auth_throttle = AuthThrottle()
        self.scheduler = FairScheduler()
        self.counters = Counters()
        self.history = History()
        self.body_memory = BodyMemory(BODIES_AT_ONCE * settings.max_body_bytes)
        self._client = client

    @cached_property
    def client(self) -> Any:
        """The client for ordinary commands."""
        return self._client or connect(self.settings.server_url)

    @cached_property
    def waiting(self) -> Waiting:
        """The clients that wait for a message."""
        blocking_client = self._client or connect(self.settings.server_url, blocking=True)
        return Waiting(blocking_client, self.max_blocked_clients, self.is_stopping, self.tracker)

    @cached_property
    def events(self) -> Events:
        """The event streams."""
        return Events(self.is_stopping, self.tracker, self.history)

    @cached_property
    def tracker(self) -> ChangeNotifications:
        """The connection on which Redis tells changes of queues."""
        return ChangeNotifications(self.client, self.settings.queue_prefix)

    @cached_property
    def timer(self) -> Sweeper:
        """What returns messages on time, and hears of results."""
        return Sweeper(self.client, self.settings.queue_prefix, self.queue)

    @cached_property
    def lister(self) -> QueueLister:
        """The list of all queues."""
        return QueueLister(self.client, self.settings.queue_prefix, self.settings.max_deliveries)

    @cached_property
    def queue_list_feed(self) -> QueueListFeed:
        """The stream of all queues."""
        return QueueListFeed(self.lister, self.tracker, self.is_stopping, self.history)

    @cached_property
    def revoked_sessions(self) -> RevokedSessions:
        """The sessions of the page that were signed out."""
        return RevokedSessions(self.client, self.settings.queue_prefix)

    def queue(self, name: str) -> ReliableQueue:
        """Return the queue of that name."""
        return ReliableQueue(self.client, name, self.settings.queue_prefix, self.settings.max_deliveries)

    def count_in(self, file: Path) -> None:
        """Count in files beside those of the other processes, so that each can tell what all have counted and seen."""
        self.counters = Counters(file)
        self.history = History(file.with_suffix(".history"))

    def log_warning(self) -> None:
        """Wait until Redis can be reached, then log what may lose messages there."""
        while not self.is_stopping():
            try:
                if warning := find_warning(self.client, self.settings.queue_name, self.settings.queue_prefix):
                    log.warning(warning)
                return
            except redis.RedisError:
                time.sleep(RETRY_DELAY)

    def is_stopping(self) -> bool:
        """Return whether this process was told to end."""
        return self.stopping()
