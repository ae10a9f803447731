"""The live state of queues as server-sent events: one poll of Redis a change, however many clients watch."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

import redis

from broker.reliable import ReliableQueue
from web.codec import compact, preview
from web.errors import from_redis

POLL_INTERVAL = 0.15  # seconds between two polls of a watched queue
RETRY_DELAY = 1.0  # seconds until the next poll while Redis is away
MAX_NEXT = 20  # messages in `next`
PREVIEW_CHARACTERS = 160  # of each
HEARTBEAT_INTERVAL = 15.0  # seconds between two comment lines
PEER_CHECK_INTERVAL = 1.0  # how often a stream checks for a disconnect and for a stop, seconds


log = logging.getLogger(__name__)


class Watch:
    """The last event of one queue, kept up to date by one thread while anybody listens."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.listeners = 0
        self.changed = threading.Condition()
        self.event = ""
        self.version = 0

    def poll(self) -> bool:
        """Ask Redis once, publish what is new, and return whether Redis answered."""
        try:
            state = self.queue.state(MAX_NEXT, 0, 4 * PREVIEW_CHARACTERS)
        except redis.RedisError as error:
            self._publish("fault", from_redis(error, reading=True).answer())
            return False
        heads = [preview(head, size, PREVIEW_CHARACTERS) for head, size in state.heads]
        counts = {"count": state.count, "reserved": state.reserved, "dead": state.dead, "waiters": state.waiters}
        self._publish("queue", {"name": self.queue.name, **counts, "next": heads})
        return True

    def _publish(self, kind: str, data: dict[str, object]) -> None:
        event = f"event: {kind}\ndata: {compact(data)}\n\n"
        if event != self.event:
            with self.changed:
                self.event = event
                self.version += 1
                self.changed.notify_all()


class Events:
    """All the streams of one process."""

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        self.is_stopping = is_stopping
        self.watches: dict[str, Watch] = {}
        self._lock = threading.Lock()

    def stream(self, queue: ReliableQueue, is_gone: Callable[[], bool]) -> Iterator[str]:
        """Yield the queue's state as an event, at once and after every change, until the client is gone."""
        watch = self._join(queue)
        try:
            yield "retry: 1000\n\n"
            seen, sent_at = 0, time.monotonic()
            while not self.is_stopping() and not is_gone():
                with watch.changed:
                    if watch.version == seen:
                        watch.changed.wait(PEER_CHECK_INTERVAL)
                    event, version = watch.event, watch.version
                if version != seen:
                    seen, sent_at = version, time.monotonic()
                    yield event
                elif time.monotonic() - sent_at >= HEARTBEAT_INTERVAL:
                    sent_at = time.monotonic()
                    yield ": nothing new\n\n"
        finally:
            with self._lock:
                watch.listeners -= 1

    def _join(self, queue: ReliableQueue) -> Watch:
        with self._lock:
            watch = self.watches.get(queue.key)
            if watch is None:
                watch = self.watches[queue.key] = Watch(queue)
                threading.Thread(target=self._poll_loop, args=[watch], daemon=True, name="watch").start()
            watch.listeners += 1
        return watch

    def _poll_loop(self, watch: Watch) -> None:
        while True:
            try:
                answered = watch.poll()
            except Exception:  # whatever it is, the streams depend on going on
                log.exception("The queue %s could not be polled", watch.queue.name)
                answered = False
            time.sleep(POLL_INTERVAL if answered else RETRY_DELAY)
            with self._lock:
                if not watch.listeners:
                    del self.watches[watch.queue.key]
                    return
