"""Waiting in one process, without HTTP: every new message wakes a client, and one that is gone takes none."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections.connection import connect
from broker.connections.errors import NotSent
from broker.models import Batch
from broker.queue import ReliableQueue
from tests.servers import FakeRedis, Store, until
from web.errors import ApiError, from_redis
from web.live import long_poll as waiting
from web.live.long_poll import Waiting


class Recording:
    """A client that only waits; it records for how long, and what it got: a message, or None when time was up."""

    def __init__(self, client: Any, woken: list[bytes | None], seconds: list[float]) -> None:
        self.client, self.woken, self.seconds = client, woken, seconds

    def blmove(self, first: str, second: str, seconds: float, *sides: Any) -> bytes | None:
        self.seconds.append(seconds)
        found: bytes | None = self.client.blmove(first, second, seconds, *sides)
        self.woken.append(found)
        return found


class Process:
    """A process without HTTP, whose clients wait on one queue, each in a thread."""

    def __init__(self, store: Store, name: str, maximum: int = 100) -> None:
        self.name, self.store = name, store
        self.label = f"waits-on-{name}"
        self.stopping = False
        self.gone: set[int] = set()
        self.woken: list[bytes | None] = []
        self.seconds: list[float] = []
        client = connect(f"{store.url}?client_name={self.label}", blocking=True)
        self.waiting = Waiting(Recording(client, self.woken, self.seconds), maximum, lambda: self.stopping)
        self.queue = ReliableQueue(store.client(), name)
        self.pool = ThreadPoolExecutor(100)

    def wait(self, verb: str = "pop", seconds: float = 60, number: int = 0) -> "Future[list[Any]]":
        """Let one more client wait, and return once it is in the queue of waiters."""
        before = self.number()
        attempt: Callable[[], Batch[Any]] = self.queue.pop_batch if verb == "pop" else self.queue.reserve
        future = self.pool.submit(self.waiting.take, self.queue, seconds, attempt, None, lambda: number in self.gone)
        until(lambda: self.number() > before or future.done())
        until(lambda: self.blocked() or future.done())
        return future

    def number(self) -> int:
        found = self.waiting._queues.get(self.queue.key)
        return len(found.waiters) if found else 0

    def blocked(self) -> list[Any]:
        """Return the connections that wait in Redis for this process."""
        clients = self.store.client().client_list()
        return [client for client in clients if client["name"] == self.label and "b" in client["flags"]]


@pytest.fixture(params=["valkey", "redis7"])
def process(request: pytest.FixtureRequest, name: str) -> Iterator[Process]:
    made = Process(request.getfixturevalue(request.param), name)
    yield made
    made.stopping = True
    made.pool.shutdown()
    assert made.waiting.number == 0


@pytest.fixture
def woken_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client that waits check so seldom that only being woken lets a test pass."""
    monkeypatch.setattr(waiting, "PEER_CHECK_INTERVAL", 4.0)


# --- what wakes a waiting client

WAYS: dict[str, Callable[[ReliableQueue], Any]] = {
    "push": lambda queue: queue.push(b"a"),
    "push front": lambda queue: queue.push(b"a", front=True),
    "push once": lambda queue: queue.push_once("key", [b"a"]),
    "raw LPUSH": lambda queue: queue.client.lpush(queue.key, "a"),
    "raw RPUSH": lambda queue: queue.client.rpush(queue.key, "a"),
    "move": lambda queue: [other(queue).push(b"a"), other(queue).move(queue.name, 1)],
    "move of dead letters": lambda queue: [other(queue, ".dead").push(b"a"), other(queue, ".dead").move(queue.name, 1)],
}


def other(queue: ReliableQueue, more: str = "x") -> ReliableQueue:
    return ReliableQueue(queue.client, queue.name + more)


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_add_a_message_wakes_a_waiting_client(
    woken_only: None, process: Process, verb: str, way: str
) -> None:
    future = process.wait(verb)
    WAYS[way](process.queue)
    assert future.result() == [b"a"]
    assert process.woken == [b"a"]
    assert process.queue.client.llen(process.queue.key) == 0


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_release_wakes_a_waiting_client(woken_only: None, process: Process, verb: str) -> None:
    process.queue.push(b"a")
    [delivery] = process.queue.reserve().messages
    future = process.wait(verb)
    process.queue.release(delivery.id)
    assert (future.result(), process.woken) == ([b"a"], [b"a"])


def test_a_restore_wakes_a_waiting_client(woken_only: None, process: Process) -> None:
    process.queue.push(b"a", b"b")
    _, undo = process.queue.clear()
    future = process.wait()
    process.queue.restore(str(undo))
    assert (future.result(), process.queue.all()) == ([b"a"], [b"b"])
    assert process.woken == [b"a"]


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_the_message_of_a_lease_that_ends_goes_to_a_waiting_client(
    woken_only: None, process: Process, verb: str
) -> None:
    process.queue.push(b"a")
    process.queue.reserve(0.2)
    assert process.wait(verb).result() == [b"a"]
    assert max(process.seconds, default=0) <= 0.2


def test_a_lease_that_was_made_during_the_wait_is_noticed_too(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PEER_CHECK_INTERVAL", 0.05)
    future = process.wait()
    process.queue.client.eval(  # a message goes straight to another client, which holds it for a while
        "redis.call('ZADD', KEYS[1], ARGV[1], '1-1-a-1') redis.call('HSET', KEYS[2], '1-1-a-1', 'a')",
        2,
        process.queue.key_prefix + "reserved",
        process.queue.key_prefix + "bodies",
        int(time.time() * 1000) + 100,
    )
    assert future.result() == [b"a"]


# --- the waiting clients


def test_clients_are_served_in_the_order_they_came(process: Process) -> None:
    futures = [process.wait() for _ in range(5)]
    for number in range(5):
        process.queue.push(b"%d" % number)
    assert [future.result() for future in futures] == [[b"%d" % number] for number in range(5)]


def test_many_waiting_clients_block_one_connection(process: Process) -> None:
    futures = [process.wait() for _ in range(50)]
    assert len(process.blocked()) == 1
    process.queue.push(*[b"%d" % number for number in range(50)])
    assert sorted(int(future.result()[0]) for future in futures) == list(range(50))


def test_a_client_that_is_gone_takes_nothing_and_the_next_is_served(woken_only: None, process: Process) -> None:
    gone, here = process.wait(number=1), process.wait(number=2)
    process.gone.add(1)
    process.queue.push(b"a")
    assert (gone.result(), here.result()) == ([], [b"a"])


def test_a_wait_ends_when_its_time_is_up(process: Process) -> None:
    assert process.wait(seconds=0.1).result() == []
    first, second = process.wait(seconds=60), process.wait(seconds=0.1)
    assert second.result() == []
    process.queue.push(b"a")
    assert first.result() == [b"a"]


def test_when_the_server_stops_waiting_clients_get_nothing(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PEER_CHECK_INTERVAL", 0.05)
    futures = [process.wait() for _ in range(3)]
    process.stopping = True
    assert [future.result() for future in futures] == [[], [], []]
    process.queue.push(b"a")
    assert process.queue.all() == [b"a"]


def test_too_many_clients_are_refused_and_the_others_still_served(process: Process) -> None:
    process.waiting.maximum = 2
    waits = [process.wait(), process.wait()]
    with pytest.raises(ApiError) as caught:
        process.wait().result()
    assert (caught.value.status, caught.value.error) == (429, "too_many_blocked_clients")
    assert "Retry-After" in caught.value.headers
    assert process.wait(seconds=0).result() == []
    process.queue.push(b"a", b"b")
    assert sorted(future.result()[0] for future in waits) == [b"a", b"b"]
    process.queue.push(b"c")
    assert process.wait().result() == [b"c"]


def test_queues_and_threads_are_gone_when_no_client_waits(process: Process) -> None:
    process.wait(seconds=0.1).result()
    until(lambda: not process.waiting._queues)
    until(lambda: "report-waiters" not in [thread.name for thread in threading.enumerate()])
    assert process.wait(seconds=0.1).result() == []


def test_a_server_that_cannot_block_is_asked_at_intervals(name: str) -> None:
    asked = 0

    class Counting(FakeRedis):
        def blmove(self, *_: Any, **__: Any) -> None:
            nonlocal asked
            asked += 1

    queue = ReliableQueue(FakeRedis(), name)
    made = Waiting(Counting(), 10, lambda: False)
    assert made.take(queue, 0.1, queue.pop_batch, None, lambda: False) == []
    assert 1 <= asked <= 6


# --- reports to Redis


def test_the_number_of_waiting_clients_is_reported_to_redis(process: Process) -> None:
    for _ in range(3):
        process.wait()
    until(lambda: process.queue.state().counts.waiters == 3)
    process.queue.push(b"a", b"b", b"c")
    until(lambda: process.queue.state().counts.waiters == 0)
    assert not process.queue.client.exists(process.queue.key_prefix + "waiters")


def test_a_report_is_repeated_before_it_expires(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "REPORT_TTL", 0.3)
    key = process.queue.key_prefix + "waiters"

    def valid() -> bytes:
        return b"".join(process.queue.client.hvals(key))

    future = process.wait()
    first = until(valid)
    assert re.fullmatch(rb"1:[0-9]{13}", first)
    until(lambda: valid() not in (b"", first))
    process.queue.push(b"a")
    assert future.result() == [b"a"]


# --- when Redis fails


def test_a_wait_on_another_type_is_refused(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PEER_CHECK_INTERVAL", 0.05)
    future = process.wait()
    process.queue.client.set(process.queue.key, "text")
    for each in (future, process.wait()):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            each.result()
    assert process.queue.client.get(process.queue.key) == b"text"


def test_a_wait_whose_connection_breaks_has_taken_nothing_and_says_so(process: Process) -> None:
    futures = [process.wait(), process.wait()]
    [blocked] = process.blocked()
    process.store.client().client_kill_filter(_id=blocked["id"])
    with pytest.raises(NotSent) as caught:
        futures[0].result()
    assert from_redis(caught.value).error == "redis_unavailable"
    process.queue.push(b"a")
    assert futures[1].result() == [b"a"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_wait_in_a_full_redis_gets_what_comes_back(own_store: Callable[..., Store], name: str, kind: str) -> None:
    process = Process(own_store(kind), name)
    process.queue.push(b"a", b"b")
    [ends_soon] = process.queue.reserve(1000).messages
    process.queue.reserve(1000)
    process.queue.extend(ends_soon.id, 0.3)
    process.queue.client.config_set("maxmemory", 1)
    assert process.waiting.take(process.queue, 10, process.queue.pop_batch, None, lambda: False) == [b"a"]
    assert process.waiting.take(process.queue, 0.1, process.queue.pop_batch, None, lambda: False) == []
    process.pool.shutdown()
