"""Consumers and workers as processes of their own: how they exit, and what happens if they or the server are killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from seequeue import Queue

from tests.client.helpers import facts
from tests.servers import ROOT, App, Store, until

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(queue: Queue) -> Iterator[Start]:
    """Start a program of tests/client/programs.py on the queue: start("worker")."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, url: str = queue.url) -> "subprocess.Popen[str]":
        env = {**os.environ, "SEEQUEUE_URL": url, "PYTHONPATH": str(ROOT / "client/python")}
        command = [sys.executable, "-m", "tests.client.programs", program, str(queue.name)]
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("program", "code"), [("kept_break", 0), ("kept_exit", 3), ("kept_error", 1)])
def test_a_process_exits_though_a_variable_keeps_its_loop_and_the_message_comes_back(
    queue: Queue, start: Start, program: str, code: int
) -> None:
    queue.push_many("ab")
    process = start(program)
    process.communicate(timeout=30)
    assert (process.returncode, [*queue.all()], facts(queue)) == (code, [b"a", b"b"], (2, 0, 0, 0))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", ["worker", "async_worker"])
def test_a_signal_lets_a_worker_finish_and_gives_back_the_rest(
    queue: Queue, start: Start, program: str, how: signal.Signals
) -> None:
    queue.push_many("abc")
    process = start(program)
    assert line(process) == "a"
    process.send_signal(how)
    out, errors = process.communicate(timeout=30)
    assert (out, [*queue.all()], facts(queue)) == ("a done\n", [b"b", b"c"], (2, 0, 0, 0))
    if (program, how) != ("async_worker", signal.SIGINT):  # asyncio.run raises KeyboardInterrupt then
        assert (process.returncode, errors) == (0, "")


def test_a_signal_ends_a_loop_that_waits(queue: Queue, start: Start) -> None:
    process = start("consume")
    until(lambda: queue.count().waiters)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=30), process.returncode) == (("", ""), 0)


def test_an_interrupt_of_the_body_gives_the_message_back_at_once(queue: Queue, start: Start) -> None:
    queue.push("slow")
    process = start("consume")
    assert line(process) == "slow"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert [*queue.all()] == [b"slow"]


def test_the_message_of_a_worker_that_is_killed_comes_back_when_its_lease_ends(queue: Queue, start: Start) -> None:
    queue.push_many(["stuck", "next"])
    process = start("worker")
    assert line(process) == "stuck"
    process.kill()
    process.communicate()
    until(lambda: facts(queue) == (2, 0, 0, 0))
    first, second = queue.reserve(max=2)
    assert (first, first.deliveries, second) == (b"stuck", 2, b"next")


@pytest.mark.parametrize("program", ["worker", "async_worker"])
def test_a_worker_outlives_a_server_that_is_killed(
    queue: Queue, start: Start, serve: Callable[..., App], own_store: Callable[..., Store], program: str
) -> None:
    app = serve(REDIS_URL=own_store("valkey").url)
    there = Queue(queue.name, url=app.url)
    there.push_many("ab")
    process = start(program, app.url)
    assert line(process) == "a"
    app.end(signal.SIGKILL)
    restart = threading.Thread(target=app.start)
    restart.start()
    assert line(process) == "a done"
    restart.join()
    seen = [line(process)]
    while seen[-1] != "b done":
        seen.append(line(process))
    until(lambda: facts(there) == (0, 0, 0, 0))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.count("does not answer")) == (0, 1)
