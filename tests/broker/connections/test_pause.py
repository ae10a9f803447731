"""A process that was stopped for longer than a timeout is not late: what it waits for gets another period."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import redis

from broker.connections import pool as pools
from broker.connections.connection import MAX_CONNECTIONS, MAX_LATENESS, connect
from tests.servers import ROOT, Store, until

PUSH = """
import sys
from broker.connections.connection import connect
client = connect(sys.argv[1] + "?socket_timeout=1")
client.ping()
print("ready", flush=True)
sys.stdin.readline()
with client.pipeline() as pipeline:
    pipeline.lpush("paused", "in a pipeline")
    print(pipeline.execute() if sys.argv[2] == "pipeline" else client.lpush("paused", "x"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipeline", "single"])
def test_a_reply_is_awaited_anew_after_its_process_was_stopped(own_store: Callable[..., Store], kind: str) -> None:
    store = own_store()
    command = [sys.executable, "-c", PUSH, store.url, kind]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        with store.stopped():
            process.stdin.write("go\n")
            process.stdin.flush()
            until(lambda: "S" in _state(process.pid) and _waits_for_a_reply(process.pid))
            process.send_signal(signal.SIGSTOP)
            end = time.monotonic() + 2 + MAX_LATENESS
            until(lambda: time.monotonic() > end)
            process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == ("[1]\n" if kind == "pipeline" else "1\n")


def _state(process: int) -> str:
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _waits_for_a_reply(process: int) -> bool:
    """Return whether a process waits in poll, not for its standard input."""
    with open(f"/proc/{process}/wchan") as file:
        return "poll" in file.read()


def test_a_server_that_does_not_reply_in_time_is_given_up(own_store: Callable[..., Store]) -> None:
    store = own_store()
    client = connect(store.url + "?socket_timeout=0.1")
    client.ping()
    with store.stopped(), pytest.raises(redis.TimeoutError):
        client.ping()


def test_a_wait_for_a_connection_is_counted_in_short_waits(valkey: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of this process, here between two looks at the clock, ends one of them."""
    monkeypatch.setattr(pools, "BREAKER_TIMEOUT", 0.05)
    client = connect(valkey.url)
    held = [client.connection_pool.get_connection() for _ in range(MAX_CONNECTIONS)]
    waits: list[float | None] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            if len(waits) == 2:
                client.connection_pool.release(held.pop())
            return super().wait(timeout)

    monkeypatch.setattr(threading, "Event", Event)
    assert client.ping()
    assert waits[:2] == [0.05, 0.05]
    for one in held:
        client.connection_pool.release(one)
