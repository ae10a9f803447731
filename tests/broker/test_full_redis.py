"""A Redis whose memory is full rejects pushes, and is emptied by all other operations."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from broker.queue import ReliableQueue
from tests.broker.helpers import counts, numbered, reserve, with_one_delivery
from tests.conftest import need
from tests.servers import Store
from web.errors import from_redis


@pytest.fixture(scope="module", params=["valkey", "redis"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server that `fill` makes full."""
    need(request.param)
    store = Store(request.param, tmp_path_factory.mktemp("full"))
    yield store.client()
    store.end()


def fill(client: Any) -> None:
    client.config_set("maxmemory", 1)


def make_room(client: Any) -> None:
    client.config_set("maxmemory", 0)


def test_a_full_server_rejects_pushes_and_does_everything_else(full: Any, name: str) -> None:
    queue = ReliableQueue(full, name)
    make_room(full)
    queue.push(*numbered(20))
    fill(full)
    pushes: list[Callable[[], int]] = [
        lambda: queue.push(b"a"),
        lambda: queue.push(b"a", front=True),
        lambda: queue.push_once("push", [b"a"]).count,
    ]
    for push in pushes:
        with pytest.raises(redis.OutOfMemoryError) as caught:
            push()
        assert (from_redis(caught.value).status, from_redis(caught.value).error) == (507, "redis_full")
    assert queue.pop() == [b"0"]
    assert queue.pop_batch(1, "pop").messages == queue.pop_batch(1, "pop").messages == [b"1"]
    kept, acked, returned, late = reserve(queue, 4)
    queue.extend(kept.id, 60)
    queue.ack(acked.id)
    queue.release(returned.id)
    end_leases_on_full(queue, late.id)
    assert queue.state().counts.count == 16
    assert queue.all(0, 3) == [b"5", b"4", b"6"]
    queue.remove(0, b"5")
    single = with_one_delivery(queue)
    single.release(reserve(single)[0].id)
    assert counts(queue) == (14, 1, 1)
    cleared, undo = queue.clear()
    assert (cleared, queue.restore(str(undo))) == (14, 14)
    assert queue.move(name + "x", 2) == 2
    queue.move_one(name + "x", 0, b"8")
    assert ReliableQueue(full, name + ".dead").move(name, 9) == 1
    queue.report_waiters("process", 1, 30)
    assert queue.state(1, 0, 9).counts.waiters == 1
    assert queue.all() == [*numbered(11, 9), b"4"]


def end_leases_on_full(queue: ReliableQueue, *ids: str) -> None:
    queue.client.delete(queue.key_prefix + "clock")
    script = "#!lua flags=allow-oom\nfor _, id in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 1, id) end"
    queue.client.eval(script, 1, queue.key_prefix + "reserved", *ids)


def test_a_full_server_is_emptied_by_reserve_and_ack(full: Any, name: str) -> None:
    queue = ReliableQueue(full, name)
    make_room(full)
    queue.push(*numbered(5000))
    fill(full)
    seen: list[bytes] = []
    while found := reserve(queue, 1000):
        seen += found
        queue.ack(*(delivery.id for delivery in found))
    assert (seen, counts(queue)) == (numbered(5000), (0, 0, 0))
