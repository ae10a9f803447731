"""Waiting in one process, without HTTP: every new message wakes a client, and one that has disconnected takes none."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.changes.notifications import ChangeNotifications
from broker.connections.connection import connect
from broker.connections.errors import NotSent
from broker.models import Batch, Delivery
from broker.queue import ReliableQueue
from tests.servers import FakeRedis, Store, until
from tests.web.live.fakes import FakeClient, NoNotifications, WaitingClients, long_poll_on
from web.errors import ApiError, from_redis
from web.live import long_poll
from web.live.long_poll import Waiters


class Recording:
    """A client that only blocks; it records for how long, and what it got: a message, or None when time was up."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.seconds: list[float] = []
        self.got: list[bytes | None] = []

    def blmove(self, first: str, second: str, seconds: float, *sides: Any) -> bytes | None:
        self.seconds.append(seconds)
        found: bytes | None = self.client.blmove(first, second, seconds, *sides)
        self.got.append(found)
        return found


def pop(queue: ReliableQueue) -> Batch[bytes]:
    return queue.pop_batch()


class Process(WaitingClients):
    """A process whose clients wait on one queue."""

    def __init__(self, store: Store, name: str, maximum: int = 100, tracker: ChangeNotifications | None = None) -> None:
        super().__init__()
        self.name, self.store = name, store
        self.label = f"waits-on-{name}"
        self.gone: set[int] = set()
        self.attempts = 0
        self.queue = ReliableQueue(store.client(), name)
        self.blocking = Recording(connect(f"{store.url}?client_name={self.label}", blocking=True))
        self.tracker = tracker or NoNotifications()
        self.check_interval = 1000.0 if tracker else 1.0  # of the clients: a quiet one must be woken
        self.long_poll = long_poll_on(
            self.queue.client, self.blocking, maximum, lambda: self.stopping, tracker=self.tracker
        )

    def wait(self, operation: str = "pop", seconds: float = 60, number: int = 0) -> "Future[list[Any]]":
        """Let one more client wait, and return once it is in line and nothing is under way."""
        before = self.number()
        attempt: Callable[[], Batch[Any]] = self.queue.pop_batch if operation == "pop" else self.queue.reserve

        def counted(_: ReliableQueue) -> Batch[Any]:
            self.attempts += 1
            return attempt()

        self.clients.append(FakeClient(lambda: number in self.gone, self.check_interval))
        client = self.clients[-1]
        future = self.pool.submit(lambda: self.take(seconds, counted, client))
        until(lambda: self.number() > before or future.done())
        is_settled = self.blocked if isinstance(self.tracker, NoNotifications) else self.is_quiet
        until(lambda: is_settled() or future.done())
        return future

    def take(
        self, seconds: float, attempt: Callable[[ReliableQueue], Batch[Any]] = pop, client: FakeClient | None = None
    ) -> list[Any]:
        """Wait in this thread, and return the messages."""
        return self.long_poll.take([self.queue], seconds, attempt, None, client or FakeClient())[1].messages

    @property
    def waiters(self) -> Waiters | None:
        return self.long_poll._queues.get(self.queue.key)

    def number(self) -> int:
        return len(self.waiters.order) if self.waiters else 0

    def blocked(self) -> list[Any]:
        """Return the connections that block in Redis for this process."""
        clients = self.store.client().client_list()
        return [client for client in clients if client["name"] == self.label and "b" in client["flags"]]

    def is_quiet(self) -> bool:
        """Return whether only a notification can lead to another attempt."""
        found = self.waiters
        return bool(found and found.is_quiet and self.tracker.is_live and found.retry_delay() > 0)


@pytest.fixture(params=["valkey", "redis7"])
def process(request: pytest.FixtureRequest, name: str) -> Iterator[Process]:
    """A process whose first client blocks, as Redis sends no notifications."""
    made = Process(request.getfixturevalue(request.param), name)
    yield made
    made.end()


@pytest.fixture
def notified(request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A process whose queue is quiet soon, and for which only a notification leads to another attempt then."""
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(long_poll, "QUIET_RETRY_INTERVAL", 1000.0)
    monkeypatch.setattr(long_poll, "LINGER_SECONDS", 0.2)
    store: Store = request.getfixturevalue(getattr(request, "param", "valkey"))
    made = Process(store, name, tracker=ChangeNotifications(store.client(), "queue:"))
    yield made
    made.end()


@pytest.fixture
def woken_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client block for so long that only being woken lets a test pass."""
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 4.0)


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


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_add_a_message_wakes_a_client_that_blocks(woken_only: None, process: Process, way: str) -> None:
    future = process.wait()
    WAYS[way](process.queue)
    assert future.result() == [b"a"]
    assert process.blocking.got == [b"a"]
    assert process.queue.client.llen(process.queue.key) == 0


@pytest.mark.parametrize("notified", ["valkey", "redis7"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_add_a_message_is_notified_to_a_quiet_client(notified: Process, way: str) -> None:
    future = notified.wait()
    WAYS[way](notified.queue)
    assert future.result() == [b"a"]
    assert notified.queue.client.llen(notified.queue.key) == 0


def come_back(process: Process, operation: str) -> None:
    """Let a message come back to a client that waits, in each way."""
    queue = process.queue
    queue.push(b"a")
    [delivery] = queue.reserve().messages
    future = process.wait(operation)
    queue.release(delivery.id)
    assert future.result() == [b"a"]
    queue.push(b"b")
    _, undo = queue.clear()
    future = process.wait(operation)
    queue.restore(str(undo))
    assert future.result() == [b"b"]


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_release_and_a_restore_wake_a_client_that_blocks(woken_only: None, process: Process, operation: str) -> None:
    come_back(process, operation)
    assert process.blocking.got == [b"a", b"b"]


def test_a_release_and_a_restore_are_notified_to_a_quiet_client(notified: Process) -> None:
    come_back(notified, "pop")


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_the_message_of_a_lease_that_ends_goes_to_a_waiting_client(
    woken_only: None, process: Process, operation: str
) -> None:
    process.queue.push(b"a")
    process.queue.reserve(0.2)
    assert process.wait(operation).result() == [b"a"]
    assert max(process.blocking.seconds, default=0) <= 0.2


def reserve_raw(queue: ReliableQueue) -> None:
    """Let a message go straight to another client, which holds it for a while."""
    queue.client.eval(
        "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) redis.call('HSET', KEYS[2], ARGV[2], 'a')",
        2,
        queue.key_prefix + "reserved",
        queue.key_prefix + "bodies",
        int(time.time() * 1000) + 100,
        "1795489534022053-000001-c6c635c30e138159-1",
    )


def test_a_lease_that_was_made_during_the_wait_is_noticed_too(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    future = process.wait()
    reserve_raw(process.queue)
    assert future.result() == [b"a"]


@pytest.mark.parametrize("begin", [reserve_raw, lambda queue: queue.push_later(0.1, [b"a"])], ids=["lease", "delay"])
def test_a_lease_or_delay_that_begins_while_the_queue_is_quiet_is_noticed_too(
    notified: Process, begin: Callable[[ReliableQueue], Any]
) -> None:
    future = notified.wait()
    begin(notified.queue)
    assert future.result(5) == [b"a"]  # the next report of the number of waiting clients would bring it back, too


def test_a_resume_is_notified_to_a_quiet_client(notified: Process) -> None:
    notified.queue.pause()
    future = notified.wait()
    notified.queue.push(b"a")
    until(lambda: notified.attempts > 2 and notified.is_quiet())
    notified.queue.resume()
    assert future.result() == [b"a"]


# --- a quiet queue


def test_waiting_on_quiet_queues_costs_redis_nothing(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(long_poll, "REPORT_TTL", 1000.0)
    store = own_store()
    client, stopping = store.client(), threading.Event()
    waiting = long_poll_on(
        client, connect(store.url, blocking=True), 100, stopping.is_set, tracker=ChangeNotifications(client, "queue:")
    )
    clients = [FakeClient() for _ in range(40)]
    with ThreadPoolExecutor(40) as pool:
        for number, each in enumerate(clients):
            queue = ReliableQueue(client, f"{name}-{number % 20}")
            pool.submit(waiting.take, [queue], 60, pop, None, each)
        until(lambda: len(waiting._queues) == 20 and all(one.is_quiet for one in waiting._queues.values()))
        until(lambda: all(one.reported == {"": 2} for one in waiting._queues.values()))
        until(lambda: waiting.tracker.is_live and all(one.retry_delay() > 10 for one in waiting._queues.values()))
        until(lambda: not [each for each in client.client_list() if "b" in each["flags"]])
        client.config_resetstat()
        time.sleep(0.5)  # that nothing happens can only be seen by waiting: ten times as long as one BLMOVE
        stats = client.info("commandstats")
        stopping.set()
        for each in clients:
            each.notify()
    assert stats.keys() <= {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_hello", "cmdstat_client|setinfo"}


def test_a_message_that_arrives_while_a_queue_becomes_quiet_is_not_missed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(NoNotifications, "is_live", True)
    pushed: list[int] = []

    def attempt(_: ReliableQueue) -> Batch[bytes]:
        batch = process.queue.pop_batch()
        if process.blocking.seconds and not pushed:
            pushed.append(process.queue.push(b"a"))
        return batch

    assert process.take(20, attempt) == [b"a"]


def test_a_queue_is_not_quiet_while_messages_arrive(notified: Process) -> None:
    first, second = notified.wait(), notified.wait()
    before = len(notified.blocking.seconds)
    notified.queue.push(b"a")
    assert first.result() == [b"a"]
    until(lambda: len(notified.blocking.seconds) > before)
    notified.queue.push(b"b")
    assert second.result() == [b"b"]


def test_a_disconnect_is_noticed_at_once_though_the_queue_is_quiet(notified: Process) -> None:
    gone, here = notified.wait(number=1), notified.wait(number=2)
    notified.gone.add(1)
    notified.clients[0].notify()
    assert gone.result() == []
    notified.queue.push(b"a")
    assert here.result() == [b"a"]


def test_a_change_is_tried_by_the_next_client_if_the_first_one_fails(notified: Process) -> None:
    fails = threading.Event()

    def attempt(_: ReliableQueue) -> Batch[bytes]:
        if fails.is_set():
            fails.clear()
            raise NotSent
        return notified.queue.pop_batch()

    first = notified.pool.submit(notified.take, 60, attempt)
    until(notified.is_quiet)
    second = notified.wait()
    fails.set()
    notified.queue.push(b"a")
    with pytest.raises(NotSent):
        first.result()
    assert second.result() == [b"a"]


def test_a_lost_notification_delays_a_message_only(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(long_poll, "QUIET_RETRY_INTERVAL", 0.2)
    monkeypatch.setattr(NoNotifications, "is_live", True)
    future = process.wait()
    until(lambda: process.waiters and process.waiters.is_quiet)
    process.queue.push(b"a")
    assert future.result() == [b"a"]


def test_a_client_blocks_again_when_notifications_stop(notified: Process) -> None:
    future = notified.wait()
    client, before = notified.queue.client, len(notified.blocking.seconds)
    [follower] = [each for each in client.client_list() if "B" in each["flags"]][-1:]
    client.client_kill_filter(_id=follower["id"])
    until(lambda: len(notified.blocking.seconds) > before)
    client.lpush(notified.queue.key, "a")
    assert future.result() == [b"a"]


class NoConnection:
    """A client all of whose connections are in use."""

    def blmove(self, *_: Any) -> None:
        raise redis.MaxConnectionsError


def test_a_client_without_a_connection_to_block_waits_for_a_notification(
    notified: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 1000.0)
    notified.long_poll.client = NoConnection()
    future = notified.wait()
    notified.queue.push(b"a")
    assert future.result() == [b"a"]


def test_a_client_without_a_connection_and_notifications_retries_at_intervals(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.1)
    process.long_poll.client = NoConnection()
    assert process.wait(seconds=0.5).result() == []
    assert 2 <= process.attempts <= 7


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


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_push_of_many_messages_serves_many_clients_without_blocking_again(process: Process, verb: str) -> None:
    process.wait(verb, number=1)
    waiting = [process.wait(verb) for _ in range(50)]
    attempts, blocks = process.attempts, len(process.blocking.seconds)
    process.gone.add(1)
    process.queue.push(*[b"%d" % number for number in range(50)])
    assert [future.result() for future in waiting] == [[b"%d" % number] for number in range(50)]
    assert process.attempts - attempts <= 55  # one more for each second that passes meanwhile
    assert len(process.blocking.seconds) - blocks <= 5


def test_a_client_that_has_disconnected_takes_nothing_and_the_next_is_served(
    woken_only: None, process: Process
) -> None:
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
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
    futures = [process.wait() for _ in range(3)]
    process.stopping = True
    assert [future.result() for future in futures] == [[], [], []]
    process.queue.push(b"a")
    assert process.queue.all() == [b"a"]


def test_too_many_clients_are_refused_and_the_others_still_served(process: Process) -> None:
    process.long_poll.slots.maximum = 2
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


@pytest.mark.slow
def test_queues_and_threads_are_gone_when_no_client_waits(notified: Process) -> None:
    for _ in range(2):
        future = notified.wait(seconds=0.5)
        assert future.result() == []
        until(lambda: not notified.long_poll._queues)
        assert not notified.long_poll._quiet and not notified.tracker._observers
        until(lambda: "report-waiters" not in [thread.name for thread in threading.enumerate()])


def test_a_server_that_cannot_block_is_polled_at_intervals(name: str) -> None:
    asked = 0

    class Counting(FakeRedis):
        def blmove(self, *_: Any, **__: Any) -> None:
            nonlocal asked
            asked += 1

    queue = ReliableQueue(FakeRedis(), name)
    made = long_poll_on(queue.client, Counting())
    assert made.take([queue], 0.1, pop, None, FakeClient())[1].messages == []
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
    monkeypatch.setattr(long_poll, "REPORT_TTL", 0.3)
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
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.05)
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
    assert process.take(10) == [b"a"]
    assert process.take(0.1) == []
    process.end()


# --- a queue whose limits are reached

FREED: dict[str, Callable[[ReliableQueue, Delivery], Any]] = {
    "ack": lambda queue, held: queue.ack(held.id),
    "release with a delay": lambda queue, held: queue.release(held.id, delay=100),
    "end of the lease": lambda queue, held: queue.extend(held.id, 0.1),
    "setting": lambda queue, held: queue.set_settings(at_once=2),
    "raw ZREM": lambda queue, held: queue.client.zrem(queue.key_prefix + "reserved", held.id),
}


def limited(process: Process) -> Delivery:
    """Let the queue hold one reservation, which is all that its settings allow, and return it."""
    process.queue.set_settings(at_once=1)
    process.queue.push(b"a")
    return process.queue.reserve().messages[0]


@pytest.mark.parametrize("notified", ["valkey", "redis7"], indirect=True)
@pytest.mark.parametrize("way", FREED)
def test_every_way_to_free_a_place_wakes_a_client(notified: Process, way: str) -> None:
    queue, held = notified.queue, limited(notified)
    queue.push(b"b")
    future = notified.wait("reserve")
    FREED[way](queue, held)
    assert future.result() == [b"a" if way == "end of the lease" else b"b"]
    assert notified.blocking.seconds == []


def test_the_places_that_become_free_serve_the_clients_in_order(notified: Process) -> None:
    queue, held = notified.queue, limited(notified)
    queue.push(*[b"%d" % number for number in range(5)])
    futures = [notified.wait("reserve") for _ in range(5)]
    for number, future in enumerate(futures):
        queue.ack(held.id)
        [held] = future.result()
        assert held == b"%d" % number


def test_a_rate_serves_waiting_clients_one_after_the_other(notified: Process) -> None:
    notified.queue.set_settings(per_second=10)
    notified.queue.push(*[b"%d" % number for number in range(5)])
    futures = [notified.wait() for _ in range(5)]
    assert [future.result() for future in futures] == [[b"%d" % number] for number in range(5)]
    assert notified.attempts <= 4 * 5  # it has come, joined the line, and tried when it was first and when it was time


def test_a_push_does_not_wake_the_clients_of_a_limited_queue(notified: Process) -> None:
    queue, held = notified.queue, limited(notified)
    queue.push(b"b")
    future = notified.wait("reserve")
    before = notified.attempts
    for _ in range(50):
        queue.push(b"c")
    queue.ack(held.id)
    assert future.result() == [b"b"]
    assert notified.attempts - before <= 2


def test_a_limited_client_tries_at_intervals_where_redis_sends_no_notifications(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "BLOCK_SECONDS", 0.1)
    held = limited(process)
    process.queue.push(b"b")
    future = process.pool.submit(process.take, 60, lambda queue: queue.reserve())
    until(lambda: process.waiters and process.waiters.is_limited)
    process.queue.ack(held.id)
    assert future.result() == [b"b"]


def test_a_wait_on_a_limited_queue_ends_when_its_time_is_up(notified: Process) -> None:
    limited(notified)
    notified.queue.push(b"b")
    _, batch = notified.long_poll.take([notified.queue], 0.1, lambda queue: queue.reserve(), None, FakeClient())
    assert not batch.messages and 0 < batch.retry_after <= 1


def test_waiting_on_a_limited_queue_costs_redis_nothing(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "REPORT_TTL", 1000.0)
    store = own_store()
    process = Process(store, name, tracker=ChangeNotifications(store.client(), "queue:"))
    process.queue.set_settings(at_once=1, per_second=0.001)
    process.queue.push(b"a", b"b")
    process.queue.reserve()
    for operation in ("pop", "reserve") * 10:
        process.wait(operation)
    client = store.client()
    until(lambda: process.waiters and process.waiters.reported == {"": 20})
    client.config_resetstat()
    time.sleep(0.5)  # that nothing happens can only be seen by waiting
    assert client.info("commandstats").keys() <= {"cmdstat_info", "cmdstat_config|resetstat"}
    process.end()
