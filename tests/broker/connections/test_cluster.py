"""The cluster client follows slots that move, and sends nothing twice."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from broker.connections import cluster as cluster_module
from broker.connections.address import parse_address
from broker.connections.cluster import ClusterClient, ClusterMap
from broker.connections.connection import connect, new_connection
from broker.connections.errors import NotSent
from broker.queue import ReliableQueue
from tests.engines import Cluster
from tests.servers import Proxy, Store, free_port, running, until
from web.errors import from_redis


@pytest.fixture
def queue(cluster: Cluster, name: str) -> ReliableQueue:
    return ReliableQueue(connect(cluster.url), name)


@pytest.fixture
def target(cluster: Cluster, queue: ReliableQueue) -> Store:
    """A primary that does not serve the queue's slot."""
    return next(node for node in cluster.nodes if node is not cluster.owner(queue.key))


@pytest.fixture
def lossy(cluster: Cluster, queue: ReliableQueue) -> Iterator[Proxy]:
    """A proxy in front of the primary of the queue; `queue` goes through it from now on."""
    with running(Proxy(cluster.owner(queue.key).port)) as proxy:

        def make_client(host: str, port: int) -> Any:
            return connect(f"redis://{host}:{proxy.port if port == proxy.target else port}")

        address = parse_address(cluster.url)
        queue.client = ClusterClient(ClusterMap(address.hosts, make_client, partial(new_connection, address)))
        yield proxy


def test_a_moved_slot_is_followed(cluster: Cluster, queue: ReliableQueue, target: Store) -> None:
    queue.push(b"a")
    cluster.move_slot(queue.key, target)
    assert queue.push(b"b") == 2
    assert queue.pop(2) == [b"a", b"b"]


def test_a_slot_that_is_being_moved_is_found_on_either_node(
    cluster: Cluster, queue: ReliableQueue, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "TRYAGAIN_TIMEOUT", 0.1)
    source = cluster.begin_move(queue.key, target)
    assert queue.push(b"a") == 1
    assert target.ask("CLUSTER", "COUNTKEYSINSLOT", key_slot(queue.key.encode())) == 1
    with queue.client.pipeline() as transaction:
        transaction.lpush(queue.key, b"b")
        transaction.llen(queue.key)
        assert transaction.execute() == [2, 2]
    with queue.client.pipeline(transaction=False) as pipeline:
        pipeline.llen(queue.key)
        assert pipeline.execute() == [2]
    queue.wait(1)
    with pytest.raises(redis.RedisError) as raised:  # several keys, and none of them is on either node yet
        queue.pop()
    assert from_redis(raised.value).error == "redis_busy"
    cluster.end_move(queue.key, target, source)
    assert queue.pop(2) == [b"a", b"b"]


def test_a_transaction_follows_a_moved_slot(cluster: Cluster, queue: ReliableQueue, target: Store) -> None:
    queue.push(b"a")
    cluster.move_slot(queue.key, target)
    with queue.client.pipeline() as transaction:
        transaction.lpush(queue.key, b"b")
        transaction.llen(queue.key)
        assert transaction.execute() == [2, 2]


@pytest.mark.parametrize("operation", ["push", "pop", "pipeline"])
def test_nothing_is_sent_twice(queue: ReliableQueue, lossy: Proxy, operation: str) -> None:
    queue.push(b"a", b"b")
    queue.pop()
    lossy.commands.clear()
    lossy.cut()
    with pytest.raises(redis.ConnectionError) as raised:
        if operation == "pipeline":
            with queue.client.pipeline(transaction=False) as pipeline:
                pipeline.lpush(queue.key, b"c")
                pipeline.execute()
        else:
            queue.push(b"c") if operation == "push" else queue.pop()
    assert from_redis(raised.value).error == "outcome_unknown"
    assert len(lossy.commands) == 1


def test_nothing_is_sent_to_an_unavailable_primary(queue: ReliableQueue, lossy: Proxy) -> None:
    lossy.refuse()
    with pytest.raises(NotSent):
        queue.push(b"a")
    lossy.accept()
    assert queue.push(b"b") == 1


def test_an_unavailable_cluster_is_reported_and_one_reachable_node_is_enough(cluster: Cluster, name: str) -> None:
    unavailable = ReliableQueue(connect("redis+cluster://127.0.0.1:1,127.0.0.1:2"), name)
    for _ in range(2):
        with pytest.raises(NotSent):
            unavailable.push(b"a")
    some = ReliableQueue(connect(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[0].port}"), name)
    assert some.push(b"a") == 1


def test_a_node_that_knows_no_other_does_not_hide_the_cluster(
    own_store: Callable[..., Store], cluster: Cluster, name: str
) -> None:
    stray = own_store("valkey", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    url = f"redis+cluster://127.0.0.1:{stray.port},127.0.0.1:{cluster.nodes[0].port}"
    assert ReliableQueue(connect(url), name).push(b"a") == 1
    with pytest.raises(redis.RedisError) as raised:
        ReliableQueue(connect(f"redis+cluster://127.0.0.1:{stray.port}"), name).push(b"a")
    assert from_redis(raised.value).error == "redis_unavailable"


def test_a_server_that_is_not_a_cluster_is_a_misconfiguration(valkey: Store, name: str) -> None:
    with pytest.raises(redis.RedisError) as raised:
        ReliableQueue(connect(f"redis+cluster://127.0.0.1:{valkey.port}"), name).push(b"a")
    error = from_redis(raised.value)
    assert error.error == "redis_misconfigured" and "redis://" in error.message


def test_a_command_without_a_key_is_refused(cluster: Cluster) -> None:
    client = connect(cluster.url)
    for ask in (client.ping, client.scan, client.info, client.dbsize, lambda: client.eval("return 1", 0)):
        with pytest.raises(redis.DataError):
            ask()


def test_a_command_that_comes_during_the_first_read_of_the_map_waits_for_it(cluster: Cluster) -> None:
    address, reading, may_read = parse_address(cluster.url), threading.Event(), threading.Event()

    def held_back(*node: Any, **options: Any) -> Any:
        reading.set()
        assert may_read.wait(30)
        return new_connection(address, *node, **options)

    owners = ClusterMap(address.hosts, lambda *_: None, held_back)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(owners.owner, 1)
        assert reading.wait(30)
        second = threads.submit(owners.owner, 1)
        until(lambda: second.running())
        may_read.set()
        assert first.result() == second.result()
