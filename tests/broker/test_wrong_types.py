"""Keys of a wrong type: an operation that fails because of one has changed nothing, and loses nothing."""

import itertools
import time
from typing import Any

import pytest
import redis

from broker.keys import SCRIPT_KEYS
from broker.models import LeaseExpired, NotFound
from broker.queue import ReliableQueue
from tests.broker.helpers import bury, counts, dead_letters, each_operation, end_leases, reserve
from tests.servers import Store
from web.errors import from_redis

HOUR = 3_600_000  # milliseconds
FAILURES = (redis.ResponseError, LeaseExpired, NotFound)
KEYS = ["list", *SCRIPT_KEYS, "resumed"]
REPLACED = ("paused", "resumed")  # by pause and resume, whatever they hold


def key_of(queue: ReliableQueue, key: str) -> str:
    return queue.key if key == "list" else queue.key_prefix + key


def damage(queue: ReliableQueue, key: str) -> str:
    """Store a value of the wrong type under one of the queue's keys, and return that key."""
    damaged = key_of(queue, key)
    queue.client.delete(damaged)
    if key in ("clock", "rate"):  # these are strings
        queue.client.lpush(damaged, "a list")
    else:
        queue.client.set(damaged, "a string")
    return damaged


@pytest.fixture
def valkey_queue(valkey: Store, name: str) -> ReliableQueue:
    return ReliableQueue(valkey.client(), name)


class Filled:
    """A queue of dead letters with every kind of key, which can be put back to how it was."""

    def __init__(self, parent: ReliableQueue) -> None:
        self.queue = queue = dead_letters(parent)
        queue.push(b"cleared")
        cleared = str(queue.clear()[1])
        for letter in (b"z", b"a", b"b", b"c", b"d"):
            bury(parent, letter, "why")
        removed = str(queue.remove(0, b"z", undo=True))
        returned, reserved, delayed = reserve(queue, 3)
        queue.release(returned.id)
        queue.release(delayed.id, delay=1000)
        queue.stats()
        queue.report_waiters("process", 1, 60)
        queue.set_settings(at_once=1000, per_second=1000)
        self.operations = each_operation(queue, reserved.id, delayed.id + "-d", cleared, removed)
        self.keys = [key_of(queue, key) for key in KEYS]
        self.keys += [queue._cleared_key(cleared), queue._cleared_key(removed)]
        self.keys += [ReliableQueue(None, queue.name + "x").key]
        self.content = self.read()

    def read(self) -> dict[str, bytes | None]:
        """Return the content of all keys."""
        pipeline = self.queue.client.pipeline(transaction=False)
        for key in self.keys:
            pipeline.dump(key)
        return dict(zip(self.keys, pipeline.execute(), strict=True))

    def restore(self) -> None:
        pipeline = self.queue.client.pipeline(transaction=False)
        pipeline.delete(*self.keys)
        for key, content in self.content.items():
            if content:
                pipeline.restore(key, 0, content)
        pipeline.execute()


@pytest.mark.parametrize("key", KEYS)
def test_an_operation_that_fails_has_changed_nothing(valkey_queue: ReliableQueue, key: str) -> None:
    filled, failed = Filled(valkey_queue), False
    for operation, call in filled.operations.items():
        filled.restore()
        damaged = damage(filled.queue, key)
        before = filled.read()
        try:
            call()
        except FAILURES:
            failed = True
            assert filled.read() == before, operation
        if key not in REPLACED:
            assert valkey_queue.client.dump(damaged) == before[damaged], operation
    assert failed or key in REPLACED


@pytest.mark.parametrize("key", ["reserved", "bodies"])
def test_a_reserve_that_fails_on_a_queue_where_nothing_is_due_takes_nothing(
    valkey_queue: ReliableQueue, key: str
) -> None:
    valkey_queue.push(b"a", b"b")
    reserve(valkey_queue)
    damage(valkey_queue, key)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        valkey_queue.reserve()
    assert valkey_queue.all() == [b"b"]


@pytest.mark.parametrize("key", ["reserved", "bodies", "acked"])
def test_an_ack_that_fails_where_it_is_all_there_is_to_do_changes_nothing(
    valkey_queue: ReliableQueue, key: str
) -> None:
    valkey_queue.push(b"a", b"b")
    before, id = [one.id for one in reserve(valkey_queue, 2)]
    valkey_queue.ack(before)
    client = valkey_queue.client
    client.pexpire(damage(valkey_queue, key), HOUR + 1000)  # as acked ids are kept
    keys = [key_of(valkey_queue, name) for name in SCRIPT_KEYS]
    content = [client.dump(key) for key in keys]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        valkey_queue.ack(id)
    assert [client.dump(key) for key in keys] == content


@pytest.mark.parametrize("key", ["reserved", "delayed"])
def test_a_clock_set_back_moves_all_deadlines_or_none(valkey_queue: ReliableQueue, key: str) -> None:
    filled, hour_ahead = Filled(valkey_queue), round(time.time() * 1000) + HOUR
    valkey_queue.client.set(key_of(filled.queue, "clock"), f"{hour_ahead}:{hour_ahead}:{hour_ahead}")
    damage(filled.queue, key)
    before = filled.read()
    for operation in ("reserve", "extend", "push later", "sweep"):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            filled.operations[operation]()
        assert filled.read() == before, operation


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("reserved", "bodies")])
def test_an_operation_that_fails_loses_no_message_whose_lease_ended(valkey_queue: ReliableQueue, key: str) -> None:
    client, name = valkey_queue.client, valkey_queue.name
    for number, (operation, max_deliveries) in enumerate(itertools.product(each_operation(valkey_queue), (1, 5))):
        queue = ReliableQueue(client, f"{name}.{number}", max_deliveries=max_deliveries)
        queue.push(b"a", b"b")
        one, _ = reserve(queue, 2)
        end_leases(queue)
        damaged = damage(queue, key)
        try:
            each_operation(queue, one.id)[operation]()
        except FAILURES:
            client.delete(damaged)
            queue.sweep()
            assert sorted(queue.all() + dead_letters(queue).all()) == [b"a", b"b"], (operation, max_deliveries)


def test_a_release_that_cannot_bury_one_message_releases_none(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name, max_deliveries=2)
    queue.push(b"a", b"b")
    queue.release(reserve(queue)[0].id)
    last, first = reserve(queue, 2)
    assert (last.deliveries, first.deliveries) == (2, 1)
    damaged = damage(queue, "dead")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.release(last.id, first.id)
    assert queue.all() == []
    queue.client.delete(damaged)
    assert counts(queue) == (0, 2, 0)


@pytest.mark.parametrize("operation", ["move", "move one", "find and move"])
def test_a_move_to_a_key_that_is_not_a_list_moves_nothing(queue: ReliableQueue, operation: str) -> None:
    queue.push(b"a", b"aa")
    queue.release(*(each.id for each in reserve(queue, 2)), reason="why")
    queue.client.set("queue:" + queue.name + "x", "text")
    before = queue.details(9, 0, 9)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        each_operation(queue)[operation]()
    assert queue.details(9, 0, 9) == before


def test_a_queue_that_is_not_a_list_is_reported_as_a_wrong_type(queue: ReliableQueue) -> None:
    queue.client.set(queue.key, "text")
    for operation in ("pop", "reserve", "remove", "clear", "state"):
        with pytest.raises(redis.ResponseError) as caught:
            each_operation(queue)[operation]()
        assert (from_redis(caught.value).status, from_redis(caught.value).error) == (409, "wrong_type"), operation
