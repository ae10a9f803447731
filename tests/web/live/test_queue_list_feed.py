"""The stream of all queues: the whole list first, then every change by any client."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from broker import listing
from broker.changes.notifications import ChangeNotifications
from broker.connections.connection import connect
from broker.listing import QueueLister
from broker.models import QueueCounts
from broker.queue import ReliableQueue
from tests.engines import Cluster
from tests.servers import App, FakeRedis, Store, until
from tests.web.helpers import NO_OTHERS
from tests.web.live.fakes import Clock, FakeClient, NoNotifications
from tests.web.live.test_events_over_http import Stream
from web.live import feed, queue_list_feed
from web.live.feed import EventStreams
from web.live.history import History
from web.live.queue_list_feed import QueueListFeed, QueueListReader


class Board:
    """A list of queues, as the events of a stream make it."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.queues: dict[str, dict[str, Any]] = {}

    def apply(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "queues":
            self.queues = {}
        self.queues |= {queue["name"]: queue for queue in data.get("queues", ())}
        for name in data.get("removed", ()):
            del self.queues[name]
        self.kinds.append(kind)

    def has(self, name: str, **counts: Any) -> bool:
        return counts.items() <= self.queues.get(name, {}).items()


class Followed:
    """The stream of one process on a store, read by a thread."""

    def __init__(self, client: Any, match: str = "*", streams: EventStreams | None = None) -> None:
        self.is_over = False
        self.board = Board()
        self.streams = streams or EventStreams(lambda: False)
        self.tracker = ChangeNotifications(client, "queue:")
        made = QueueListFeed(QueueLister(client, "queue:", 5), self.tracker, History())
        self.stream = self.streams.stream(
            made, partial(QueueListReader, match=match), FakeClient(lambda: self.is_over, 0.05)
        )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for text in self.stream:
            if text.startswith("event: "):
                kind, data = text.removeprefix("event: ").split("\ndata: ")
                self.board.apply(kind, json.loads(data))

    def close(self) -> None:
        self.is_over = True
        self.thread.join()

    @property
    def feed(self) -> Any:
        """The feed that all streams follow."""
        return self.streams.feeds["all queues"]

    def until(self, name: str, **counts: Any) -> None:
        """Wait until the queue has these counts; without any, until it is gone."""
        until(lambda: self.board.has(name, **counts) if counts else name not in self.board.queues)


@pytest.fixture
def follow() -> Iterator[Callable[..., Followed]]:
    """Follow all queues of a client until the end."""
    opened: list[Followed] = []

    def start(client: Any, match: str = "*", streams: EventStreams | None = None) -> Followed:
        opened.append(Followed(client, match, streams))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def notified_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan the keys only where a change was notified."""
    monkeypatch.setattr(queue_list_feed, "SCAN_INTERVAL", 1000.0)
    monkeypatch.setattr(queue_list_feed, "UNTRACKED_SCAN_INTERVAL", 0.05)


def test_the_whole_list_comes_first_and_then_each_change(site: App, valkey: Store, name: str) -> None:
    raw, queue, board = valkey.client(), ReliableQueue(valkey.client(), f"{name}.a"), Board()
    raw.lpush(f"queue:{name}.b", "x", "y")
    with closing(Stream(site, f"/api/events?match={name}.*")) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"

        def read_until(name: str, **counts: Any) -> None:
            while not (board.has(name, **counts) if counts else name not in board.queues):
                board.apply(*stream.next())

        read_until(f"{name}.b", count=2)
        assert board.queues == {f"{name}.b": {"name": f"{name}.b", "count": 2, **NO_OTHERS}}
        raw.lpush(queue.key, "a")
        read_until(queue.name, count=1)
        [delivery] = queue.reserve(1000).messages
        read_until(queue.name, count=0, reserved=1)
        queue.release(delivery.id, dead=True)
        read_until(queue.name, reserved=0, dead=1)
        queue.pause()
        queue.report_waiters("process", 2, 30)
        read_until(queue.name, paused=True, waiters=2)
        raw.delete(f"queue:{name}.b")
        read_until(f"{name}.b")
    assert board.kinds[0] == "queues" and set(board.kinds[1:]) == {"changed"}


def test_an_expired_lease_is_an_event(notified_only: None, valkey: Store, follow: Any, name: str) -> None:
    queue, followed = ReliableQueue(valkey.client(), name), follow(valkey.client())
    until(lambda: followed.tracker.is_live)
    queue.push(b"a")
    queue.reserve(0.3)
    followed.until(name, reserved=1)
    until(lambda: queue.state().counts.count == 1)  # the lease has ended, as a timer of the app would see to
    followed.until(name, count=1, reserved=0)
    queue.release(queue.reserve().messages[0].id, dead=True)
    dead = ReliableQueue(valkey.client(), f"{name}.dead")
    dead.reserve(1000)
    followed.until(dead.name, reserved=1)
    queue.client.lpush(dead.key, "b")
    followed.until(dead.name, count=1)
    followed.until(name, dead=1)


def test_only_what_has_changed_is_counted_once_for_all_streams(
    notified_only: None, own_store: Callable[..., Store], follow: Any
) -> None:
    client = own_store().client()
    client.mset({"queue:no list": "x"})
    for number in range(300):
        client.lpush(f"queue:q{number}", "a")
    first = follow(client)
    until(lambda: first.tracker.is_live and len(first.board.queues) == 300)
    others = [follow(client, "q1?", first.streams) for _ in range(5)]
    until(lambda: all(len(one.board.queues) == 10 for one in others))
    until(lambda: 100 < first.feed._scan_due - first.feed._scanned_at < 2000)  # no scan is due
    client.config_resetstat()
    client.lpush("queue:q12", "b")
    client.lpush("queue:q200", "b")
    first.until("q12", count=2)
    first.until("q200", count=2)
    for one in others:
        one.until("q12", count=2)
        assert "q200" not in one.board.queues
    stats = client.info("commandstats")
    assert "cmdstat_scan" not in stats
    assert stats["cmdstat_llen"]["calls"] <= 2 * 3  # two keys a queue; the second push may come while one is counted


def test_a_slow_stream_gets_what_it_missed_or_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_list_feed, "MAX_CHANGES", 2)
    board = list_feed(History())
    for number in range(1, 5):
        board._publish({f"q{number}": counts_of("a", 1, 0), "q0": None}, True, 0)
    assert board.news(4, "*")[1].startswith("event: changed")
    assert board.news(2, "*")[1].startswith("event: changed")
    assert board.news(1, "*")[1].startswith("event: queues")


def test_a_server_without_notifications_is_scanned(monkeypatch: pytest.MonkeyPatch, follow: Any, name: str) -> None:
    monkeypatch.setattr(queue_list_feed, "UNTRACKED_SCAN_INTERVAL", 0.05)
    client = FakeRedis()
    followed = follow(client)
    client.lpush(f"queue:{name}", "a")
    followed.until(name, count=1)
    client.delete(f"queue:{name}")
    followed.until(name)


def test_the_queues_of_all_primaries_are_followed(
    notified_only: None, cluster: Cluster, follow: Any, name: str
) -> None:
    client = connect(cluster.url)
    followed = follow(client)
    names = [f"{name}.{number}" for number in range(12)]
    until(lambda: followed.tracker.is_live)
    for each in names:
        client.lpush(f"queue:{each}", "a")
    for each in names:
        followed.until(each, count=1)
        client.delete(f"queue:{each}")
    for each in names:
        followed.until(each)


def test_an_unavailable_redis_is_a_fault_and_its_return_the_whole_list(
    notified_only: None, own_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, follow: Any, name: str
) -> None:
    monkeypatch.setattr(feed, "RETRY_DELAY", 0.1)
    store = own_store("valkey", "--appendonly", "yes")
    followed = follow(connect(store.url))
    until(lambda: followed.board.kinds == ["queues"])
    store.end(signal.SIGKILL)
    until(lambda: followed.board.kinds[-1] == "fault")
    store.start()
    store.client().lpush(f"queue:{name}", "a")
    followed.until(name, count=1)
    assert followed.board.kinds[:3] == ["queues", "fault", "queues"]


def test_a_list_has_the_history_of_the_queues_in_most_trouble(monkeypatch: pytest.MonkeyPatch, follow: Any) -> None:
    monkeypatch.setattr(queue_list_feed, "MAX_HISTORIES", 2)
    now = [1_000_000.0]
    board = list_feed(History(clock=lambda: now[0]))
    for count in (1, 4, 6):
        queues = {"few": (count, 0), "many": (10 * count, 0), "dead": (count, 1)}
        board._publish({name: counts_of(name, *held) for name, held in queues.items()}, True, 0)
        now[0] += 10
    _, _, data = board.news(0, "*", True)[1].partition("data: ")
    histories = {queue["name"]: queue.get("history") for queue in json.loads(data)["queues"]}
    known = {"at": 1_000_000, "step": 10, "count": [1, 4, 6], "out": [0, 0, 0]}
    assert histories == {"few": None, "dead": known, "many": {**known, "count": [10, 40, 60]}}
    assert "history" not in board.news(0, "*")[1] + board.news(1, "*", True)[1]


def test_a_list_and_each_change_have_the_ages_of_their_moment() -> None:
    clock = Clock()
    board = list_feed(History(clock=clock))
    for count in (1, 2):
        board.history.add_answer("push", "jobs", {"success": True, "message": "a", "count": count})
        board._publish({"jobs": counts_of("jobs", count, 0)}, True, 0)
        clock.pass_steps(3)
    ages = [json.loads(board.news(version, "*")[1].partition("data: ")[2])["queues"][0]["age"] for version in (0, 1)]
    assert ages == [{"seconds": 50, "at_least": False}] * 2


def list_feed(history: History) -> QueueListFeed:
    """Return a feed without streams."""
    return QueueListFeed(QueueLister(FakeRedis(), "queue:", 5), NoNotifications(), history)


def counts_of(name: str, count: int, dead: int) -> listing.ListedQueue:
    return listing.ListedQueue(name, QueueCounts(count, dead=dead))


def test_a_process_polls_and_keeps_nothing_once_nobody_follows(valkey: Store, follow: Any, name: str) -> None:
    valkey.client().lpush(f"queue:{name}", "a")
    followed = follow(valkey.client())
    followed.until(name, count=1)
    followed.close()
    until(lambda: not followed.streams._pollers)
    assert not followed.streams.feeds
    again = follow(valkey.client(), streams=followed.streams)
    again.until(name, count=1)
    assert again.board.kinds[0] == "queues"
