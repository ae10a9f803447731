"""Waiting on several queues in one process: any of them wakes a client, and a request takes from one of them only."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import redis

from broker.changes.notifications import ChangeNotifications
from broker.connections.connection import connect
from broker.models import Batch
from broker.queue import ReliableQueue
from tests.servers import Store, until
from tests.web.live.fakes import FakeClient, NoNotifications, WaitingClients, long_poll_on
from web.live import long_poll

Attempt = Callable[[ReliableQueue], Batch[Any]]


def pop(queue: ReliableQueue) -> Batch[bytes]:
    return queue.pop_batch()


def reserve(queue: ReliableQueue) -> Batch[Any]:
    return queue.reserve()


class Process(WaitingClients):
    """A process whose clients wait on the queues "urgent", "normal" and "low"."""

    def __init__(self, url: str, name: str, is_notified: bool = True) -> None:
        super().__init__()
        self.client = connect(url)
        self.tracker = ChangeNotifications(self.client, "queue:") if is_notified else NoNotifications()
        blocking = connect(url, blocking=True)
        self.long_poll = long_poll_on(self.client, blocking, 100, lambda: self.stopping, tracker=self.tracker)
        self.queues = {each: ReliableQueue(self.client, f"{name}-{each}") for each in ("urgent", "normal", "low")}
        self.urgent, self.normal, self.low = self.queues.values()

    def take(
        self,
        names: str = "urgent,normal,low",
        attempt: Attempt = pop,
        seconds: float = 60,
        client: FakeClient | None = None,
        by: str = "",
    ) -> tuple[str, list[bytes]]:
        """Wait in this thread; return the queue and its messages, ("", []) if there are none."""
        queues = [self.queues[name] for name in names.split(",")]
        self.clients.append(client or FakeClient(check_interval=1000.0))  # it must be woken
        give_back = self.given_back if client else None
        queue, batch = self.long_poll.take(queues, seconds, attempt, give_back, self.clients[-1], by)
        return (queue.name.rpartition("-")[2] if batch.messages else "", batch.messages)

    def given_back(self, queue: ReliableQueue, messages: list[bytes]) -> None:
        queue.requeue(*messages)

    def wait(self, names: str = "urgent,normal,low", **options: Any) -> "Future[tuple[str, list[bytes]]]":
        """Let one more client wait, and return once it is in line and nothing is under way."""
        before, last = self.number(), names.rpartition(",")[2]
        future = self.pool.submit(self.take, names, **options)
        until(lambda: self.number(last) > before or future.done())
        until(lambda: self.is_settled() or future.done())
        return future

    def line(self, name: str) -> "long_poll.Waiters | None":
        return self.long_poll._queues.get(self.queues[name].key)

    def number(self, name: str = "low") -> int:
        line = self.line(name)
        return len(line.order) if line else 0

    def is_settled(self) -> bool:
        """Return whether only a notification, or a return from BLMOVE, can lead to another attempt."""
        blocked = len([each for each in self.client_list() if "b" in each["flags"]])
        lines = [line for name in self.queues if (line := self.line(name)) and line.order]
        quiet = [line for line in lines if line.is_quiet and self.tracker.is_live and line.retry_delay() > 0]
        return len(quiet) + blocked >= len(lines)

    def client_list(self) -> list[Any]:
        primaries = getattr(self.client, "each_primary", lambda: [self.client])()
        return [each for primary in primaries for each in primary.client_list()]

    def is_left(self) -> bool:
        """Return whether no client is in any line."""
        return not any(line.order or line.names for line in self.long_poll._queues.values())

    def end(self) -> None:
        super().end()
        assert self.is_left()


@pytest.fixture
def process(valkey: Store, name: str) -> Iterator[Process]:
    made = Process(valkey.url, name)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def notified_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but a notification lead to another attempt."""
    monkeypatch.setattr(long_poll, "QUIET_RETRY_INTERVAL", 1000.0)
    monkeypatch.setattr(long_poll, "POLL_INTERVAL", 1000.0)


@pytest.mark.parametrize("attempt", [pop, reserve])
def test_a_push_to_any_queue_wakes_a_client_on_every_engine(engine: Any, name: str, attempt: Attempt) -> None:
    process = Process(engine.url, name)
    for each, queue in process.queues.items():
        future = process.wait(attempt=attempt)
        queue.push(each.encode())
        assert future.result() == (each, [each.encode()])
        assert process.is_left()
        assert queue.count() == 0
    process.end()


@pytest.mark.parametrize("seconds", [0, 60])
def test_the_first_queue_that_has_a_message_is_taken_from(process: Process, seconds: float) -> None:
    for queue in process.queues.values():
        queue.push(b"1", b"2")
    process.urgent.pause()
    taken = [process.take(seconds=seconds) for _ in range(3)]
    assert taken == [("normal", [b"1"]), ("normal", [b"2"]), ("low", [b"1"])]
    process.urgent.resume()
    assert process.take(seconds=seconds) == ("urgent", [b"1"])


def test_of_messages_that_arrive_together_the_most_urgent_is_taken(process: Process) -> None:
    future = process.wait()
    with process.client.pipeline() as transaction:
        for queue in (process.low, process.normal, process.urgent):
            transaction.lpush(queue.key, "a")
        transaction.execute()
    assert future.result() == ("urgent", [b"a"])
    assert [queue.count() for queue in process.queues.values()] == [0, 1, 1]


def test_a_request_makes_one_attempt_at_a_time_and_takes_once(process: Process) -> None:
    running, most = threading.Lock(), 0
    pushed = threading.Event()

    def attempt(queue: ReliableQueue) -> Batch[bytes]:
        nonlocal most
        assert running.acquire(blocking=False), "another attempt of this request is under way"
        batch = queue.pop_batch()
        if pushed.is_set():  # let the notifications of all queues arrive meanwhile
            lines = [process.line(name) for name in process.queues]
            until(lambda: all(line and line.changes > line.tried_changes for line in lines[1:]))
        running.release()
        most += len(batch.messages)
        return batch

    future = process.wait(attempt=attempt)
    pushed.set()
    for queue in process.queues.values():
        queue.push(b"a", b"b")
    future.result()
    assert most == 1
    assert sum(queue.count() for queue in process.queues.values()) == 5


def test_a_queue_without_news_is_not_tried_again(process: Process) -> None:
    tried: list[str] = []

    def attempt(queue: ReliableQueue) -> Batch[bytes]:
        tried.append(queue.name)
        return queue.pop_batch()

    future = process.wait(attempt=attempt)
    tried.clear()
    process.low.push(b"a")
    assert future.result() == ("low", [b"a"])
    assert set(tried) == {process.low.name}


def test_clients_on_one_queue_and_on_several_are_served_in_the_order_they_came(process: Process) -> None:
    for order in (["urgent", "urgent,normal"], ["urgent,normal", "urgent"]):
        futures = [process.wait(names) for names in order]
        for future, text in zip(futures, (b"1", b"2"), strict=True):
            process.urgent.push(text)
            assert future.result() == ("urgent", [text])


def test_a_message_that_the_first_in_line_passes_over_goes_to_the_next(process: Process) -> None:
    both, plain = process.wait("urgent,low"), process.wait("low")
    with process.client.pipeline() as transaction:
        transaction.lpush(process.low.key, "l")
        transaction.lpush(process.urgent.key, "u")
        transaction.execute()
    assert both.result() == ("urgent", [b"u"])
    assert plain.result() == ("low", [b"l"])


def test_a_push_of_many_messages_serves_many_clients(process: Process) -> None:
    futures = [process.wait() for _ in range(20)]
    process.normal.push(*[b"%d" % number for number in range(20)])
    assert sorted(int(future.result()[1][0]) for future in futures) == list(range(20))


def test_waiting_on_several_queues_blocks_no_connection_and_costs_redis_nothing(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "REPORT_TTL", 1000.0)
    process = Process(own_store().url, name)
    process.wait()
    for _ in range(39):
        process.pool.submit(process.take)
    until(lambda: process.number("low") == process.number("urgent") == 40 and process.is_settled())
    until(lambda: all(line.reported == {"": 40} for line in process.long_poll._queues.values()))
    assert not [each for each in process.client_list() if "b" in each["flags"]]
    process.client.config_resetstat()
    time.sleep(0.3)  # that nothing happens can only be seen by waiting
    stats = process.client.info("commandstats")
    assert stats.keys() <= {"cmdstat_info", "cmdstat_config|resetstat", "cmdstat_hello", "cmdstat_client|setinfo"}
    process.end()


def test_notifications_go_on_for_a_while_when_nobody_waits(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "REPORT_INTERVAL", 0.01)
    future = process.wait()
    process.low.push(b"a")
    assert future.result() == ("low", [b"a"])
    until(lambda: all(not line.reported for line in process.long_poll._queues.values()))
    assert process.tracker.is_live and process.tracker._observers
    monkeypatch.setattr(long_poll, "LINGER_SECONDS", 0.0)
    until(lambda: not process.long_poll._queues)
    assert not process.tracker._observers


def test_without_notifications_the_queues_are_polled(valkey: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "POLL_INTERVAL", 0.02)
    process = Process(valkey.url, name, is_notified=False)
    future = process.pool.submit(process.take)
    until(lambda: process.number() == 1)
    process.normal.push(b"a")
    assert future.result() == ("normal", [b"a"])
    process.end()


def test_without_notifications_the_clients_in_line_do_not_poll_one_after_another(valkey: Store, name: str) -> None:
    process = Process(valkey.url, name, is_notified=False)
    futures = [process.pool.submit(process.take) for _ in range(5)]
    until(lambda: process.number() == 5)
    process.low.push(*[b"%d" % number for number in range(5)])
    process.long_poll._record_changes(None)  # as the time to poll does
    assert sorted(int(future.result()[1][0]) for future in futures) == list(range(5))
    process.end()


def test_notifications_that_stop_are_replaced_by_polling(
    own_store: Callable[..., Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "POLL_INTERVAL", 0.02)
    process = Process(own_store().url, name)
    future = process.wait()
    monkeypatch.setattr(process.tracker, "_report_changes", lambda _: time.sleep(0.1))  # it never is live again
    [follower] = [each for each in process.client_list() if "B" in each["flags"]]
    process.client.client_kill_filter(_id=follower["id"])
    until(lambda: not process.tracker.is_live)
    process.low.push(b"a")
    assert future.result() == ("low", [b"a"])
    process.end()


def test_a_lease_that_ends_and_a_resume_are_noticed(process: Process) -> None:
    process.normal.push(b"a")
    process.normal.reserve(0.2)
    assert process.take() == ("normal", [b"a"])
    process.low.pause()
    process.low.push(b"b")
    future = process.wait()
    process.low.resume()
    assert future.result() == ("low", [b"b"])


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_the_queues_are_paused_only_if_all_of_them_are(process: Process, seconds: float) -> None:
    def is_paused() -> bool:
        return process.long_poll.take([*process.queues.values()], seconds, pop, None, FakeClient())[1].paused

    process.urgent.pause()
    process.low.pause()
    assert not is_paused()
    process.normal.pause()
    assert is_paused()


def test_a_client_that_has_disconnected_takes_nothing_and_the_next_is_served(process: Process) -> None:
    gone = threading.Event()
    first = process.wait(client=FakeClient(gone.is_set, 1000.0))
    second = process.wait()
    gone.set()
    process.low.push(b"a")
    assert (first.result(), second.result()) == (("", []), ("low", [b"a"]))


def test_what_was_taken_for_a_client_that_disconnects_meanwhile_returns_to_its_queue(process: Process) -> None:
    gone = threading.Event()

    def attempt(queue: ReliableQueue) -> Batch[bytes]:
        batch = queue.pop_batch()
        if batch.messages:
            gone.set()
        return batch

    future = process.wait(attempt=attempt, client=FakeClient(gone.is_set, 1000.0))
    process.normal.push(b"a")
    assert future.result() == ("", [])
    assert process.normal.all() == [b"a"]


def test_a_wait_ends_when_its_time_is_up_and_when_the_worker_stops(process: Process) -> None:
    assert process.take(seconds=0.1) == ("", [])
    future = process.wait()
    process.stopping = True
    process.clients[-1].notify()
    assert future.result() == ("", [])


def test_an_error_of_one_queue_ends_the_wait_and_takes_nothing(process: Process) -> None:
    future = process.wait()
    with process.client.pipeline() as transaction:
        transaction.set(process.normal.key, "text")
        transaction.lpush(process.low.key, "a")
        transaction.execute()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        future.result()
    assert process.low.all() == [b"a"]


def test_waiting_clients_are_reported_by_name_for_each_of_their_queues(process: Process) -> None:
    futures = [process.wait(by="a"), process.wait("urgent,low", by="a"), process.wait("low", by="b"), process.wait()]
    expected = {"urgent": {"a": 2, "": 1}, "normal": {"a": 1, "": 1}, "low": {"a": 2, "b": 1, "": 1}}

    def reported() -> dict[str, dict[str, int]]:
        return {name: {one.by: one.waiting for one in queue.consumers()[0]} for name, queue in process.queues.items()}

    until(lambda: reported() == expected)
    process.low.push(b"1", b"2", b"3", b"4")
    assert {future.result()[0] for future in futures} == {"low"}
    until(lambda: reported() == {"urgent": {}, "normal": {}, "low": {}})
