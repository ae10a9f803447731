"""The settings of a queue: how much may be taken at once and per second, and how often it is delivered."""

import bisect
import itertools
import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.models import Batch, QueueSettings
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_leases, numbered, reserve
from tests.servers import Store, until

PROCESSES = 8
SECOND = 1_000_000  # microseconds


def outcome(batch: Batch[Any]) -> tuple[int, bool]:
    """Return the number of messages taken, and whether a limit kept it from more."""
    assert not (batch.messages and batch.limited)
    return len(batch.messages), batch.limited


def test_settings_are_none_until_they_are_set_and_change_one_by_one(queue: ReliableQueue) -> None:
    assert queue.settings() == QueueSettings()
    queue.set_settings(at_once=5, per_second=0.5, max_deliveries=2)
    assert queue.settings() == QueueSettings(5, 0.5, 2)
    queue.set_settings(per_second=0)
    assert queue.settings() == QueueSettings(5, 0, 2)
    queue.set_settings(at_once=0, max_deliveries=0)
    assert queue.settings() == QueueSettings()
    assert not queue.client.exists(queue.key_prefix + "settings")


@pytest.mark.parametrize("end", ["ack", "release", "release later", "bury", "expire"])
def test_no_more_are_reserved_at_once_than_the_setting_until_one_ends(queue: ReliableQueue, end: str) -> None:
    queue.set_settings(at_once=2)
    queue.push(*numbered(9))
    assert outcome(queue.reserve(30, 5)) == (2, False)
    id = queue.client.zrange(queue.key_prefix + "reserved", 0, 0)[0].decode()
    for batch in (
        queue.reserve(),
        queue.reserve(30, 5),
        queue.pop_batch(),
        queue.pop_batch(5),
        queue.pop_batch(1, "k"),
    ):
        assert outcome(batch) == (0, True)
        assert 0 < batch.retry_after <= 1
        assert batch.next_due is not None and batch.next_due > 1  # when the first lease ends
    if end == "ack":
        queue.ack(id)
    elif end == "expire":
        end_leases(queue, id)
    else:
        queue.release(id, delay=100 * (end == "release later"), dead=end == "bury")
    assert outcome(queue.reserve(30, 5)) == (1, False)
    assert outcome(queue.reserve(30, 5)) == (0, True)


def test_a_pop_takes_no_place_but_no_more_than_are_free(queue: ReliableQueue) -> None:
    queue.set_settings(at_once=2)
    queue.push(*numbered(9))
    assert queue.pop(5) == numbered(2)
    assert queue.pop() == [b"2"]
    assert len(reserve(queue)) == 1
    assert queue.pop(5) == [b"4"]


def test_a_rate_allows_a_burst_and_then_one_message_each_interval(queue: ReliableQueue) -> None:
    queue.set_settings(per_second=0.01)
    queue.push(*numbered(9))
    assert queue.pop() == [b"0"]
    for batch in (queue.reserve(), queue.pop_batch(), queue.pop_batch(5)):
        assert outcome(batch) == (0, True)
        assert 90 < batch.retry_after <= 100
        assert batch.next_due == batch.retry_after
    assert 90_000 < queue.client.pttl(queue.key_prefix + "rate") <= 100_000
    queue.set_settings(per_second=50)  # a bucket of five
    assert outcome(queue.reserve(30, 9)) == (5, False)
    assert reserve(queue, 9) == []


def test_a_rate_counts_pops_and_reservations_together(queue: ReliableQueue) -> None:
    queue.set_settings(per_second=20)  # a bucket of two
    queue.push(*numbered(9))
    started = queue.client.time()
    assert (len(queue.pop()), len(reserve(queue))) == (1, 1)
    limited = queue.pop_batch()
    if elapsed(started, queue.client.time()) < SECOND / 20:
        assert outcome(limited) == (0, True)
    until(lambda: queue.pop())


def elapsed(start: tuple[int, int], end: tuple[int, int]) -> int:
    """Return the microseconds between two times of Redis."""
    return (end[0] - start[0]) * SECOND + end[1] - start[1]


def test_a_full_bucket_leaves_no_key(queue: ReliableQueue) -> None:
    queue.set_settings(per_second=100_000)
    queue.push(b"a")
    queue.pop()
    until(lambda: not queue.client.exists(queue.key_prefix + "rate"))
    assert outcome(queue.pop_batch()) == (0, False)


def test_a_clock_set_back_does_not_hold_a_queue_for_that_long(queue: ReliableQueue) -> None:
    queue.set_settings(per_second=1)
    queue.push(b"a")
    queue.client.set(queue.key_prefix + "rate", round((time.time() + 3600) * SECOND))
    assert queue.pop() == [b"a"]


def test_an_empty_queue_is_empty_whatever_its_limits(queue: ReliableQueue) -> None:
    queue.set_settings(at_once=1, per_second=0.001)
    queue.push(b"a")
    reserve(queue)
    assert outcome(queue.reserve()) == outcome(queue.pop_batch()) == (0, False)


def test_a_pause_comes_before_a_limit(queue: ReliableQueue) -> None:
    queue.set_settings(at_once=1)
    queue.push(b"a", b"b")
    reserve(queue)
    queue.pause()
    batch = queue.reserve()
    assert (batch.paused, batch.limited) == (True, False)
    queue.resume()
    assert queue.reserve().limited


def test_a_saved_answer_is_given_again_by_a_limited_queue(queue: ReliableQueue) -> None:
    queue.set_settings(per_second=0.001)
    queue.push(b"a", b"b")
    assert [queue.pop_batch(1, "key").messages for _ in range(2)] == [[b"a"], [b"a"]]
    assert queue.pop_batch(1, "other").limited


def test_limits_apply_to_nothing_but_pop_and_reserve(queue: ReliableQueue) -> None:
    queue.set_settings(at_once=1, per_second=0.001)
    queue.push(*numbered(4))
    reserve(queue)
    assert queue.client.rpop(queue.key) == b"1"  # other Redis clients are not held
    queue.remove(0, b"2")
    assert (queue.all(), queue.move(queue.name + "x", 5)) == ([b"3"], 1)


def test_dead_letters_have_settings_of_their_own(queue: ReliableQueue) -> None:
    dead = dead_letters(queue)
    dead.push(b"a", b"b")
    dead.set_settings(at_once=1)
    assert queue.settings() == QueueSettings()
    assert outcome(dead.reserve(30, 5)) == (1, False)
    assert outcome(dead.reserve()) == (0, True)


@pytest.mark.parametrize("end", ["release", "expire"])
@pytest.mark.parametrize(("setting", "deliveries"), [(1, 1), (7, 7), (0, 5)])
def test_a_message_is_buried_after_as_many_deliveries_as_the_queue_sets(
    queue: ReliableQueue, end: str, setting: int, deliveries: int
) -> None:
    queue.set_settings(max_deliveries=setting)
    queue.push(b"a")
    for number in range(deliveries):
        assert counts(queue) == (1, 0, 0), number
        [delivery] = reserve(queue)
        if end == "release":
            queue.release(delivery.id)
        else:
            end_leases(queue)
            queue.sweep()
    assert counts(queue) == (0, 0, 1)


def test_a_limited_attempt_writes_nothing(queue: ReliableQueue) -> None:
    """Waiting clients try again when the queue changes, so their own attempts must not wake them."""
    queue.set_settings(at_once=1, per_second=0.001)
    queue.push(b"a", b"b")
    reserve(queue)
    before = queue.client.info("persistence")["rdb_changes_since_last_save"]
    assert queue.reserve().limited
    queue.set_settings(at_once=0)
    assert queue.pop_batch().limited
    assert queue.client.info("persistence")["rdb_changes_since_last_save"] == before + 1


# --- many processes


def work(url: str, name: str, start: Any, results: Any) -> None:
    """Reserve and ack until the queue is empty; report when each reservation began, and until when it was held."""
    queue, held = ReliableQueue(connect(url), name), []
    start.wait(60)
    while (batch := queue.reserve()).messages or batch.limited:
        for delivery in batch.messages:
            time.sleep(0.002)  # the work, during which others try
            held.append((int(delivery.id[:16]), elapsed((0, 0), queue.client.time())))
            queue.ack(delivery.id)
    results.put(held)


def work_of_processes(store: Store, name: str) -> list[tuple[int, int]]:
    """Let processes empty a queue; return when reservations began, and until when they were held, by Redis's clock."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    workers = [context.Process(target=work, args=(store.url, name, start, results)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    return sorted(itertools.chain(*found))


@pytest.fixture(params=["valkey", "redis7"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.mark.slow
def test_processes_never_hold_more_at_once_than_the_setting(store: Store, name: str) -> None:
    queue = ReliableQueue(store.client(), name)
    queue.set_settings(at_once=3)
    queue.push(*numbered(300))
    held = work_of_processes(store, name)
    changes = sorted([(began, 1) for began, _ in held] + [(end, -1) for _, end in held])
    assert (len(held), max(itertools.accumulate(change for _, change in changes))) == (300, 3)


@pytest.mark.slow
def test_processes_never_take_more_in_any_second_than_the_rate_and_its_burst(store: Store, name: str) -> None:
    queue = ReliableQueue(store.client(), name)
    queue.set_settings(per_second=100)
    queue.push(*numbered(250))
    moments = [began for began, _ in work_of_processes(store, name)]
    in_a_second = [bisect.bisect(moments, began + SECOND) - at for at, began in enumerate(moments)]
    assert (len(moments), max(in_a_second) <= 110) == (250, True), max(in_a_second)


def crash(url: str, name: str) -> None:
    ReliableQueue(connect(url), name).reserve(lease=1)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_the_place_of_a_worker_that_crashed_returns_with_its_lease(store: Store, name: str) -> None:
    queue = ReliableQueue(store.client(), name)
    queue.set_settings(at_once=1)
    queue.push(b"a", b"b")
    worker = multiprocessing.get_context("spawn").Process(target=crash, args=(store.url, name))
    worker.start()
    worker.join(60)
    found = until(lambda: reserve(queue))[0]
    assert (worker.exitcode, found, found.deliveries) == (-signal.SIGKILL, b"a", 2)
    assert queue.reserve().limited
