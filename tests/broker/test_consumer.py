"""`consume`, the loop of a Python consumer, and examples/worker.py as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from broker import consumer
from broker.connections.connection import connect
from broker.consumer import Reject, backoff, consume
from broker.models import Delivery
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_leases
from tests.servers import ROOT, Proxy, Store, free_port, until


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a consumer try again soon, where it would wait for a second."""
    monkeypatch.setattr(consumer, "STOP_INTERVAL", 0.05)
    monkeypatch.setattr(consumer, "RETRY_DELAY", 0.05)


@pytest.fixture(autouse=True)
def ignore_late_sigterm() -> Iterator[None]:
    """Keep a SIGTERM that arrives after the end of the loop from ending the tests."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def stop() -> None:
    """Send this process a SIGTERM, which ends the loop of a consumer."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_message_is_acked_when_the_body_finishes(queue: ReliableQueue) -> None:
    queue.push(b"a", b"\xff\0:", b"c")
    seen: list[tuple[bytes, int, tuple[int, int, int]]] = []
    for message in consume(queue):
        seen.append((bytes(message), message.deliveries, counts(queue)))
        if len(seen) == 3:
            stop()
    assert seen == [(b"a", 1, (2, 1, 0)), (b"\xff\0:", 1, (1, 1, 0)), (b"c", 1, (0, 1, 0))]
    assert counts(queue) == (0, 0, 0)


def test_a_message_has_its_id_and_deadline(queue: ReliableQueue) -> None:
    queue.push(b"a")
    for message in consume(queue, lease=100):
        assert message.id.encode() in queue.client.zrange(queue.key_prefix + "reserved", 0, -1)
        assert abs(message.deadline - time.time() - 100) < 50
        stop()


def test_break_releases_the_message(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    for message in consume(queue):
        assert message == b"a"
        break
    assert (queue.all(), counts(queue)) == ([b"a", b"b"], (2, 0, 0))


def test_an_exception_releases_the_message_and_is_raised_on(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    for deliveries in (1, 2):
        with pytest.raises(ZeroDivisionError):
            for message in consume(queue):
                assert (message, message.deliveries) == (b"a", deliveries)
                raise ZeroDivisionError
        assert (queue.all(), counts(queue)) == ([b"a", b"b"], (2, 0, 0))


def test_return_releases_the_message(queue: ReliableQueue) -> None:
    def first() -> bytes:
        for message in consume(queue):
            return message
        return b""

    queue.push(b"a")
    assert first() == b"a"
    assert counts(queue) == (1, 0, 0)


def test_a_message_that_always_fails_is_buried_and_the_others_are_done(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name, max_deliveries=3)
    queue.push(b"poison", b"a", b"b")
    seen = []
    while queue.count():
        try:
            for message in consume(queue):
                seen.append(bytes(message))
                if message == b"poison":
                    raise ValueError
                if not queue.count():
                    stop()
        except ValueError:
            pass
    assert seen == [b"poison"] * 3 + [b"a", b"b"]
    assert dead_letters(queue).all() == [b"poison"]
    assert counts(queue) == (0, 0, 1)


def details(queue: ReliableQueue) -> list[tuple[bytes, int, str]]:
    """Return each waiting message with its deliveries and why it failed last."""
    return [(head, known.deliveries, known.reason) for head, _, known in queue.details(99, 0, 99)]


@pytest.mark.parametrize(("retry_delay", "expected"), [(100, 100), (lambda deliveries: 200.0 * deliveries, 200)])
def test_an_error_is_kept_as_the_reason_and_the_message_tried_again_later(
    queue: ReliableQueue, retry_delay: Any, expected: float, caplog: pytest.LogCaptureFixture
) -> None:
    queue.push(b"bad", b"good")
    for message in consume(queue, retry_delay=retry_delay):
        with message:
            if message == b"good":
                stop()
            else:
                raise ZeroDivisionError("no such number")
    [held] = queue.in_flight("delayed", 9, 9)
    assert (held.head, held.details.deliveries, held.details.reason) == (b"bad", 1, "ZeroDivisionError: no such number")
    assert abs(held.deadline - time.time() - expected) < 50
    assert counts(queue) == (0, 0, 0)
    assert "Delivery 1 of a message failed: ZeroDivisionError: no such number" in caplog.text


def test_the_last_error_is_the_reason_of_the_dead_letter(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name, max_deliveries=2)
    queue.push(b"bad")
    for message in consume(queue, retry_delay=0):
        if message.deliveries == message.max_deliveries:
            stop()
        with message:
            raise ValueError("try " + str(message.deliveries))
    assert details(dead_letters(queue)) == [(b"bad", 2, "ValueError: try 2")]
    assert counts(queue) == (0, 0, 1)


def test_a_rejected_message_is_buried_at_once(queue: ReliableQueue) -> None:
    class Never(Reject):
        pass

    queue.push(b"a", b"b", b"c")
    for message in consume(queue):
        with message:
            if message == b"c":
                stop()
            elif message == b"b":
                raise Never("x" * 2000)
            else:
                raise Reject("not a job")
    dead = [(b"a", 1, "Reject: not a job"), (b"b", 1, ("Never: " + "x" * 2000)[:1000])]
    assert (details(dead_letters(queue)), counts(queue)) == (dead, (0, 0, 2))


def test_a_result_is_stored_with_the_ack(queue: ReliableQueue) -> None:
    queue.push(b"a")
    for message in consume(queue):
        with message:
            message.result = "job", b"done"
            stop()
    found = queue.result("job")
    assert found and (found.result, counts(queue)) == (b"done", (0, 0, 0))


def test_what_ends_the_process_ends_the_loop_and_releases_the_message(queue: ReliableQueue) -> None:
    queue.push(b"a")
    with pytest.raises(KeyboardInterrupt):
        for message in consume(queue):
            with message:
                raise KeyboardInterrupt
    assert details(queue) == [(b"a", 1, "the consumer left its loop")]


def test_a_paused_queue_holds_a_consumer_until_it_is_resumed(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.pause()
    thread = threading.Timer(0.1, queue.resume)
    thread.start()
    for message in consume(queue):
        assert (message, queue.state().counts.paused) == (b"a", False)
        stop()
    thread.join()


def test_the_default_delay_grows_is_random_and_bounded() -> None:
    for deliveries in range(1, 40):
        most = min(3600.0, 2.0**deliveries)
        delays = {backoff(deliveries) for _ in range(20)}
        assert len(delays) > 1
        assert all(most / 2 <= delay <= most for delay in delays)
    assert backoff(10**9) <= 3600


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
def test_a_lease_is_extended_while_the_body_runs(queue: ReliableQueue) -> None:
    def wait_for_an_extension(id: str) -> None:
        key = queue.key_prefix + "reserved"
        before = queue.client.zscore(key, id)
        until(lambda: queue.client.zscore(key, id) > before)

    queue.push(b"a")
    for message in consume(queue, lease=1):
        wait_for_an_extension(message.id)
        wait_for_an_extension(message.id)
        stop()
    assert counts(queue) == (0, 0, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "extend-lease"]


@pytest.mark.parametrize("backend", ["valkey"], indirect=True)
def test_a_consumer_that_lost_its_lease_changes_nothing_and_goes_on(
    queue: ReliableQueue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.push(b"a", b"b")
    taken: list[Delivery] = []
    for message in consume(queue):
        if message == b"a":
            end_leases(queue, message.id)
            taken += queue.reserve(1000).messages
        else:
            stop()
    assert (taken, taken[0].deliveries) == ([b"a"], 2)
    assert counts(queue) == (0, 1, 0)
    assert "lease ended before the work was done" in caplog.text


def is_blocked(queue: ReliableQueue) -> bool:
    """Return whether a client waits at the queue's server."""
    return bool(queue.client.info("clients")["blocked_clients"])


@pytest.mark.parametrize("way", ["push", "raw", "lease"])
def test_a_waiting_consumer_is_woken(queue: ReliableQueue, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "STOP_INTERVAL", 60.0)
    if way == "lease":
        queue.push(b"a")
        queue.reserve(0.3)

    def add_a_message() -> None:
        until(lambda: is_blocked(queue))
        if way == "push":
            queue.push(b"a")
        elif way == "raw":
            queue.client.lpush(queue.key, "a")

    thread = threading.Thread(target=add_a_message)
    thread.start()
    for message in consume(queue):
        assert message == b"a"
        stop()
    thread.join()
    assert counts(queue) == (0, 0, 0)


def test_sigterm_ends_a_waiting_consumer_and_the_handler_is_restored(queue: ReliableQueue) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop_when_blocked() -> None:
        until(lambda: is_blocked(queue))
        stop()

    thread = threading.Thread(target=stop_when_blocked)
    thread.start()
    assert list(consume(queue)) == []
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_loop_and_the_loop_around_it(queue: ReliableQueue, name: str) -> None:
    inner = ReliableQueue(queue.client, name + ".inner")
    queue.push(b"a", b"b")
    inner.push(b"1", b"2")
    seen: list[bytes] = []
    for outer in consume(queue):
        seen.append(bytes(outer))
        for message in consume(inner):
            seen.append(bytes(message))
            stop()
    assert seen == [b"a", b"1"]
    assert (counts(queue), counts(inner)) == ((1, 0, 0), (1, 0, 0))


@pytest.mark.parametrize(("lease", "wait"), [(0, 20), (-1, 20), (30, 0)])
def test_a_lease_or_a_wait_that_is_too_short_is_an_error_and_takes_nothing(
    queue: ReliableQueue, lease: float, wait: float
) -> None:
    queue.push(b"a")
    with pytest.raises(ValueError, match="consume needs"):
        next(consume(queue, lease=lease, wait=wait))
    assert counts(queue) == (1, 0, 0)


def test_a_consumer_can_run_in_a_thread(queue: ReliableQueue) -> None:
    seen: list[bytes] = []

    def work() -> None:
        for message in consume(queue):
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


def test_a_queue_that_is_not_a_list_is_an_error_and_not_tried_again(queue: ReliableQueue) -> None:
    queue.client.set(queue.key, "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        next(consume(queue))


def test_an_ack_whose_reply_is_lost_is_repeated_without_harm(proxy: Proxy, valkey: Store, name: str) -> None:
    queue = ReliableQueue(connect(proxy.url), name)
    ReliableQueue(valkey.client(), name).push(b"a", b"a")
    seen = []
    for message in consume(queue):
        seen.append(message.deliveries)
        proxy.cut("EVALSHA", times=2)
        if len(seen) == 2:
            stop()
    assert (seen, counts(ReliableQueue(valkey.client(), name))) == ([1, 1], (0, 0, 0))


def test_a_reservation_whose_reply_is_lost_comes_back_when_its_lease_ends(
    proxy: Proxy, valkey: Store, name: str
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(b"a")
    proxy.cut("EVALSHA")

    def end_the_lease() -> None:
        until(lambda: queue.client.exists(queue.key_prefix + "reserved"))
        end_leases(queue)

    thread = threading.Thread(target=end_the_lease)
    thread.start()
    for message in consume(ReliableQueue(connect(proxy.url), name)):
        assert (message, message.deliveries) == (b"a", 2)
        stop()
    thread.join()
    assert counts(queue) == (0, 0, 0)


def test_a_waiting_consumer_survives_lost_connections(
    proxy: Proxy, valkey: Store, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = ReliableQueue(connect(proxy.url), name)

    def interrupt() -> None:
        until(lambda: "BLMOVE" in proxy.commands)
        proxy.refuse()
        until(lambda: caplog.text.count("Redis is unavailable") >= 2)
        ReliableQueue(valkey.client(), name).push(b"a")
        proxy.accept()

    thread = threading.Thread(target=interrupt)
    thread.start()
    for message in consume(queue):
        assert message == b"a"
        stop()
    thread.join()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_consumer_empties_a_full_redis_and_waits_there(own_store: Callable[..., Store], name: str, kind: str) -> None:
    client = own_store(kind).client()
    queue = ReliableQueue(client, name)
    queue.push(b"a", b"b")
    client.config_set("maxmemory", 1)

    def stop_after_a_refused_wait() -> None:
        until(lambda: client.info("commandstats").get("cmdstat_blmove", {}).get("rejected_calls"))
        stop()

    thread = threading.Thread(target=stop_after_a_refused_wait)
    thread.start()
    assert [bytes(message) for message in consume(queue)] == [b"a", b"b"]
    thread.join()
    assert counts(queue) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_consumer_survives_a_failover(
    own_store: Callable[..., Store], name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = own_store(kind).client()
    queue = ReliableQueue(client, name)
    queue.push(b"a")
    client.replicaof("127.0.0.1", str(free_port()))  # it accepts no writes from now on

    def promote() -> None:
        until(lambda: "Redis is unavailable" in caplog.text)
        client.replicaof("NO", "ONE")

    thread = threading.Thread(target=promote)
    thread.start()
    for message in consume(queue):
        assert message == b"a"
        stop()
    thread.join()
    assert counts(queue) == (0, 0, 0)


@pytest.fixture
def worker(name: str) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start examples/worker.py on the queue `name` of a store: worker(url)."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str) -> "subprocess.Popen[str]":
        env = {**os.environ, "REDIS_URL": url, "QUEUE_NAME": name}
        command = [sys.executable, "-m", "examples.worker"]
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.slow
def test_the_example_prints_each_message_and_stops_at_sigterm(
    worker: Callable[[str], "subprocess.Popen[str]"], valkey: Store, name: str
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(b"hello", b"world")
    process = worker(valkey.url)
    assert [next_line(process), next_line(process)] == ["hello", "world"]
    until(lambda: counts(queue) == (0, 0, 0))
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=20), process.returncode) == (("", ""), 0)
    queue.push(b"later")
    assert counts(queue) == (1, 0, 0)


def test_the_example_has_at_most_fifteen_lines() -> None:
    lines = (ROOT / "examples/worker.py").read_text().splitlines()
    assert len([text for text in lines if text.strip()]) <= 15


@pytest.mark.slow
def test_the_example_survives_a_restart_of_redis(
    worker: Callable[[str], "subprocess.Popen[str]"], own_store: Callable[..., Store], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    ReliableQueue(store.client(), name).push(b"before")
    process = worker(store.url)
    assert next_line(process) == "before"
    until(lambda: counts(ReliableQueue(store.client(), name)) == (0, 0, 0))
    store.end(signal.SIGKILL)
    store.start()
    ReliableQueue(store.client(), name).push(b"after")
    assert next_line(process) == "after"
    until(lambda: counts(ReliableQueue(store.client(), name)) == (0, 0, 0))
    assert process.poll() is None


@pytest.mark.slow
def test_a_worker_retries_buries_and_answers_though_one_is_killed_in_the_middle(
    own_store: Callable[..., Store], name: str
) -> None:
    """examples/jobs.py: one of its processes is killed with -9 while it works."""
    store = own_store("valkey")
    queue = ReliableQueue(store.client(), name)
    env = {**os.environ, "REDIS_URL": store.url, "QUEUE_NAME": name}
    command = [sys.executable, "-m", "examples.jobs"]
    queue.push(b'{"job": "slow", "numbers": [1, 2], "seconds": 1}')
    first = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    until(lambda: queue.state().counts.reserved == 1)
    first.kill()
    first.communicate()
    queue.push(b"no job", b'{"job": "flaky", "numbers": [4, 5.5], "fail": 1}')
    second = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        results = [until(lambda job=job: queue.result(job)).result for job in ("flaky", "slow")]  # type: ignore[misc]
        until(lambda: counts(queue) == (0, 0, 1))
    finally:
        second.send_signal(signal.SIGTERM)
        log = second.communicate(timeout=20)[1]
    assert (results, second.returncode) == ([b"9.5", b"3"], 0)
    assert "Delivery 1 of a message failed: ConnectionError: the other service is away" in log
    assert [reason.startswith("Reject: not a job") for _, _, reason in details(dead_letters(queue))] == [True]
