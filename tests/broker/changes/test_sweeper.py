"""Due messages come back without a command on their queue: no client calls the API here; a raw BRPOP gets them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.servers import App, Proxy, Store, running, until

pytestmark = pytest.mark.slow


def brpop(store: Store, queue: ReliableQueue) -> Any:
    """Pop a message like a client that knows only the list."""
    return until(lambda: store.client().execute_command("BRPOP", queue.key, 4))[1]


def listeners(store: Store) -> int:
    """Return the number of sweepers that listen for notices."""
    return len(store.client().client_list(_type="pubsub"))


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Store]:
    """A store with an app whose sweepers listen."""
    with running(Store("valkey", folder / "swept")) as store, running(App(folder / "sweeper", REDIS_URL=store.url)):
        until(lambda: listeners(store) == 2)
        yield store


def test_leases_and_delays_of_another_process_come_back(served: Store, name: str) -> None:
    queue = ReliableQueue(served.client(), name, max_deliveries=2)
    queue.push(b"leased")
    assert queue.reserve(lease=1).messages == [b"leased"]
    assert brpop(served, queue) == b"leased"
    queue.push_later(1, [b"later"])
    assert brpop(served, queue) == b"later"
    queue.push_later(1000, [b"sooner"])
    queue.extend(queue.in_flight("delayed", 1, 9)[0].id, 1)  # before everything that the sweepers know of
    assert brpop(served, queue) == b"sooner"
    queue.push(b"retried")
    queue.release(queue.reserve(lease=1000).messages[0].id, delay=1, reason="why")
    assert brpop(served, queue) == b"retried"
    dead = ReliableQueue(served.client(), f"{name}.dead")
    dead.push(b"inspected")
    dead.reserve(lease=1)
    assert brpop(served, dead) == b"inspected"


def test_a_new_process_finds_earlier_leases_and_delays(serve: Callable[..., App], valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    dead = ReliableQueue(valkey.client(), f"{name}.dead")
    for each in (queue, dead):
        each.push(b"a")
        each.reserve(lease=1)
    queue.push_later(1, [b"later"])
    serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    assert sorted(brpop(valkey, queue) for _ in range(2)) == [b"a", b"later"]
    assert brpop(valkey, dead) == b"a"


@pytest.mark.parametrize("fault", ["killed connection", "dead worker", "restarted server"])
def test_a_sweeper_recovers_from(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str, fault: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url)
    until(lambda: listeners(store) == 2)
    queue = ReliableQueue(store.client(), name)
    queue.push_later(2, [b"a"])
    if fault == "killed connection":
        for client in store.client().client_list(_type="pubsub"):
            store.client().client_kill_filter(_id=client["id"])
        queue.push_later(1, [b"b"])  # its notice is lost
    elif fault == "dead worker":
        os.kill(until(app.workers)[0], signal.SIGKILL)
    else:
        store.end(signal.SIGKILL)
        store.start()
    assert brpop(store, queue) in (b"a", b"b")


def test_a_lost_network_is_noticed(serve: Callable[..., App], valkey: Store, proxy: Proxy, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    before = listeners(valkey)
    serve(REDIS_URL=proxy.url, WEB_CONCURRENCY="1")
    until(lambda: listeners(valkey) == before + 1)
    proxy.drop()
    queue.push_later(1, [b"a"])
    assert brpop(valkey, queue) == b"a"


def test_a_user_without_permission_for_channels_can_use_every_operation(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str
) -> None:
    store = own_store("valkey")
    store.client().acl_setuser("app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"], channels=[])
    url = store.url.replace("redis://", "redis://app:secret@")
    queue = ReliableQueue(connect(url), name)
    queue.push_later(1, [b"a"])
    queue.push(b"b")
    assert queue.reserve(lease=1000).messages == [b"b"]
    queue.store_result("job", b"x")
    serve(REDIS_URL=url, WEB_CONCURRENCY="1")  # its sweeper cannot listen, so it scans
    assert brpop(store, queue) == b"a"
