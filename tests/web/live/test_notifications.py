"""Followed queues are polled when Redis notifies a change: a quiet one costs nothing, and many delay no command."""

import contextlib
import json
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.changes import notifications as tracking
from broker.changes.notifications import ChangeNotifications
from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.broker.connections.networks import Failover, Forgetful
from tests.ledger import Api
from tests.servers import App, FakeRedis, Proxy, Store, running, until
from tests.web.live.fakes import FakeClient
from web.live import feed, queue_feed
from web.live.feed import EventStreams
from web.live.history import History
from web.live.queue_feed import QueueFeed, QueueReader

MANY = 1500


class Watched:
    """The streams of one process on queues of a store, with a tracker."""

    def __init__(self, client: Any, prefix: str = "queue:") -> None:
        self.client, self.prefix = client, prefix
        self.is_over = False
        self.tracker = ChangeNotifications(client, prefix)
        self.streams = EventStreams(lambda: self.is_over)
        self.history = History()

    def stream(self, name: str) -> "Stream":
        made = QueueFeed(ReliableQueue(self.client, name, self.prefix), self.tracker, self.history)
        return Stream(self.streams.stream(made, QueueReader, FakeClient()), name)

    def end(self) -> None:
        self.is_over = True


class Stream:
    """One stream, which keeps the data of its events as they come."""

    def __init__(self, texts: Iterator[str], name: str) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self.texts = texts
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.events)

    def _read(self) -> None:
        for text in self.texts:
            if "\ndata: " in text:
                self.events.append(json.loads(text.partition("\ndata: ")[2]))

    def until(self, **wanted: Any) -> None:
        """Wait until the last event has these values."""
        until(lambda: wanted.items() <= self.events[-1].items())


@pytest.fixture
def notified_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no queue be polled unless a change is notified."""
    monkeypatch.setattr(queue_feed, "QUIET_POLL_INTERVAL", 1000.0)


@pytest.fixture(params=["valkey", "redis7"])
def watched(notified_only: None, request: pytest.FixtureRequest) -> Iterator[Watched]:
    store: Store = request.getfixturevalue(request.param)
    with running(Watched(store.client())) as made:
        yield made


def follow(watched: Watched, name: str) -> Stream:
    """Return a stream once changes are notified and no poll is due."""
    stream = watched.stream(name)
    until(lambda: watched.tracker.is_live)
    settle(watched, name)
    return stream


def settle(watched: Watched, name: str) -> None:
    found = watched.streams.feeds[ReliableQueue(watched.client, name, watched.prefix).key]
    until(lambda: not found.is_polled and found.due - time.monotonic() > 100)


# --- what is notified


def reserve_and_bury(queue: ReliableQueue) -> None:
    strict = ReliableQueue(queue.client, queue.name, queue.prefix, max_deliveries=1)
    strict.release(strict.reserve().messages[0].id)


CHANGES: list[tuple[Callable[[ReliableQueue], Any], dict[str, Any]]] = [
    (lambda queue: queue.client.lpush(queue.key, "a"), {"count": 1}),
    (lambda queue: queue.client.lset(queue.key, 0, "b"), {"next": [{"preview": "b", "bytes": 1}]}),
    (lambda queue: queue.client.expire(queue.key, 1), {"count": 0}),
    (lambda queue: queue.push_once("key", [b"a", b"b"]), {"count": 2}),
    (lambda queue: queue.clear(), {"count": 0}),
    (lambda queue: queue.push(b"a", front=True), {"count": 1}),
    (reserve_and_bury, {"count": 0, "dead": 1}),
    (lambda queue: queue.client.rpop(queue.key_prefix + "dead"), {"dead": 0}),
    (lambda queue: queue.report_waiters("process", 2, 30), {"waiters": 2}),
    (lambda queue: queue.report_waiters("process", 0, 30), {"waiters": 0}),
    (lambda queue: queue.report_waiters("dead process", 3, 0.5), {"waiters": 3}),
    (lambda queue: None, {"waiters": 0}),  # the report of a process that died ends
    (lambda queue: [queue.push(b"a"), queue.reserve(0.5)], {"count": 0, "reserved": 1}),
    (lambda queue: None, {"count": 1, "reserved": 0}),  # the lease ends
    (lambda queue: queue.client.rename(queue.key, queue.key + "-other"), {"count": 0}),
]


@pytest.mark.slow
def test_every_change_is_an_event(watched: Watched, name: str) -> None:
    stream, queue = follow(watched, name), ReliableQueue(watched.client, name)
    for change, wanted in CHANGES:
        change(queue)
        stream.until(**wanted)


def test_a_change_of_dead_letters_is_an_event_of_both_queues(watched: Watched, name: str) -> None:
    stream, dead_stream = follow(watched, name), follow(watched, name + ".dead")
    ReliableQueue(watched.client, name + ".dead").push(b"a")
    stream.until(dead=1)
    dead_stream.until(count=1)
    ReliableQueue(watched.client, name + ".dead").reserve()
    dead_stream.until(reserved=1)


@pytest.mark.parametrize("prefix", ["", "a:b:", "queue:"])
def test_any_prefix_of_queues_is_followed(notified_only: None, valkey: Store, name: str, prefix: str) -> None:
    with running(Watched(valkey.client(), prefix)) as watched:
        stream = follow(watched, name)
        valkey.client().lpush(prefix + name, "a")
        stream.until(count=1)
        ReliableQueue(valkey.client(), name, prefix).report_waiters("process", 1, 30)
        stream.until(waiters=1)


def test_a_change_of_another_queue_costs_nothing(watched: Watched, name: str) -> None:
    follow(watched, name)
    stream = follow(watched, name + "-b")
    before = watched.streams.feeds[f"queue:{name}"].rests_until
    watched.client.lpush(f"queue:{name}-b", "a")
    stream.until(count=1)
    assert watched.streams.feeds[f"queue:{name}"].rests_until == before


def test_all_queues_are_polled_after_everything_was_deleted(
    notified_only: None, own_store: Callable[..., Store], name: str
) -> None:
    store = own_store()
    store.client().lpush(f"queue:{name}", "a")
    with running(Watched(store.client())) as watched:
        stream = follow(watched, name)
        stream.until(count=1)
        store.client().flushall()
        stream.until(count=0)


# --- how often


@pytest.mark.slow
def test_the_first_change_is_sent_at_once_and_the_next_are_batched(watched: Watched, name: str) -> None:
    stream, queue = follow(watched, name), ReliableQueue(watched.client, name)
    delays = []
    for count in range(1, 10):
        started = time.monotonic()
        queue.client.lpush(queue.key, "a")
        stream.until(count=count)
        delays.append(time.monotonic() - started)
        settle(watched, name)
        until(lambda: time.monotonic() > watched.streams.feeds[queue.key].rests_until)
    assert statistics.median(delays) < 0.1  # generous: it is some milliseconds on a quiet machine
    started, before = time.monotonic(), len(stream.events)
    pushed = 0
    while time.monotonic() - started < 0.5:
        pushed = queue.client.lpush(queue.key, "a")
    stream.until(count=pushed)
    most = (time.monotonic() - started) / queue_feed.EVENT_INTERVAL + 2
    assert 2 < len(stream.events) - before <= most


def calls(client: Any) -> int:
    """Return how many commands clients have sent to Redis, other than this look and those that scripts run."""
    statistics_of = client.info("commandstats")
    sent = ("cmdstat_eval", "cmdstat_hello", "cmdstat_ping", "cmdstat_client")
    return sum(int(stat["calls"]) for command, stat in statistics_of.items() if command.startswith(sent))


@pytest.mark.slow
def test_a_quiet_queue_costs_nothing_however_many_watch(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    client = store.client()
    with watching(app, [name] * 500) as sockets:
        for each in sockets:
            until_event(each)
        until(lambda: tracked(client))
        started, before = time.monotonic(), calls(client)
        while (passed := time.monotonic() - started) < 10:  # that nothing happens can only be seen by waiting
            time.sleep(0.1)
        looks = calls(client) - before
    print(f"{looks / passed:.2f} commands a second")
    assert looks / passed < 2  # without notifications it would be 6 polls a second


@contextlib.contextmanager
def watching(app: App, names: list[str]) -> Iterator[list[socket.socket]]:
    """Let one client follow each of the queues."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * len(names) + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
    sockets: list[socket.socket] = []
    try:
        for name in names:
            sockets.append(socket.create_connection(("127.0.0.1", app.port), timeout=60))
            sockets[-1].sendall(f"GET /api/queue/{name}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield sockets
    finally:
        for each in sockets:
            each.close()


def until_event(sock: socket.socket, text: bytes = b"event: queue") -> None:
    """Read on until an event has this text."""
    found = b""
    while text not in found:
        data = sock.recv(1 << 16)
        assert data, "the stream ended"
        found = found[-1000:] + data


def tracked(client: Any) -> list[Any]:
    """Return the connections to which Redis sends change notifications."""
    return [each for each in client.client_list() if "B" in each["flags"]]


@pytest.mark.slow
def test_many_watched_queues_delay_no_push(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url)
    names = [f"{name}-{number}" for number in range(MANY)]
    api, delays = Api(app.url, name), []
    with watching(app, names) as sockets:
        for each in sockets:
            until_event(each)
        for _ in range(50):
            started = time.monotonic()
            assert api.call("push", message="a")[0] == 200
            delays.append(time.monotonic() - started)
        store.client().lpush(f"queue:{names[-1]}", "a")
        until_event(sockets[-1], b'"count":1')
        assert len(tracked(store.client())) == 2  # one for each process
    print(f"a push took {statistics.median(delays) * 1000:.0f} ms, {max(delays) * 1000:.0f} ms at most")
    assert statistics.median(delays) < 0.5
    assert max(delays) < 5


# --- when the connection for notifications is lost


def test_after_a_lost_connection_all_queues_are_polled_once_and_notified_again(
    notified_only: None, own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "RETRY_DELAY", 0.2)
    store = own_store()
    with running(Proxy(store.port)) as proxy, running(Watched(connect(proxy.url))) as watched:
        streams = [follow(watched, f"{name}-{number}") for number in range(3)]
        raw = store.client()
        for number, stream in enumerate(streams):
            proxy.refuse()
            raw.lpush(f"queue:{stream.name}", "missed")
            until(lambda: not watched.tracker.is_live)
            stream.until(error="redis_unavailable")
            proxy.accept()
            stream.until(count=1)
            until(lambda: watched.tracker.is_live)
            settle(watched, stream.name)
            raw.lpush(f"queue:{stream.name}", f"notified {number}")
            stream.until(count=2)


def test_a_connection_that_the_network_forgot_is_noticed(
    notified_only: None, valkey: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(tracking, "RETRY_DELAY", 0.01)
    with running(Forgetful(valkey.port)) as network, running(Watched(connect(network.url))) as watched:
        stream = follow(watched, name)
        network.forget()
        watched.client.connection_pool.disconnect()  # only the one for notifications is forgotten
        valkey.client().lpush(f"queue:{name}", "a")
        stream.until(count=1)


@pytest.mark.slow
def test_after_a_failover_the_new_primary_sends_notifications(
    notified_only: None, own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(feed, "RETRY_DELAY", 0.05)
    with running(Failover(own_store, "valkey")) as failover, running(Watched(connect(failover.url))) as watched:
        stream = follow(watched, name)
        failover.switch()
        until(lambda: tracked(failover.replica.client()))
        failover.replica.client().lpush(f"queue:{name}", "a")
        stream.until(count=1)


@pytest.mark.slow
def test_all_streams_report_a_redis_that_hangs(valkey: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CHECK_INTERVAL", 0.2)
    with running(Proxy(valkey.port)) as proxy, running(Watched(connect(proxy.url + "?socket_timeout=1"))) as watched:
        streams = [follow_loosely(watched, f"{name}-{number}") for number in range(120)]  # one by one it takes 30 s
        proxy.pause()
        until(lambda: all(stream.events[-1].get("error") == "redis_unavailable" for stream in streams))
        proxy.resume()
        until(lambda: all(stream.events[-1].get("count") == 0 for stream in streams), 60)


def follow_loosely(watched: Watched, name: str) -> Stream:
    stream = watched.stream(name)
    stream.until(count=0)
    return stream


# --- where Redis sends no notifications


def test_queues_are_polled_where_redis_refuses_notifications(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = own_store()
    store.client().execute_command("ACL", "SETUSER", "app", "on", ">p", "~*", "+@all", "-client")
    with running(Watched(connect(f"redis://app:p@127.0.0.1:{store.port}"))) as watched:
        stream = watched.stream(name)
        store.client().lpush(f"queue:{name}", "a")
        stream.until(count=1)
        assert not watched.tracker.is_live


def test_fakeredis_is_polled(name: str) -> None:
    with running(Watched(FakeRedis())) as watched:
        stream = watched.stream(name)
        watched.client.lpush(f"queue:{name}", "a")
        stream.until(count=1)
        assert not watched.tracker.is_live


def test_polls_without_notifications_are_limited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_feed, "MAX_POLLS", 20.0)
    monkeypatch.setattr(queue_feed, "POLL_INTERVAL", 0.001)
    asked: list[float] = []

    class Counting(FakeRedis):
        def evalsha(self, *args: Any, **more: Any) -> Any:
            asked.append(time.monotonic())
            return super().evalsha(*args, **more)

    with running(Watched(Counting())) as watched:
        streams = [watched.stream(f"{name}-{number}") for number in range(10)]
        del asked[:]
        started = time.monotonic()
        until(lambda: len(asked) >= 10)
        assert len(asked) <= 20 * (time.monotonic() - started) + len(streams)


# --- its end


@pytest.mark.slow
def test_nothing_is_left_when_nobody_follows(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CHECK_INTERVAL", 0.1)
    store = own_store()
    watched = Watched(store.client())
    for _ in range(2):
        watched.is_over = False
        follow_loosely(watched, name)
        until(lambda: tracked(store.client()))
        watched.end()
        until(lambda: not tracked(store.client()) and not watched.streams.feeds)
        until(lambda: watched.tracker._thread is None and not watched.streams._pollers)
