"""The app under gunicorn's own gevent worker: it needs nothing of ours, only clients are held to fewer limits."""

import http.client
import json
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.servers import App, Store, running, until

pytestmark = pytest.mark.slow

STOCK = {"GUNICORN_CMD_ARGS": "-k gevent", "WEB_CONCURRENCY": "1"}


@pytest.fixture(scope="module")
def stock(valkey: Store, folder: Path) -> Iterator[App]:
    with running(App(folder / "stock", REDIS_URL=valkey.url, **STOCK)) as app:
        assert "Using worker: gevent" in app.log.read_text()
        yield app


def call(app: App, path: str, data: bytes | None = None, kind: str = "application/x-www-form-urlencoded") -> Any:
    request = urllib.request.Request(f"{app.url}/api/queue/{path}", data, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def waiters(app: App, name: str) -> int:
    return int(call(app, f"{name}/count")["waiters"])


def test_a_push_wakes_a_waiting_client(stock: App, name: str) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(call, stock, f"{name}/pop?wait=50", b"")
        until(lambda: waiters(stock, name) == 1)
        assert call(stock, f"{name}/push", b"message=a")["success"]
        assert waiting.result(20) == {"success": True, "message": "a"}


def test_a_push_becomes_an_event(stock: App, name: str) -> None:
    with urllib.request.urlopen(f"{stock.url}/api/queue/{name}/events", timeout=20) as events:
        assert any(b'"count":0' in line for line in iter(events.readline, b""))
        call(stock, f"{name}/push", b"message=a")
        assert any(b'"count":1' in line for line in iter(events.readline, b""))


def test_messages_stream_in_and_out(stock: App, name: str) -> None:
    lines = b"".join(b"%d\n" % number for number in range(50_000))
    assert call(stock, f"{name}/push?each=line", lines, "text/plain")["pushed"] == 50_000
    request = urllib.request.Request(f"{stock.url}/api/queue/{name}/all", headers={"Accept": "application/x-ndjson"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.read() == b"".join(b'"%d"\n' % number for number in range(50_000))


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_client_that_hangs_up_while_it_waits_loses_nothing(
    stock: App, valkey: Store, name: str, operation: str
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    with socket.create_connection(("127.0.0.1", stock.port), timeout=20) as sock:
        sock.sendall(f"POST /api/queue/{name}/{operation}?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: waiters(stock, name) == 1)
    queue.push(b"a")
    until(lambda: waiters(stock, name) == 0)
    assert (queue.all(), queue.state().counts.reserved) == ([b"a"], 0)


def test_a_stop_answers_a_waiting_client(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, **STOCK)
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
    connection.request("POST", f"/api/queue/{name}/pop?wait=50")
    until(lambda: waiters(app, name) == 1)
    app.process.send_signal(signal.SIGTERM)
    assert json.load(connection.getresponse())["error"] == "empty"
    connection.close()
    assert app.process.wait() == 0
    assert "Traceback" not in app.log.read_text()
