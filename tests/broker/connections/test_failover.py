"""After a failover the next command finds the new primary, even if connections to the old one are still open."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections.connection import MAX_CONNECTIONS, connect
from broker.connections.errors import find_fault, needs_reconnect
from broker.queue import ReliableQueue
from tests.broker.connections.networks import Failover
from tests.ledger import Api
from tests.servers import App, Proxy, Scripted, Store, running, until

on_both_engines = pytest.mark.parametrize("failover", ["valkey", "redis"], indirect=True)  # their replies differ


@pytest.fixture
def failover(request: pytest.FixtureRequest, own_store: Callable[..., Store]) -> Iterator[Failover]:
    with running(Failover(own_store, getattr(request, "param", "valkey"))) as made:
        yield made


MOVES = [
    "READONLY You can't write against a read only replica.",
    "READONLY You can't write against a read only replica. script: 2f4, on @user_script:12.",
    "ERR Error running script (call to f_2f4): @user_script:12: @user_script: 12: -READONLY You can't write against a "
    "read only replica.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "LOADING Redis is loading the dataset in memory",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
]
STAYS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOPERM User default has no permissions to run the 'lpush' command",
    "ERR unknown command 'LPUSH', with args beginning with: 'READONLY' ",
    "ERR something else: -1",
]


@pytest.mark.parametrize("reply", MOVES, ids=lambda reply: reply[:40])
def test_after_a_refusal_by_a_replica_the_connection_is_not_used_again(
    scripted: Callable[..., Scripted], reply: str
) -> None:
    store = scripted(f"-{reply}\r\n".encode())
    client = connect(store.url)
    for _ in range(2):
        with pytest.raises(redis.RedisError):
            client.lpush("a", "b")
    assert [command for command in store.commands if command != "CLIENT"] == ["HELLO", "LPUSH"] * 2


@pytest.mark.parametrize("reply", STAYS, ids=lambda reply: reply[:40])
def test_after_any_other_refusal_the_connection_stays_open(scripted: Callable[..., Scripted], reply: str) -> None:
    store = scripted(f"-{reply}\r\n".encode())
    client = connect(store.url)
    for _ in range(2):
        with pytest.raises(redis.RedisError):
            client.lpush("a", "b")
    assert [command for command in store.commands if command != "CLIENT"] == ["HELLO", "LPUSH", "LPUSH"]


@pytest.mark.parametrize("reply", MOVES, ids=lambda reply: reply[:40])
def test_a_refusal_in_a_pipeline_is_recognized_too(scripted: Callable[..., Scripted], reply: str) -> None:
    store = scripted(f"-{reply}\r\n".encode())
    pipeline = connect(store.url).pipeline(transaction=False)
    pipeline.llen("a")
    with pytest.raises(redis.RedisError) as raised:
        pipeline.execute()
    assert needs_reconnect(raised.value)
    assert find_fault(raised.value) == find_fault(redis.ResponseError(reply))


def prepared(queue: ReliableQueue, other: ReliableQueue) -> dict[str, Callable[[ReliableQueue], Any]]:
    """Fill two queues, and return a call of every operation that needs a primary."""
    queue.push(*[b"m%d" % number for number in range(9)])
    acked, released, extended = (delivery.id for delivery in queue.reserve(1000, 3).messages)
    other.push(b"a")
    undo = str(other.clear()[1])
    return {
        "push": lambda queue: queue.push(b"pushed"),
        "push front": lambda queue: queue.push(b"next", front=True),
        "push once": lambda queue: queue.push_once("key", [b"once"]),
        "pop": lambda queue: queue.pop(),
        "pop once": lambda queue: queue.pop_batch(1, "pop"),
        "reserve": lambda queue: queue.reserve(1000),
        "ack": lambda queue: queue.ack(acked),
        "release": lambda queue: queue.release(released),
        "extend": lambda queue: queue.extend(extended, 500),
        "requeue": lambda queue: queue.requeue(b"again"),
        "restore": lambda queue: ReliableQueue(queue.client, other.name).restore(undo),
        "state": lambda queue: queue.state(),
        "wait": lambda queue: queue.wait(1),
        "report": lambda queue: queue.report_waiters("process", 1, 30),
        "move": lambda queue: queue.move(other.name, 1),
    }


@on_both_engines
@pytest.mark.slow
def test_every_operation_is_refused_once_and_then_done_once(failover: Failover, name: str) -> None:
    setup = connect(failover.url)
    operations = prepared(ReliableQueue(setup, name), ReliableQueue(setup, name + "-other"))
    clients = {
        operation: connect(failover.url + f"?client_name={number}") for number, operation in enumerate(operations)
    }
    for client in clients.values():
        client.ping()
    failover.switch()
    del failover.proxy.commands[:]
    for operation, run in operations.items():
        queue = ReliableQueue(clients[operation], name)
        with pytest.raises(redis.RedisError) as raised:
            run(queue)
        assert needs_reconnect(raised.value), operation
        run(queue)
    assert failover.proxy.commands.count("LPUSH") == 2
    assert failover.proxy.commands.count("BLMOVE") == 2
    after, other = (ReliableQueue(failover.replica.client(), each) for each in (name, name + "-other"))
    assert after.all() == [b"m1", b"m5", b"m6", b"m7", b"m8", b"pushed", b"once"]
    assert other.all() == [b"a", b"again"]
    assert after.state().counts.reserved == 2


@pytest.mark.slow
def test_one_refusal_outdates_all_connections(failover: Failover, name: str) -> None:
    client = connect(failover.url)
    held = [client.connection_pool.get_connection() for _ in range(MAX_CONNECTIONS)]
    for connection in held[1:]:
        client.connection_pool.release(connection)
    failover.switch()
    with pytest.raises(redis.ReadOnlyError):
        client.lpush(name, "a")
    client.connection_pool.release(held[0])  # it was in use when the refusal came
    with ThreadPoolExecutor(MAX_CONNECTIONS) as threads:
        list(threads.map(lambda number: client.lpush(name, number), range(MAX_CONNECTIONS)))
    assert failover.replica.client().llen(name) == MAX_CONNECTIONS


def test_a_missing_reply_outdates_all_connections(proxy: Proxy, name: str) -> None:
    client = connect(proxy.url + "?socket_timeout=0.2")
    held = [client.connection_pool.get_connection() for _ in range(3)]
    for connection in held:
        client.connection_pool.release(connection)
    proxy.pause()
    with pytest.raises(redis.TimeoutError):
        client.llen(name)
    proxy.resume()
    assert not any(connection.is_connected for connection in held)
    assert client.llen(name) == 0


@pytest.mark.slow
def test_the_app_works_after_a_failover(failover: Failover, serve: Callable[..., App], name: str) -> None:
    app = serve(REDIS_URL=failover.url, WEB_CONCURRENCY="1")
    api = Api(app.url, name)
    with ThreadPoolExecutor(20) as threads:  # several connections
        assert set(threads.map(lambda _: Api(app.url, name).call("push", message="a")[0], range(40))) == {200}
    failover.switch()
    first = api.call("push", message="b")
    assert (first[0], first[1]["error"]) == (503, "redis_readonly")
    statuses = [api.call(operation, **given)[0] for operation, given in VERBS]
    assert statuses == [200] * len(VERBS)
    assert ReliableQueue(failover.replica.client(), name).count() == 0


VERBS: list[tuple[str, dict[str, Any]]] = [
    ("push", {"message": "b"}),
    ("push", {"message": "b", "front": 1}),
    ("pop", {}),
    ("count", {}),
    ("reserve", {"max": 2}),
    ("move", {"to": "another", "max": 1}),
    ("clear", {}),
]


@pytest.mark.slow
def test_a_replica_is_not_healthy(failover: Failover, serve: Callable[..., App], name: str) -> None:
    app = serve(REDIS_URL=failover.url, WEB_CONCURRENCY="1")
    assert health(app) == (200, None)
    failover.demote()
    assert health(app) == (503, "redis_readonly")
    failover.proxy.target = failover.replica.port
    assert health(app) == (200, None)


def health(app: App) -> tuple[int, Any]:
    client = Api(app.url)
    client.call("count")
    assert client.connection
    client.connection.request("GET", "/healthz")
    response = client.connection.getresponse()
    answer = response.read()
    return response.status, "redis_readonly" if b'"redis_readonly"' in answer else None


@on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.soak)])
def test_a_long_poll_survives_a_failover(
    failover: Failover, serve: Callable[..., App], name: str, operation: str
) -> None:
    app = serve(REDIS_URL=failover.url, WEB_CONCURRENCY="1")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(Api(app.url, name).call, operation, wait=25)
        until(lambda: Api(app.url, name).call("count")[1]["waiters"] == 1)
        failover.switch()
        failover.replica.client().lpush(f"queue:{name}", "a")
        status, answer = waiting.result()
    assert (status, answer["message"]) == (200, "a")
