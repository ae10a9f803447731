"""Connections to a server that has been replaced are closed, though it would go on accepting commands."""

import contextlib
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from broker.connections import sentinel
from broker.connections.cluster import each_primary
from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.broker.connections.networks import Elsewhere
from tests.engines import Cluster, SentinelSet
from tests.ledger import Api
from tests.servers import App, Proxy, Store, free_port, running, until
from web.errors import from_redis

pytestmark = pytest.mark.slow

NAME = "redis.test"  # a host name; nothing but these tests resolves it
# For a process of the app: NAME resolves to the address in a file. gevent and the socket module both end up here.
RESOLVER = f"""
import _socket, os, socket
def getaddrinfo(host, *args, real=_socket.getaddrinfo, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name == {NAME!r}:
        with open(os.environ["ADDRESS_FILE"]) as file:
            host = file.read()
    return real(host, *args, **kwargs)
_socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def own_sentinels(folder: Path, name: str) -> Iterator[SentinelSet]:
    with running(SentinelSet("valkey", folder / f"r{name}")) as made:
        yield made


def fail_over(sentinels: SentinelSet) -> tuple[Store, Store]:
    """Have the Sentinels name another primary, and return the old one, which refuses to be demoted, and the new one."""
    old = sentinels.primary()
    old.ask("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
    until(lambda: all(b"slaves=1" in one.ask("INFO", "sentinel") for one in sentinels.sentinels))
    sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", sentinels.SERVICE)
    until(lambda: sentinels.primary() is not old)
    return old, sentinels.primary()


def connections(server: Any, name: str, **fields: str) -> list[Any]:
    """Return the connections of clients of a name, those in which these fields are so."""
    lines = server.ask("CLIENT", "LIST").decode().splitlines()
    found = [dict(field.partition("=")[::2] for field in line.split(" ")) for line in lines]
    return [one for one in found if one["name"] == name and fields.items() <= one.items()]


def subscriptions(sentinels: SentinelSet, name: str) -> int:
    """Return the number of subscriptions to events, at all Sentinels that run, of clients of a name."""
    running_ones = [one for one in sentinels.sentinels if one.process]
    return sum(one["sub"] != "0" for server in running_ones for one in connections(server, name))


# --- Sentinels


def test_after_a_planned_failover_no_connection_of_the_app_stays_on_the_old_primary(
    own_sentinels: SentinelSet, serve: Callable[..., App], name: str
) -> None:
    app = serve(REDIS_URL=own_sentinels.url + "?client_name=app", WEB_CONCURRENCY="1")
    old = own_sentinels.primary()
    with ThreadPoolExecutor(8) as threads:
        pushed = threads.map(lambda n: Api(app.url, f"{name}-other").call("push", message=str(n))[0], range(40))
        assert set(pushed) == {200}
        polls = [threads.submit(Api(app.url, name).call, "pop", wait=50) for _ in range(2)]
        until(lambda: Api(app.url, name).call("count")[1]["waiters"] == 2)
        until(lambda: connections(old, "app", psub="1"))  # the sweeper
        assert fail_over(own_sentinels)[0] is old
        until(lambda: not connections(old, "app"))
        assert old.client().info("replication")["role"] == "master"  # it would have taken whatever came
        until(lambda: connections(own_sentinels.primary(), "app", psub="1"))
        for message in "ab":
            assert Api(app.url, name).call("push", message=message)[0] == 200
        assert sorted((poll.result()[0], poll.result()[1]["message"]) for poll in polls) == [(200, "a"), (200, "b")]


def test_a_command_in_flight_to_the_old_primary_is_not_acknowledged(own_sentinels: SentinelSet, name: str) -> None:
    queue = ReliableQueue(connect(own_sentinels.url), name)
    queue.push(b"a")
    old = own_sentinels.primary()
    with ThreadPoolExecutor(1) as threads:
        old.ask("CLIENT", "PAUSE", 60_000, "WRITE")
        push = threads.submit(queue.push, b"b")
        until(lambda: old.client().info("clients")["blocked_clients"])
        fail_over(own_sentinels)
        with pytest.raises(redis.ConnectionError) as raised:
            push.result()
    assert from_redis(raised.value).error == "outcome_unknown"
    assert queue.push(b"c")
    assert ReliableQueue(own_sentinels.primary().client(), name).all()[-1] == b"c"


def test_a_process_subscribes_once_from_its_first_command_on_and_finds_another_sentinel(
    own_sentinels: SentinelSet, name: str
) -> None:
    url = own_sentinels.url + f"?client_name={name}"
    clients = [connect(url), connect(url, blocking=True)]
    assert subscriptions(own_sentinels, name) == 0
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: clients[number % 2].llen(name), range(16)))
    held = clients[0].connection_pool.get_connection()
    until(lambda: subscriptions(own_sentinels, name) == 1)
    for number, server in enumerate(own_sentinels.sentinels):
        if connections(server, name, sub="2"):
            server.end(signal.SIGKILL)
            del own_sentinels.sentinels[number]
            break
    until(lambda: subscriptions(own_sentinels, name) == 1)
    clients[0].connection_pool.release(held)
    clients.clear()
    del held
    gc.collect()
    until(lambda: subscriptions(own_sentinels, name) == 0)


def test_a_failover_while_no_sentinel_can_be_reached_is_noticed_afterwards(
    own_sentinels: SentinelSet, name: str
) -> None:
    with contextlib.ExitStack() as proxies:
        ways = [proxies.enter_context(running(Proxy(one.port))) for one in own_sentinels.sentinels]
        hosts = ",".join(f"127.0.0.1:{way.port}" for way in ways)
        queue = ReliableQueue(connect(f"redis+sentinel://{hosts}/{SentinelSet.SERVICE}?client_name={name}"), name)
        queue.push(b"a")
        held = queue.client.connection_pool.get_connection()  # a busy client: none of these is closed as idle
        until(lambda: subscriptions(own_sentinels, name) == 1)
        for way in ways:
            way.refuse()
        old, new = fail_over(own_sentinels)
        assert connections(old, name)
        for way in ways:
            way.accept()
        until(lambda: not connections(old, name))
        queue.client.connection_pool.release(held)
        assert queue.push(b"b") == 2
        assert ReliableQueue(new.client(), name).count() == 2


def test_a_forked_process_follows_by_itself(own_sentinels: SentinelSet, name: str) -> None:
    client = connect(own_sentinels.url)
    client.llen(name)
    child = os.fork()
    if not child:
        try:
            queue = ReliableQueue(client, name)
            queue.push(b"a")
            names = [thread.name for thread in threading.enumerate()]
            os._exit(names.count("follow-primary") != 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


# --- a host name


@pytest.fixture
def servers(valkey: Store, own_store: Callable[..., Store]) -> Iterator[tuple[Proxy, Store]]:
    """A proxy at 127.0.0.1 in front of the shared server, and another server at the same port of 127.0.0.2."""
    other = own_store("valkey")
    with running(Proxy(valkey.port)) as proxy, running(Elsewhere(other.port, "127.0.0.2", proxy.port)):
        yield proxy, other


def test_a_host_name_that_resolves_to_another_address_is_followed(
    servers: tuple[Proxy, Store], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses, lookups, real = ["127.0.0.1"], [], socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, port, *args, **options)
        lookups.append(host)
        if not addresses:
            raise socket.gaierror("no name server responds")
        return [one for address in addresses for one in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(sentinel, "RESOLVE_INTERVAL", 0.05)
    proxy, other = servers
    queue = ReliableQueue(connect(f"redis://{NAME}:{proxy.port}"), name)
    queue.push(b"a")
    held = queue.client.connection_pool.get_connection()
    for still_there in ([], ["127.0.0.2", "127.0.0.1"]):
        addresses[:] = still_there
        lookups.clear()
        until(lambda: len(lookups) > 2)
        assert not held.is_outdated
    addresses[:] = ["127.0.0.2"]
    until(lambda: held.is_outdated)
    queue.client.connection_pool.release(held)
    assert queue.push(b"b") == 1
    assert ReliableQueue(other.client(), name).all() == [b"b"]


def test_the_app_follows_a_host_name(
    servers: tuple[Proxy, Store], serve: Callable[..., App], folder: Path, name: str
) -> None:
    proxy, other = servers
    path, address = folder / f"path-{name}", folder / f"address-{name}"
    path.mkdir()
    (path / "sitecustomize.py").write_text(RESOLVER)
    address.write_text("127.0.0.1")
    app = serve(
        REDIS_URL=f"redis://{NAME}:{proxy.port}", WEB_CONCURRENCY="1", PYTHONPATH=str(path), ADDRESS_FILE=str(address)
    )
    with ThreadPoolExecutor(8) as threads:
        pushed = threads.map(lambda n: Api(app.url, f"{name}-x").call("push", message=str(n))[0], range(40))
        assert set(pushed) == {200}
        poll = threads.submit(Api(app.url, name).call, "pop", wait=50)
        until(lambda: Api(app.url, name).call("count")[1]["waiters"] == 1)
        assert proxy._pairs
        address.write_text("127.0.0.2")
        until(lambda: not proxy._pairs)  # the sweeper's, too
        assert Api(app.url, name).call("push", message="a")[0] == 200
        assert poll.result()[1]["message"] == "a"
    assert not proxy._pairs
    assert other.client().info("commandstats")["cmdstat_lpush"]["calls"] == 1


# --- a cluster


def replace(node: Store, folder: Path, *options: str) -> None:
    """Start another server at the address of a node."""
    node.end(signal.SIGKILL)
    node.folder, node.options = folder, options
    node.start()


@pytest.mark.parametrize("is_cluster", [True, False])
def test_a_server_that_has_got_the_address_of_a_node_is_sent_nothing(folder: Path, name: str, is_cluster: bool) -> None:
    with running(Cluster("valkey", folder / f"a{name}")) as cluster:
        queues = [ReliableQueue(connect(cluster.url), f"{name}-{number}") for number in range(20)]
        client = queues[0].client
        node = cluster.owner(queues[0].key)
        cluster.replicate(node)
        for queue in queues:
            queue.client = client
            queue.push(b"a")
        assert node.client().wait(1, 10_000) == 1
        options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port())) if is_cluster else ()
        replace(node, folder / f"b{name}", *options)
        if is_cluster:  # a cluster of its own, which serves all slots
            node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        with pytest.raises(redis.RedisError) as raised:
            queues[0].push(b"b")
        assert from_redis(raised.value).error in ("redis_unavailable", "outcome_unknown")

        def push() -> int:
            with contextlib.suppress(redis.ConnectionError):
                return queues[0].push(b"b")
            return 0

        assert until(push) == 2
        assert [queue.push(b"b") for queue in queues[1:]] == [2] * 19
        assert node.ask("DBSIZE") == 0


def test_a_cluster_that_was_set_up_anew_at_the_same_addresses_is_used(folder: Path, name: str) -> None:
    with running(Cluster("valkey", folder / f"a{name}", primaries=1)) as cluster:
        queue = ReliableQueue(connect(cluster.url), name)
        queue.push(b"a")
        [node] = cluster.nodes
        replace(node, folder / f"b{name}", *node.options)
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        def push() -> int:
            with contextlib.suppress(redis.RedisError):
                return queue.push(b"b")
            return 0

        assert until(push) == 1


def test_a_cluster_without_a_primary_is_unavailable(own_store: Callable[..., Store]) -> None:
    store = own_store("valkey", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with pytest.raises(redis.RedisError) as raised:
        each_primary(connect(store.url.replace("redis://", "redis+cluster://").removesuffix("/0")))
    assert from_redis(raised.value).error == "redis_unavailable"
