"""The loop of a Python consumer, and the example worker as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from broker import consumer
from broker.connection import connect
from broker.reliable import Delivery, ReliableQueue
from RedisQueue import RedisQueue
from tests.servers import ROOT, Proxy, Store, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a consumer look again soon, where it would wait a second."""
    monkeypatch.setattr(consumer, "TICK", 0.05)
    monkeypatch.setattr(consumer, "AGAIN", 0.05)


@pytest.fixture(autouse=True)
def survive() -> Iterator[None]:
    """Let a SIGTERM that comes after the loop's end be no end of the tests."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def queue(backend: Any, name: str) -> RedisQueue:
    return RedisQueue(backend, name)


def state(queue: RedisQueue) -> tuple[int, int, int]:
    """Return how many wait, are reserved and are dead."""
    found = ReliableQueue(queue.client, queue.name).state()
    return found.count, found.reserved, found.dead


def stop() -> None:
    """Tell this process to end, which a consumer's loop understands."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_each_message_is_acked_when_the_body_is_done_with_it(queue: RedisQueue) -> None:
    queue.push(b"a", b"\xff\0:", b"c")
    seen: list[tuple[bytes, int, tuple[int, int, int]]] = []
    for message in queue.consume():
        seen.append((bytes(message), message.deliveries, state(queue)))
        if len(seen) == 3:
            stop()
    assert seen == [(b"a", 1, (2, 1, 0)), (b"\xff\0:", 1, (1, 1, 0)), (b"c", 1, (0, 1, 0))]
    assert state(queue) == (0, 0, 0)


def test_a_message_has_its_id_and_deadline(queue: RedisQueue) -> None:
    queue.push(b"a")
    for message in queue.consume(lease=100):
        assert message.id.encode() in queue.client.zrange("{queue:" + queue.name + "}:reserved", 0, -1)
        assert abs(message.deadline - time.time() - 100) < 50
        stop()


def test_break_gives_the_message_back(queue: RedisQueue) -> None:
    queue.push(b"a", b"b")
    for message in queue.consume():
        assert message == b"a"
        break
    assert (queue.all(), state(queue)) == ([b"a", b"b"], (2, 0, 0))


def test_an_exception_gives_the_message_back_and_goes_on_up(queue: RedisQueue) -> None:
    queue.push(b"a", b"b")
    for deliveries in (1, 2):
        with pytest.raises(ZeroDivisionError):
            for message in queue.consume():
                assert (message, message.deliveries) == (b"a", deliveries)
                raise ZeroDivisionError
        assert (queue.all(), state(queue)) == ([b"a", b"b"], (2, 0, 0))


def test_return_gives_the_message_back(queue: RedisQueue) -> None:
    def first() -> bytes:
        for message in queue.consume():
            return message
        return b""

    queue.push(b"a")
    assert first() == b"a"
    assert state(queue) == (1, 0, 0)


def test_poison_goes_to_the_dead_letters_and_the_rest_is_done(queue: RedisQueue) -> None:
    queue.push(b"poison", b"a", b"b")
    seen = []
    while queue.count():
        try:
            for message in queue.consume(max_deliveries=3):
                seen.append(bytes(message))
                if message == b"poison":
                    raise ValueError("no way")
                if not queue.count():
                    stop()
        except ValueError:
            pass
    assert seen == [b"poison"] * 3 + [b"a", b"b"]
    assert RedisQueue(queue.client, queue.name + ".dead").all() == [b"poison"]
    assert state(queue) == (0, 0, 1)


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
def test_a_lease_is_extended_while_the_body_runs(queue: RedisQueue) -> None:
    def extended(id: str) -> None:
        key = "{queue:" + queue.name + "}:reserved"
        before = queue.client.zscore(key, id)
        until(lambda: queue.client.zscore(key, id) > before)

    queue.push(b"a")
    for message in queue.consume(lease=1):
        extended(message.id)
        extended(message.id)
        stop()
    assert state(queue) == (0, 0, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "extend-lease"]


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
def test_who_lost_its_lease_changes_nothing_and_goes_on(queue: RedisQueue, caplog: pytest.LogCaptureFixture) -> None:
    other = ReliableQueue(queue.client, queue.name)
    queue.push(b"a", b"b")
    taken: list[Delivery] = []
    for message in queue.consume():
        if message == b"a":
            queue.client.zadd(other.meta + "reserved", {message.id: 1})
            taken += other.reserve(1000).messages
        else:
            stop()
    assert (taken, taken[0].deliveries) == ([b"a"], 2)
    assert state(queue) == (0, 1, 0)
    assert "lease ran out" in caplog.text


@pytest.mark.parametrize("backend", ["valkey", "redis"], indirect=True)
@pytest.mark.parametrize("way", ["push", "raw", "lease"])
def test_a_waiting_consumer_is_woken(
    queue: RedisQueue, backend: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "TICK", 4.0)
    if way == "lease":
        queue.push(b"a")
        ReliableQueue(backend, queue.name).reserve(0.3)
    ready = threading.Event()

    def later() -> None:
        until(lambda: any(c["cmd"] == "blmove" for c in backend.client_list()))
        if way == "push":
            queue.push(b"a")
        elif way == "raw":
            backend.lpush(queue.key, "a")
        ready.set()

    thread = threading.Thread(target=later)
    thread.start()
    for message in queue.consume():
        assert message == b"a"
        stop()
    thread.join()
    assert state(queue) == (0, 0, 0)


def test_sigterm_ends_a_waiting_consumer_and_the_signal_is_as_before(queue: RedisQueue) -> None:
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.1, stop)
    timer.start()
    assert list(queue.consume()) == []
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_loop_and_the_loop_around_it(queue: RedisQueue, name: str) -> None:
    inner = RedisQueue(queue.client, name + ".inner")
    queue.push(b"a", b"b")
    inner.push(b"1", b"2")
    seen: list[bytes] = []
    for outer in queue.consume():
        seen.append(bytes(outer))
        for message in inner.consume():
            seen.append(bytes(message))
            stop()
    assert seen == [b"a", b"1"]
    assert (state(queue), state(inner)) == ((1, 0, 0), (1, 0, 0))


@pytest.mark.parametrize(("lease", "wait"), [(0, 20), (-1, 20), (30, 0)])
def test_a_lease_or_a_wait_of_nothing_is_refused_and_takes_nothing(
    queue: RedisQueue, lease: float, wait: float
) -> None:
    queue.push(b"a")
    with pytest.raises(ValueError, match="consume needs"):
        next(queue.consume(lease=lease, wait=wait))
    assert state(queue) == (1, 0, 0)


def test_consumers_run_in_threads_too(queue: RedisQueue) -> None:
    seen: list[bytes] = []

    def work() -> None:
        for message in queue.consume():
            if message == b"last":
                break
            seen.append(bytes(message))

    queue.push(*[b"%d" % number for number in range(20)])
    queue.push(b"last")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [b"%d" % number for number in range(20)]
    assert queue.all() == [b"last"]


def test_a_queue_that_is_no_list_is_told_and_not_tried_for_ever(queue: RedisQueue) -> None:
    queue.client.set(queue.key, "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        next(queue.consume())


# --- when Redis fails


def test_an_ack_whose_reply_is_lost_is_repeated_without_harm(proxy: Proxy, valkey: Store, name: str) -> None:
    queue = RedisQueue(connect(proxy.url), name)
    RedisQueue(valkey.client(), name).push(b"a", b"a")
    seen = []
    for message in queue.consume():
        seen.append(message.deliveries)
        proxy.cut("EVALSHA", times=2)
        if len(seen) == 2:
            stop()
    assert (seen, state(RedisQueue(valkey.client(), name))) == ([1, 1], (0, 0, 0))


def test_a_reservation_whose_reply_is_lost_comes_back_when_its_lease_ends(
    proxy: Proxy, valkey: Store, name: str
) -> None:
    queue = RedisQueue(connect(proxy.url), name)
    RedisQueue(valkey.client(), name).push(b"a")
    proxy.cut("EVALSHA")
    for message in queue.consume(lease=1):
        assert (message, message.deliveries) == (b"a", 2)
        stop()
    assert state(RedisQueue(valkey.client(), name)) == (0, 0, 0)


def test_a_waiting_consumer_outlives_lost_connections(proxy: Proxy, valkey: Store, name: str) -> None:
    queue = RedisQueue(connect(proxy.url), name)

    def later() -> None:
        until(lambda: "BLMOVE" in proxy.commands)
        proxy.refuse()
        time.sleep(0.1)
        RedisQueue(valkey.client(), name).push(b"a")
        proxy.accept()

    thread = threading.Thread(target=later)
    thread.start()
    for message in queue.consume():
        assert message == b"a"
        stop()
    thread.join()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_full_redis_is_consumed(own_store: Callable[..., Store], name: str, kind: str) -> None:
    client = own_store(kind).client()
    queue = RedisQueue(client, name)
    queue.push(b"a", b"b")
    client.config_set("maxmemory", 1)
    seen = []
    for message in queue.consume():
        seen.append(bytes(message))
        if len(seen) == 2:
            threading.Timer(0.2, stop).start()  # time enough to wait at the empty queue
    assert seen == [b"a", b"b"]
    assert state(queue) == (0, 0, 0)


# --- the example


@pytest.fixture
def worker(name: str) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start examples/worker.py on a store's queue: worker(url)."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str) -> "subprocess.Popen[str]":
        env = {**os.environ, "REDIS_URL": url, "QUEUE_NAME": name}
        command = [sys.executable, str(ROOT / "examples/worker.py")]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_the_example_works_and_stops_at_sigterm(
    worker: Callable[[str], "subprocess.Popen[str]"], valkey: Store, name: str
) -> None:
    queue = RedisQueue(valkey.client(), name)
    queue.push(b"hello", b"world")
    process = worker(valkey.url)
    assert [line(process), line(process)] == ["hello", "world"]
    until(lambda: state(queue) == (0, 0, 0))
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=20), process.returncode) == (("", ""), 0)
    queue.push(b"later")
    assert state(queue) == (1, 0, 0)


def test_the_example_is_short() -> None:
    lines = (ROOT / "examples/worker.py").read_text().splitlines()
    assert len([text for text in lines if text.strip()]) <= 15


def test_the_example_outlives_a_restart_of_redis(
    worker: Callable[[str], "subprocess.Popen[str]"], own_store: Callable[..., Store], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    RedisQueue(store.client(), name).push(b"before")
    process = worker(store.url)
    assert line(process) == "before"
    until(lambda: state(RedisQueue(store.client(), name)) == (0, 0, 0))
    store.end(signal.SIGKILL)
    store.start()
    RedisQueue(store.client(), name).push(b"after")
    assert line(process) == "after"
    until(lambda: state(RedisQueue(store.client(), name)) == (0, 0, 0))
    assert Path(f"/proc/{process.pid}").exists()
