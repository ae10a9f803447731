"""The event streams of one process, without HTTP: what an event looks like, and when polling ends."""

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.servers import Proxy, until
from tests.web.live.fakes import FakeClient, NoNotifications
from web.live import feed, queue_feed
from web.live.feed import EventStreams
from web.live.history import STEP_SECONDS, History
from web.live.queue_feed import QueueFeed, QueueReader


class Watched:
    """The streams of one process on a queue, read in this thread."""

    def __init__(self, client: Any, name: str) -> None:
        self.stopping = False
        self.gone = False
        self.now = 1e9
        self.history = History(clock=lambda: self.now)
        self.streams = EventStreams(lambda: self.stopping)
        self.queue = ReliableQueue(client, name)
        self.opened: list[Generator[str, None, None]] = []

    def stream(self, **options: Any) -> Generator[str, None, None]:
        made = QueueFeed(self.queue, NoNotifications(), self.history)
        client = FakeClient(lambda: self.gone, 0.01)
        self.opened.append(self.streams.stream(made, partial(QueueReader, **options), client))
        return self.opened[-1]

    def pass_step(self) -> None:
        self.now += STEP_SECONDS


def data_of(stream: Iterator[str]) -> dict[str, Any]:
    """Return the data of the next event."""
    while not (event := next(stream)).startswith("event: "):
        pass
    found: dict[str, Any] = json.loads(event.partition("\ndata: ")[2])
    return found


@pytest.fixture
def watched(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(queue_feed, "POLL_INTERVAL", 0.01)
    watched = Watched(backend, name)
    yield watched
    for stream in watched.opened:  # those of a test that failed too: the next one counts pollers
        stream.close()


def pollers() -> int:
    return [thread.name for thread in threading.enumerate()].count("poll-feeds")


def test_an_event_is_one_line_of_data_whatever_a_message_holds(watched: Watched) -> None:
    text = "\n\r\n\r\u2028\x85\0 event: queue\ndata: {}\n\n"
    watched.queue.push(text.encode())
    stream = watched.stream()
    assert next(stream) == "retry: 1000\n\n"
    event = next(stream)
    first, second, *rest = event.split("\n")
    assert (first, second[:6], rest) == ("event: queue", "data: ", ["", ""])
    assert "\r" not in event
    assert json.loads(second[6:])["next"] == [{"preview": text, "bytes": len(text.encode())}]
    stream.close()


def test_a_quiet_queue_gets_comments(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = watched.stream()
    assert [next(stream)[:6], next(stream)[:6]] == ["retry:", "event:"]
    monkeypatch.setattr(feed, "HEARTBEAT_INTERVAL", 0.03)
    assert [next(stream)[:6], next(stream)[:6]] == [": noth", ": noth"]
    watched.queue.push(b"a")
    while not (event := next(stream)).startswith("event"):
        pass
    assert '"count":1' in event
    stream.close()


def test_an_event_has_the_first_messages_only_where_they_have_changed(watched: Watched) -> None:
    a, b, c = ({"preview": text, "bytes": 1} for text in "abc")
    watched.queue.push(b"a", b"b")
    with closing(watched.stream(max_next=2)) as two, closing(watched.stream(max_next=0)) as none:
        assert (data_of(two)["next"], data_of(none)["next"]) == ([a, b], [])
        watched.queue.push(b"c")
        for stream in (two, none):
            event = data_of(stream)
            assert (event["count"], "next" in event) == (3, False)
        watched.queue.client.lset(watched.queue.key, -1, "c")  # only the stream that shows it hears of it
        assert data_of(two) == {**event, "next": [c, b]}
        watched.queue.push(b"d")
        assert (data_of(two)["count"], data_of(none)["count"]) == (4, 4)


def test_a_stream_has_the_history_and_then_each_step_in_which_something_happened(watched: Watched) -> None:
    watched.history.record_depth(watched.queue.name, 0)
    watched.pass_step()
    with closing(watched.stream(with_history=True)) as stream, closing(watched.stream()) as other:
        began = watched.now - STEP_SECONDS
        assert data_of(stream)["history"] == {
            "at": began,
            "step": STEP_SECONDS,
            "max": [0],
            "count": [0],
            "in": [0],
            "out": [0],
        }
        watched.queue.client.lpush(watched.queue.key, "a", "b", "c")  # another client
        answer = {"success": True, "pushed": 2, "count": watched.queue.push(b"d", b"e")}
        watched.history.add_answer("push", watched.queue.name, answer)
        while (event := data_of(stream))["count"] != 5:
            assert "history" not in event
        watched.pass_step()
        event = data_of(stream)
        assert (event["count"], "next" in event) == (5, False)
        assert [event["history"][key] for key in ("at", "max", "in", "out")] == [began + STEP_SECONDS, [5], [5], [0]]
        watched.pass_step()
        watched.pass_step()
        watched.queue.client.rpop(watched.queue.key)
        event = data_of(stream)
        assert (event["count"], event["history"]["count"], event["history"]["in"]) == (4, [5, 5], [0, 0])
        watched.pass_step()
        assert data_of(stream)["history"]["out"] == [1]
        assert "history" not in data_of(other)


def test_a_step_is_sent_also_if_the_queue_is_polled_again_before_the_stream_wakes(watched: Watched) -> None:
    """Under load a poll of the next step, which finds nothing new, can come before each stream's own wake-up."""
    feed = QueueFeed(watched.queue, NoNotifications(), watched.history)
    reader = QueueReader(feed, with_history=True)
    feed.poll(1)
    assert reader.next_event()
    watched.queue.push(b"a", b"b", b"c")
    feed.poll(1)
    assert '"count":3' in reader.next_event()
    watched.pass_step()
    feed.poll(1)
    assert '"in":[3]' in reader.next_event()
    assert reader.next_event() == ""
    for _ in range(3):  # steps in which nothing happens are not sent
        watched.pass_step()
        feed.poll(1)
        assert reader.next_event() == ""


def test_an_age_that_grows_is_no_event_but_in_the_next_one(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def push() -> None:
        answer = {"success": True, "message": "a", "count": watched.queue.push(b"a")}
        watched.history.add_answer("push", watched.queue.name, answer)

    with closing(watched.stream()) as stream:
        assert data_of(stream)["age"] is None
        push()
        assert data_of(stream)["age"] == {"seconds": 0, "at_least": False}
        for _ in range(4):
            watched.pass_step()
        monkeypatch.setattr(feed, "HEARTBEAT_INTERVAL", 0.1)
        assert [next(stream)[:1] for _ in range(3)] == [":"] * 3
        with closing(watched.stream()) as other:
            assert data_of(other)["age"] == {"seconds": 30, "at_least": False}
        push()
        while (event := next(stream)).startswith(":"):
            pass
        assert '"count":2' in event and '"age":{"seconds":30,"at_least":false}' in event


def test_streams_share_one_feed_which_ends_with_the_last(watched: Watched) -> None:
    until(lambda: pollers() == 0)  # those of earlier tests
    streams = [watched.stream() for _ in range(20)]
    for stream in streams:
        next(stream), next(stream)
    assert (len(watched.streams.feeds), pollers()) == (1, 1)
    for stream in streams:
        stream.close()
    until(lambda: not watched.streams.feeds and pollers() == 0)
    again = watched.stream()
    assert [next(again)[:6], next(again)[:6]] == ["retry:", "event:"]
    again.close()


def test_a_stream_ends_when_its_client_is_gone_or_the_server_stops(
    watched: Watched,
) -> None:
    for reason in ("gone", "stopping"):
        stream = watched.stream()
        next(stream), next(stream)
        setattr(watched, reason, True)
        assert list(stream) == []
        watched.gone = False
    until(lambda: not watched.streams.feeds)


def test_a_stream_that_was_never_read_leaves_no_feed(watched: Watched) -> None:
    watched.stream().close()
    assert not watched.streams.feeds


def test_after_a_lost_reply_comes_a_fault_and_then_the_state_again(
    proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_feed, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(feed, "RETRY_DELAY", 0.01)
    watched = Watched(connect(proxy.url), name)
    stream = watched.stream()
    next(stream), next(stream)
    proxy.cut("EVALSHA")
    fault = next(stream)
    assert fault.startswith("event: fault\n")
    assert json.loads(fault.split("data: ")[1])["error"] == "redis_unavailable"
    assert next(stream).startswith("event: queue\n")
    stream.close()
    until(lambda: not watched.streams.feeds)
