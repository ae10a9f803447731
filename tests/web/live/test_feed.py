"""What all event streams share, with a feed that a test controls: when it is polled, and what its streams send."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests.servers import until
from tests.web.live.fakes import FakeClient
from web.live import feed as feed_module
from web.live.feed import EventStreams, Feed, Reader


class FakeFeed(Feed):
    """A feed whose state is a number that the test sets."""

    def __init__(self, key: str) -> None:
        super().__init__(key, rest=0.01)
        self.state = self.polls = 0
        self.event = ""
        self.error: Exception = redis.ConnectionError()
        self.failures = 0  # polls to come that fail
        self.may_end = threading.Event()  # clear it to let a poll hang
        self.may_end.set()

    def start(self, notify: Callable[[], None]) -> None:
        self.notify = notify

    def stop(self) -> None:
        pass

    def poll(self, feeds: int) -> float:
        self.polls += 1
        state = self.state
        self.may_end.wait()
        if self.failures:
            self.failures -= 1
            raise self.error
        self.publish(str(state))
        return 1000

    def publish_fault(self, error: redis.RedisError) -> None:
        self.publish("fault")

    def publish(self, event: str) -> None:
        if event != self.event:
            self.event = event
            self.wake_streams()


class FakeReader(Reader):
    def __init__(self, feed: FakeFeed) -> None:
        self.feed, self.version = feed, 0

    def next_event(self) -> str:
        is_new, self.version = self.version != self.feed.version, self.feed.version
        return self.feed.event if is_new else ""


class Followed:
    """A feed, and the events of a stream that follows it."""

    def __init__(self, streams: EventStreams, key: str, make_reader: Callable[[FakeFeed], Reader] = FakeReader) -> None:
        self.feed = FakeFeed(key)
        self.events: list[str] = []
        self.client = FakeClient(check_interval=1000)
        self.streams = streams
        self.stream = streams.stream(self.feed, make_reader, self.client)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for event in self.stream:
            self.events.append(event)
        self.events.append("end")

    def until(self, event: str) -> None:
        until(lambda: self.events and self.events[-1] == event)

    def settle(self) -> None:
        """Wait until the next notification would lead to a poll at once."""
        until(lambda: not self.feed.is_polled and time.monotonic() > self.feed.rests_until > 0)


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Followed]]:
    """Let streams follow feeds until the end of the test."""
    monkeypatch.setattr(feed_module, "RETRY_DELAY", 0.05)
    is_stopping = threading.Event()
    streams, opened = EventStreams(is_stopping.is_set), list[Followed]()

    def start(key: str = "a", make_reader: Callable[[FakeFeed], Reader] = FakeReader) -> Followed:
        opened.append(Followed(streams, key, make_reader))
        return opened[-1]

    yield start
    is_stopping.set()
    for one in opened:
        one.feed.may_end.set()
        one.client.notify()
    for one in opened:
        one.until("end")
    until(lambda: not streams._pollers and not streams.feeds and not streams._schedule)


def test_a_feed_is_polled_at_once_and_after_each_notification(follow: Callable[..., Followed]) -> None:
    one = follow()
    one.until("0")
    one.settle()
    one.feed.state = 1
    one.feed.notify()
    one.until("1")
    assert one.feed.polls == 2


def test_a_change_during_a_poll_is_not_missed(follow: Callable[..., Followed]) -> None:
    one = follow()
    one.until("0")
    one.settle()
    one.feed.may_end.clear()
    one.feed.notify()
    until(lambda: one.feed.polls == 2)
    one.feed.state = 2  # after that poll has read it
    one.feed.notify()
    one.feed.may_end.set()
    one.until("2")


def test_a_poll_that_hangs_does_not_delay_other_feeds_that_are_due(follow: Callable[..., Followed]) -> None:
    opened = [follow(key) for key in ("hangs", "b", "c")]
    for one in opened:
        one.until("0")
        one.settle()
    hangs, *others = opened
    hangs.feed.may_end.clear()
    with hangs.streams._lock:  # so that all are due when the first of them is polled
        for one in opened:
            one.feed.state = 1
            one.feed.notify()
    for one in others:
        one.until("1")
    assert hangs.events[-1] == "0"
    hangs.feed.may_end.set()
    hangs.until("1")
    until(lambda: hangs.streams._pollers == 1)


def test_a_feed_that_cannot_be_polled_is_retried(follow: Callable[..., Followed]) -> None:
    one = follow()
    one.until("0")
    for error in (redis.ConnectionError(), RuntimeError("a bug")):
        one.settle()
        one.feed.error, one.feed.failures = error, 1
        one.feed.state += 1
        one.feed.notify()
        one.until(str(one.feed.state))


def test_all_feeds_report_an_unavailable_redis_and_its_return(follow: Callable[..., Followed]) -> None:
    polled, idle = follow("polled"), follow("idle")
    for one in (polled, idle):
        one.until("0")
        one.settle()
    polled.feed.failures = feed_module.MIN_FAILURES
    polled.feed.notify()
    until(lambda: idle.events[1:] == ["0", "fault", "0"])


def test_one_lost_reply_is_a_fault_of_one_feed_only(follow: Callable[..., Followed]) -> None:
    one, other = follow("one"), follow("other")
    for each in (one, other):
        each.until("0")
        each.settle()
    one.feed.failures = 1
    one.feed.state = 1
    one.feed.notify()
    one.until("1")
    assert other.events[1:] == ["0"]


def test_a_reader_can_have_news_without_a_new_state(follow: Callable[..., Followed]) -> None:
    class Ticking(FakeReader):
        def next_event(self) -> str:
            return super().next_event() or "tick"

        def patience(self) -> float:
            return 0.01

    one = follow(make_reader=Ticking)
    until(lambda: one.events.count("tick") > 2, feed_module.HEARTBEAT_INTERVAL / 2)
