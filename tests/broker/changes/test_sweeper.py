"""What is due comes back by itself: no client calls the API here, and a raw BRPOP gets it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.servers import ROOT, App, Proxy, Store, until

pytestmark = pytest.mark.slow


def brpop(store: Store, queue: ReliableQueue) -> Any:
    """Take a message as a client does that knows nothing but the list."""
    return until(lambda: store.client().execute_command("BRPOP", queue.key, 4))[1]


def listeners(store: Store) -> int:
    """Return how many timers listen."""
    return len(store.client().client_list(_type="pubsub"))


@pytest.fixture
def served(serve: Callable[..., App], own_store: Callable[..., Store]) -> tuple[Store, App]:
    """A store, and an app on it whose timers listen."""
    store = own_store("valkey")
    app = serve(REDIS_URL=store.url)
    until(lambda: listeners(store) == 2)
    return store, app


def test_leases_and_delays_of_another_process_come_back(served: tuple[Store, App], name: str) -> None:
    store, _ = served
    queue = ReliableQueue(store.client(), name, max_deliveries=2)
    queue.push(b"leased")
    assert queue.reserve(lease=1).messages == [b"leased"]
    assert brpop(store, queue) == b"leased"
    queue.push_later(1, [b"later"])
    assert brpop(store, queue) == b"later"
    queue.push_later(1000, [b"sooner"])
    queue.extend(queue.in_flight("delayed", 1, 9)[0].id, 1)  # before everything that the timers were told
    assert brpop(store, queue) == b"sooner"
    queue.push(b"retried")
    queue.release(queue.reserve(lease=1000).messages[0].id, delay=1, reason="why")
    assert brpop(store, queue) == b"retried"
    dead = ReliableQueue(store.client(), f"{name}.dead")
    dead.push(b"looked at")
    dead.reserve(lease=1)
    assert brpop(store, dead) == b"looked at"


def test_what_a_killed_consumer_held_comes_back(served: tuple[Store, App], name: str) -> None:
    store, _ = served
    queue = ReliableQueue(store.client(), name)
    queue.push(b'{"job": "j", "numbers": [], "seconds": 600}')
    env = {**os.environ, "REDIS_URL": store.url, "QUEUE_NAME": name}
    worker = subprocess.Popen([sys.executable, "-m", "examples.jobs"], cwd=ROOT, env=env)
    try:
        until(lambda: store.client().zcard(queue.key_prefix + "reserved") == 1)
    finally:
        worker.kill()
        worker.wait()
    assert b'"j"' in brpop(store, queue)


def test_a_new_process_finds_what_was_there_before(serve: Callable[..., App], valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    dead = ReliableQueue(valkey.client(), f"{name}.dead")
    for each in (queue, dead):
        each.push(b"a")
        each.reserve(lease=1)
    queue.push_later(1, [b"later"])
    serve(REDIS_URL=valkey.url)
    assert sorted(brpop(valkey, queue) for _ in range(2)) == [b"a", b"later"]
    assert brpop(valkey, dead) == b"a"


@pytest.mark.parametrize("way", ["killed connection", "dead worker", "restarted server"])
def test_a_timer_that_was_cut_off_goes_on(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str, way: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url)
    until(lambda: listeners(store) == 2)
    queue = ReliableQueue(store.client(), name)
    queue.push_later(2, [b"a"])
    if way == "killed connection":
        for client in store.client().client_list(_type="pubsub"):
            store.client().client_kill_filter(_id=client["id"])
        queue.push_later(1, [b"b"])  # nobody hears of it
    elif way == "dead worker":
        os.kill(until(app.workers)[0], signal.SIGKILL)
    else:
        store.end(signal.SIGKILL)
        store.start()
    assert brpop(store, queue) in (b"a", b"b")


def test_a_lost_network_is_noticed(serve: Callable[..., App], valkey: Store, proxy: Proxy, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    before = listeners(valkey)
    serve(REDIS_URL=proxy.url)
    until(lambda: listeners(valkey) == before + 2)
    proxy.drop()
    queue.push_later(1, [b"a"])
    assert brpop(valkey, queue) == b"a"


def test_a_user_without_channels_can_use_every_verb(
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
    serve(REDIS_URL=url)  # its timers may not listen, so they scan
    assert brpop(store, queue) == b"a"
