"""The live state of queues as server-sent events: one look at Redis a change, however many clients watch."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

import redis

from broker.reliable import ReliableQueue
from web import errors as answers
from web.body import compact, preview_of

EVERY = 0.15  # seconds between two looks at a watched queue
AFTER_A_FAULT = 1.0  # seconds until the next look while Redis is away
SHOWN, CHARACTERS = 20, 160  # messages in `next`, characters of each
HEARTBEAT = 15.0  # seconds between two comment lines
TICK = 1.0  # seconds after which a stream looks whether its client is there and the server goes on


log = logging.getLogger(__name__)


class Watch:
    """The last event of one queue, looked after by one thread while anybody listens."""

    def __init__(self, queue: ReliableQueue) -> None:
        self.queue = queue
        self.listeners = 0
        self.changed = threading.Condition()
        self.event = ""
        self.version = 0

    def look(self) -> bool:
        """Look at the queue once, tell the listeners what is new, and return whether Redis answered."""
        try:
            state = self.queue.state(SHOWN, 0, 4 * CHARACTERS)
        except redis.RedisError as error:
            refusal = answers.from_redis(error, reading=True)
            self._tell("fault", {"success": False, "error": refusal.error, "message": refusal.message})
            return False
        shown = [preview_of(head, size, CHARACTERS) for head, size in state.shown]
        counts = {"count": state.count, "reserved": state.reserved, "dead": state.dead, "waiters": state.waiters}
        self._tell("queue", {"name": self.queue.name, **counts, "next": shown})
        return True

    def _tell(self, kind: str, data: dict[str, object]) -> None:
        event = f"event: {kind}\ndata: {compact(data)}\n\n"
        if event != self.event:
            with self.changed:
                self.event = event
                self.version += 1
                self.changed.notify_all()


class Events:
    """All the streams of one process."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self.stopping = stopping
        self.watches: dict[str, Watch] = {}
        self._lock = threading.Lock()

    def stream(self, queue: ReliableQueue, gone: Callable[[], bool]) -> Iterator[str]:
        """Yield the queue's state as an event, at once and after every change, until the client is `gone`."""
        watch = self._join(queue)
        try:
            yield "retry: 1000\n\n"
            seen, spoke = 0, time.monotonic()
            while not self.stopping() and not gone():
                with watch.changed:
                    if watch.version == seen:
                        watch.changed.wait(TICK)
                    event, version = watch.event, watch.version
                if version != seen:
                    seen, spoke = version, time.monotonic()
                    yield event
                elif time.monotonic() - spoke >= HEARTBEAT:
                    spoke = time.monotonic()
                    yield ": nothing new\n\n"
        finally:
            with self._lock:
                watch.listeners -= 1

    def _join(self, queue: ReliableQueue) -> Watch:
        with self._lock:
            watch = self.watches.get(queue.key)
            if watch is None:
                watch = self.watches[queue.key] = Watch(queue)
                threading.Thread(target=self._follow, args=[watch], daemon=True, name="watch").start()
            watch.listeners += 1
        return watch

    def _follow(self, watch: Watch) -> None:
        while True:
            try:
                answered = watch.look()
            except Exception:  # whatever it is, the next look may go well, and the streams depend on it
                log.exception("The queue %s could not be looked at", watch.queue.name)
                answered = False
            time.sleep(EVERY if answered else AFTER_A_FAULT)
            with self._lock:
                if not watch.listeners:
                    del self.watches[watch.queue.key]
                    return
