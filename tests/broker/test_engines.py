"""The operations do the same on every engine: each version of a server, a cluster, and servers behind Sentinels."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from broker.changes.notifications import ChangeNotifications
from broker.connections.connection import connect
from broker.connections.health import check_server, find_mistake, find_warning
from broker.listing import ListedQueue, QueueLister
from broker.models import Conflict, LeaseExpired, QueueCounts, QueueSettings
from broker.queue import ReliableQueue
from broker.scan import iter_messages
from tests.broker.helpers import (
    counts,
    dead_letters,
    end_leases,
    numbered,
    reserve,
    use_every_operation,
    with_one_delivery,
)
from tests.engines import Cluster
from tests.servers import Store, until


@pytest.fixture
def client(engine: Any) -> Any:
    return connect(engine.url)


@pytest.fixture
def queue(client: Any, name: str) -> ReliableQueue:
    return ReliableQueue(client, name)


def test_messages_come_out_in_the_order_they_went_in(queue: ReliableQueue) -> None:
    assert queue.push(b"a", b"b") == 2
    assert queue.push(b"\xff", front=True) == 3
    assert queue.all() == [b"\xff", b"a", b"b"]
    assert queue.pop() == [b"\xff"]
    assert queue.pop(9) == [b"a", b"b"]
    assert queue.pop() == []


def test_a_key_pushes_and_pops_once(queue: ReliableQueue) -> None:
    assert [queue.push_once("key", [b"a", b"b"]).count for _ in range(2)] == [2, 2]
    with pytest.raises(Conflict):
        queue.push_once("key", [b"c"])
    assert [queue.pop_batch(1, "pop").messages for _ in range(2)] == [[b"a"], [b"a"]]
    assert queue.all() == [b"b"]


def test_a_reservation_is_acked_returned_or_buried(queue: ReliableQueue) -> None:
    queue.push(*numbered(4))
    acked, released, extended, expired = reserve(queue, 4)
    assert queue.ack(acked.id) == 1
    assert queue.extend(extended.id, 1000) > extended.deadline
    end_leases(queue, expired.id)
    assert queue.release(released.id) == 0
    assert (counts(queue), queue.all()) == ((2, 1, 0), [b"1", b"3"])
    with pytest.raises(LeaseExpired):
        queue.release(expired.id)
    [buried] = reserve(queue)
    assert with_one_delivery(queue).release(buried.id) == 1
    assert dead_letters(queue).all() == [b"1"]
    assert dead_letters(queue).move(queue.name, 9) == 1  # they share a slot


def test_the_limits_of_a_queue_hold(queue: ReliableQueue) -> None:
    queue.push(*numbered(9))
    assert queue.set_settings(at_once=2, per_second=0.5, max_deliveries=1) == QueueSettings(2, 0.5, 1)
    [delivery] = reserve(queue, 9)
    assert queue.pop_batch(9).limited
    assert queue.set_settings(per_second=0) == queue.settings() == QueueSettings(2, 0, 1)
    assert (len(reserve(queue, 9)), queue.reserve().limited) == (1, True)
    assert queue.release(delivery.id) == 1
    assert not queue.reserve().limited


def test_messages_are_removed_put_back_cleared_and_restored(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    queue.remove(1, b"b")
    queue.requeue(*queue.pop())
    cleared, undo = queue.clear()
    queue.push(b"d")
    assert (cleared, queue.restore(str(undo))) == (2, 2)
    assert queue.all() == [b"a", b"c", b"d"]
    assert queue.state(1, 0, 9).heads == [(b"a", 1)]


def test_a_wait_ends_when_a_message_is_pushed_and_takes_nothing(engine: Any, queue: ReliableQueue) -> None:
    waiting = connect(engine.url, blocking=True)
    queue.wait(0.01, waiting)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(queue.wait, 30, waiting)
        queue.push(b"a")
        wait.result(20)
    assert queue.pop() == [b"a"]


def test_all_queues_are_listed_and_their_messages_iterated(client: Any, name: str) -> None:
    queues = [ReliableQueue(client, f"{name}-{number}") for number in range(9)]  # in all parts of a cluster
    for queue in queues:
        queue.push(*numbered(50))
        reserve(queue)
    listing = QueueLister(client, "queue:", 5).list_queues(name + "-*")
    counts = QueueCounts(count=49, reserved=1)
    assert (listing.complete, listing.queues) == (True, [ListedQueue(queue.name, counts) for queue in queues])
    assert [message for chunk in iter_messages(queues[0]) for message in chunk] == numbered(49, 1)


def test_a_change_of_any_queue_is_notified(client: Any, name: str) -> None:
    tracker, events = ChangeNotifications(client, "queue:"), [Event() for _ in range(9)]
    queues = [ReliableQueue(client, f"{name}-{number}") for number in range(9)]
    subscriptions = [tracker.subscribe(queue, event.set) for queue, event in zip(queues, events, strict=True)]
    until(lambda: tracker.is_live)
    for event in events:
        event.clear()
    for queue, event in zip(queues, events, strict=True):
        queue.push(b"a")
        assert event.wait(20), queue.name
    for subscription in subscriptions:
        tracker.unsubscribe(subscription)


def test_every_script_runs(queue: ReliableQueue, request: pytest.FixtureRequest) -> None:
    use_every_operation(queue)
    is_old = request.node.callspec.params["engine"] == "redis6"
    assert queue.client.lacks_flags is is_old


@pytest.mark.parametrize("kind", ["valkey", "redis", "redis6", "redis8"])
def test_a_full_server_takes_messages_back(own_store: Callable[..., Store], name: str, kind: str) -> None:
    queue = ReliableQueue(own_store(kind).client(), name)
    queue.push(*numbered(4))
    released, expired, acked = reserve(queue, 3)
    queue.client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        queue.push(b"new")
    assert queue.release(released.id) == 0
    end_leases_on_full(queue, expired.id)
    assert queue.ack(acked.id) == 1
    queue.requeue(*queue.pop())
    assert queue.pop(9) == [b"1", b"0", b"3"]
    assert find_warning(queue.client).startswith("Redis is out of memory")


def end_leases_on_full(queue: ReliableQueue, id: str) -> None:
    """Let a lease end long ago, on a server whose memory is full."""
    queue.client.config_set("maxmemory", 0)
    end_leases(queue, id)
    queue.client.config_set("maxmemory", 1)


def test_a_server_that_serves_is_healthy(engine: Any, client: Any) -> None:
    check_server(client)
    assert find_warning(client) == ""
    assert find_mistake(engine.url) == ""


def test_a_wrong_kind_of_url_is_explained(cluster: Cluster, sentinels: Any, valkey: Any) -> None:
    assert "redis+cluster://" in find_mistake(cluster.nodes[0].url)
    assert "redis+sentinel://" in find_mistake(sentinels.sentinels[0].url)
    assert "redis://" in find_mistake(f"redis+cluster://127.0.0.1:{valkey.port}")
    assert "redis://" in find_mistake(f"redis+sentinel://127.0.0.1:{valkey.port}/main")
    assert "other" in find_mistake(sentinels.url.replace("/main/", "/other/"))
    assert find_mistake("redis+cluster://127.0.0.1:1") == find_mistake("redis+sentinel://127.0.0.1:1/main") == ""
