"""One queue as a stream of server-sent events: its counts, its next messages, and its history."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import redis

from broker.attached.notifications import KeyNotifications
from broker.attached.queue import AttachedQueue
from broker.changes.notifications import ChangeNotifications
from broker.queue import ReliableQueue
from web.answers import content_of
from web.errors import from_redis
from web.input.codec import compact
from web.live.age import Arrival, age_of, record_state
from web.live.feed import Feed, Reader
from web.live.history import History

EVENT_INTERVAL = 0.04  # seconds from one poll of a queue to the next, at least
QUIET_POLL_INTERVAL = 30.0  # seconds between two polls of a queue that does not change
MAX_QUIET_POLLS = 20.0  # of all such queues a second; with more queues, each is polled less often
POLL_INTERVAL = 0.15  # seconds between two polls of a queue where Redis sends no change notifications
MAX_POLLS = 100.0  # of all such queues a second
MAX_NEXT = 20  # messages in `next`
PREVIEW_CHARACTERS = 160  # of each


@dataclass(frozen=True)
class Event:
    """An event for all streams of a queue. `heads` are the previews of its next messages."""

    kind: str
    data: dict[str, Any]
    heads: list[dict[str, Any]] = field(default_factory=list)
    arrival: Arrival | None = field(default=None, compare=False)  # of its next message; an age that grows is no news
    _head_texts: dict[int, str] = field(default_factory=dict, compare=False)

    @cached_property
    def text(self) -> str:
        """The text that all streams share, without the heads."""
        return f"event: {self.kind}\ndata: {compact(self.data)[:-1]}"

    def heads_text(self, number: int) -> str:
        """Return up to `number` heads as JSON."""
        if number not in self._head_texts:
            self._head_texts[number] = compact(self.heads[:number])
        return self._head_texts[number]


def attached_facts(queue: ReliableQueue) -> dict[str, object]:
    """Return the fields that only a list of another program has."""
    return {"attached": queue.about(), "beside": queue.beside()} if isinstance(queue, AttachedQueue) else {}


class QueueFeed(Feed):
    """The last event of one queue."""

    def __init__(self, queue: ReliableQueue, tracker: ChangeNotifications | KeyNotifications, history: History) -> None:
        super().__init__(queue.key, EVENT_INTERVAL)
        self.queue, self.tracker, self.history = queue, tracker, history
        self.event: Event | None = None
        self.polled_step = 0  # the step of the history in which the last successful poll was made
        self._subscription: Any = None  # of the tracker

    def start(self, notify: Callable[[], None]) -> None:
        self._subscription = self.tracker.subscribe(self.queue, notify)

    def stop(self) -> None:
        if self._subscription:
            self.tracker.unsubscribe(self._subscription)

    def poll(self, feeds: int) -> float:
        try:
            state = self.queue.state(MAX_NEXT, 0, 4 * PREVIEW_CHARACTERS)
            more = attached_facts(self.queue)
        except redis.RedisError as error:
            self.publish_fault(error)
            raise
        arrival = record_state(self.history, self.queue.name, state, watched=True)
        self.polled_step = self.history.current_step()
        heads = [content_of(self.queue, head, size, PREVIEW_CHARACTERS) for head, size in state.heads]
        self._publish(Event("queue", {"name": self.queue.name, **state.counts.as_dict(), **more}, heads, arrival))
        if not self.tracker.is_live:
            return max(POLL_INTERVAL, feeds / MAX_POLLS)
        quiet = max(QUIET_POLL_INTERVAL, feeds / MAX_QUIET_POLLS) * random.uniform(0.8, 1)
        return quiet if state.next_change is None else min(quiet, state.next_change)

    def publish_fault(self, error: redis.RedisError) -> None:
        self._publish(Event("fault", from_redis(error, reading=True).answer()))

    def _publish(self, event: Event) -> None:
        is_new, self.event = event != self.event, event
        if is_new:
            self.wake_streams()


class QueueReader(Reader):
    """Keeps track of what one stream has sent: up to `max_next` messages, and the history if `with_history`."""

    def __init__(self, feed: QueueFeed, max_next: int = MAX_NEXT, with_history: bool = False) -> None:
        self.feed, self.history = feed, feed.history
        self.max_next = max_next
        self.with_history = with_history
        self._version = 0
        self._text = self._heads = ""
        self._sent_step = 0  # the last step of the history that was sent
        self._checked_step = 0  # the last one that was looked up

    def next_event(self) -> str:
        version, event = self.feed.version, self.feed.event
        is_new_step = self.with_history and self._checked_step < min(self.feed.polled_step, self._last_step())
        if event is None or (version == self._version and not is_new_step):
            return ""
        self._version = version
        is_new, self._text = event.text != self._text, event.text
        more = ""
        if event.kind == "queue":
            more = f',"age":{compact(age_of(event.arrival, self.history))}'
            heads = event.heads_text(self.max_next)
            if heads != self._heads:
                is_new, self._heads = True, heads
                more += f',"next":{heads}'
            steps = self._new_steps(event) if self.with_history else None
            if steps and (is_new or any(steps["in"] + steps["out"])):
                is_new, self._sent_step = True, self._checked_step
                more += f',"history":{compact(steps)}'
        return f"{event.text}{more}}}\n\n" if is_new else ""

    def patience(self) -> float:
        awaits_step = self.with_history and self._checked_step < self.feed.polled_step
        return self.history.seconds_left() + 0.01 if awaits_step else math.inf

    def _last_step(self) -> int:
        return self.history.current_step() - 1

    def _new_steps(self, event: Event) -> dict[str, Any] | None:
        """Return the steps not sent yet, once per step. The counts of the event still hold, however old they are."""
        if self._last_step() <= self._checked_step:
            return None
        self._checked_step = self._last_step()
        self.history.record_depth(event.data["name"], event.data["count"], watched=True)
        return self.history.steps(event.data["name"], after=self._sent_step)
