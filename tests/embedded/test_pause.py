"""All processes stop running for longer than any timeout: `docker pause`, Ctrl-Z and `fg`, a laptop that sleeps."""

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.connections.connection import connect
from tests.embedded.helpers import call, push, server_of, supervisor_of
from tests.servers import App, until

pytestmark = pytest.mark.slow

TIMEOUT = 4  # seconds, of gunicorn for its workers
PAUSE = 25  # seconds: longer than that, and than a client may take to send the head of a request


def waiters(app: App, number: int) -> int:
    return int(call(app, f"/api/queue/fresh{number}/count")["waiters"])


@pytest.mark.parametrize("with_store", [True, False])
def test_a_pause_of_all_processes_ends_no_worker_and_no_request(serve: Callable[..., App], with_store: bool) -> None:
    """Without the store it is what Ctrl-Z and `fg` stop: the embedded server has a session of its own."""
    app = serve(GUNICORN_CMD_ARGS=f"--timeout {TIMEOUT}")
    workers = app.workers()
    redis = connect(f"unix://{app.folder}/valkey.sock")
    store = [supervisor_of(app.folder), server_of(app.folder)] if with_store else []
    processes = [app.process.pid, *store, *workers]
    address = "127.0.0.1", app.port
    with (
        ThreadPoolExecutor(20) as pool,
        socket.create_connection(address, 60) as sending,
        socket.create_connection(address, 60) as heading,
    ):
        sending.sendall(b"POST /api/queue/slow/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n")
        heading.sendall(b"GET /api/queue/slow/count HTTP/1.1\r\nHost: localhost\r\n")
        sending.sendall(b"Content-Length: 5\r\n\r\nhe")
        waiting = [pool.submit(call, app, "pop?wait=60", b"") for _ in range(10)]
        until(lambda: call(app, "count")["waiters"] == 10)
        waiting += [pool.submit(call, app, f"/api/queue/fresh{n}/pop?wait=60", b"") for n in range(10)]
        until(lambda: redis.info("clients")["blocked_clients"] >= 10 or all(waiters(app, n) for n in range(10)))
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        end = time.monotonic() + PAUSE
        until(lambda: time.monotonic() > end)
        for process in processes:  # the master first
            os.kill(process, signal.SIGCONT)
        push(app, *map(str, range(10)))
        for number in range(10):
            assert call(app, f"/api/queue/fresh{number}/push", b"message=m")["success"]
        sending.sendall(b"llo")
        heading.sendall(b"\r\n")
        assert sending.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert heading.recv(1000).startswith(b"HTTP/1.1 200 ")
        answers = [answer.result() for answer in waiting]
    assert [answer for answer in answers if not answer["success"]] == []
    assert app.workers() == workers
    log = app.log.read_text()
    assert "TIMEOUT" not in log and "Traceback" not in log
