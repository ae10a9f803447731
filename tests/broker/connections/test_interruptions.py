"""A client that is shared: an exception between any two steps of a command, or a fork, holds up no other command."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

import pytest
import redis

from broker.connections import batching, pool
from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.servers import Proxy, Store, until

MODULES = {batching.__file__, pool.__file__}


class Interrupted(BaseException):
    """What a signal handler raises."""


class Interrupter:
    """Raise an exception at the n-th line that a thread executes in these modules."""

    def __init__(self, at: int) -> None:
        self.lines, self.at, self.place = 0, at, ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in MODULES:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at and not self._is_at_with(frame):
                self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Interrupted
        return self

    @staticmethod
    def _is_at_with(frame: FrameType) -> bool:
        """Return whether the line enters or leaves a `with`, where Python itself looks at no signal."""
        with open(frame.f_code.co_filename, encoding="utf-8") as file:
            return file.read().splitlines()[frame.f_lineno - 1].lstrip().startswith("with ")


def is_started(client: Any, caller: Future[Any]) -> bool:
    return caller.done() or bool(client._queue)


def interrupt(work: Callable[[], Any], at: int) -> Interrupter:
    interrupter = Interrupter(at)
    sys.settrace(interrupter)
    try:
        work()
    except (Interrupted, redis.RedisError):
        pass
    finally:
        sys.settrace(None)
    return interrupter


def each_interruption(work: Callable[[], Any]) -> Iterator[str]:
    """Do the work once for each of its lines, interrupted there."""
    at = 1
    while True:
        interrupter = interrupt(work, at)
        if interrupter.lines < at:
            return
        yield interrupter.place
        at += 1


# An exception in a finalizer is reported, not raised: Python's own rule.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("command", ["llen", "lrange"])  # batched, and not
def test_a_command_interrupted_at_any_line_holds_up_no_later_one(valkey: Store, name: str, command: str) -> None:
    client = connect(valkey.url)
    client.rpush(name, "a", "b")

    def work() -> Any:
        return client.llen(name) if command == "llen" else client.lrange(name, 0, -1)

    count = 0
    with ThreadPoolExecutor(1) as thread:
        for place in each_interruption(work):
            count += 1
            assert thread.submit(client.llen, name).result(5) == 2, place
            assert thread.submit(client.lrange, name, 0, -1).result(5) == [b"a", b"b"], place
            assert not client._queue, place
    assert count > 50


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [True, False])
def test_whoever_is_interrupted_the_others_get_their_own_answers(proxy: Proxy, name: str, is_first: bool) -> None:
    """One of four callers is interrupted at each line in turn, as the leader or as one that waits.

    Interrupted at the very line of a release, it costs one of the ten connections of the client.
    """
    client: Any = connect(proxy.url)
    for number in range(3):
        client.rpush(f"{name}.{number}", *"x" * (number + 1))
    ends = set()
    for at in range(1, 400, 3):
        proxy.pause()
        with ThreadPoolExecutor(4) as threads:
            first = None if is_first else threads.submit(client.llen, f"{name}.0")
            if first:
                until(lambda: len(client._queue) == 1)
            victim = threads.submit(interrupt, lambda: client.llen(f"{name}.0"), at)
            until(partial(is_started, client, victim))
            others = [threads.submit(client.llen, f"{name}.{number}") for number in (1, 2)]
            proxy.resume()
            for number, other in enumerate(others, 1):
                with contextlib.suppress(redis.ConnectionError):  # it was sent by the one that was interrupted
                    assert other.result(10) == number + 1
                ends.add(type(other.exception()))
            if first:
                first.result(10)
            if victim.result(10).lines < at:
                break
        assert client.llen(f"{name}.2") == 3
    assert type(None) in ends


def test_a_storm_of_signals_stops_no_queue(valkey: Store, name: str) -> None:
    client = connect(valkey.url)
    queue = ReliableQueue(client, name)

    def stop(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    pushed = interrupted = 0
    is_over = threading.Event()

    def work() -> int:
        done = 0
        while not is_over.is_set():
            with contextlib.suppress(redis.ConnectionError):
                queue.push(b"other")
                done += 1
        return done

    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(work) for _ in range(2)]
        try:
            while interrupted < 300:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + interrupted % 30 / 50_000)
                    for _ in range(200):  # some signals are lost in finalizers, which Python lets fail
                        with contextlib.suppress(redis.ConnectionError):
                            queue.push(b"x")
                            pushed += 1
                except Interrupted:
                    interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            is_over.set()
        pushed += sum(other.result(10) for other in others)
    assert pushed <= queue.count() <= pushed + 400  # what was interrupted may have been done
    assert client.lrange(queue.key, 0, 0)


class InterruptedNumber(int):
    """A number during whose formatting a signal handler raises."""

    def __repr__(self) -> str:
        raise Interrupted


@pytest.mark.parametrize("command", ["EVALSHA", "EXPIRE"])
def test_a_signal_while_a_command_is_packed_does_not_crash_the_process(valkey: Store, name: str, command: str) -> None:
    client: Any = connect(valkey.url)
    with pytest.raises(Interrupted):
        client.execute_command(command, name, InterruptedNumber(1))
    assert client.rpush(name, "x", 1, 2.5) == 3
    assert client.lrange(name, 0, -1) == [b"x", b"1", b"2.5"]


@pytest.mark.slow
def test_a_signal_handler_can_use_the_client_that_it_interrupts(proxy: Proxy, name: str) -> None:
    client: Any = connect(proxy.url)
    client.llen(name)
    found = []

    def handle(*_: Any) -> None:
        proxy.resume()
        found.append(client.lpush(name, "x"))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        proxy.pause()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert client.llen(name) in (0, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found == [1]


@pytest.mark.parametrize("blocking", [False, True])
def test_a_fork_while_other_threads_use_the_client_gives_a_fresh_one(
    valkey: Store, proxy: Proxy, name: str, blocking: bool
) -> None:
    client = connect(proxy.url, blocking=blocking)
    count = 24
    client.ping()
    proxy.pause()
    with ThreadPoolExecutor(count) as threads:
        waiting = [threads.submit(client.lpush, name, "x") for _ in range(count)]
        used = client.connection_pool
        until(lambda: len(used._permits) == count if blocking else len(client._queue) == count)
        with used._lock, used._permit_lock, used.breaker._probing:  # as if other threads held them
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    signal.alarm(20)
                    used.connection_kwargs["port"] = valkey.port
                    os._exit(0 if client.llen(name) == 0 and client.ping() and used.pid == os.getpid() else 1)
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        proxy.resume()
        assert sorted(one.result(10) for one in waiting) == list(range(1, count + 1))


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
from broker.connections.connection import connect
url, name = sys.argv[1:]
client = connect(url)
client.llen(name)
for number in range(50):  # the leader is killed, one that waits, and one that has just begun
    workers = [gevent.spawn(client.lpush, f"{name}.{number}", "x") for _ in range(8)]
    gevent.sleep(0)
    for at in (0, 3, 7):
        workers[at].kill(block=at % 2 == 0)
    with gevent.Timeout(10):
        assert client.llen(name) == 0
        gevent.joinall(workers)
    assert not client._queue, number
"""


def test_a_killed_greenlet_holds_up_no_other(valkey: Store, name: str) -> None:
    subprocess.run([sys.executable, "-c", GREENLETS, valkey.url, name], check=True, timeout=60)
