"""Every way a waiting client can leave, and every way it can stay: who has left takes nothing with it."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.queue import ReliableQueue
from tests.servers import App, Store, until

REQUEST = (
    "POST /api/queue/{name}/{operation}?wait={wait} HTTP/{version}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
)

OTHER_WAYS = ["an idle connection", "an unfinished head"]


def ask(app: App, name: str, operation: str = "pop", wait: int = 30, version: str = "1.1") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", app.port), timeout=60)
    sock.sendall(REQUEST.format(name=name, operation=operation, wait=wait, version=version).encode())
    return sock


def rest(sock: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    found = b""
    while block := sock.recv(1 << 16):
        found += block
    return found


def message(answer: bytes) -> str | None:
    """Return the message of an answer that must be whole and have nothing before it."""
    assert answer.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n"))
    found: str | None = json.loads(answer.partition(b"\r\n\r\n")[2]).get("message")
    return found


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send_much(sock: socket.socket) -> None:
    """Send more than the server's system takes, so that the end of it cannot be seen there."""
    sock.settimeout(0.5)
    try:
        sock.sendall(b"x" * (32 << 20))
    except TimeoutError:
        sock.close()


PIPELINED = b"GET /api/queue/count HTTP/1.1\r\nHost: localhost\r\n\r\n"

Step = Callable[[socket.socket], None]


def close(sock: socket.socket) -> None:
    sock.close()


def end_sending(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def shut_both_ways(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)


def sends(data: bytes) -> Step:
    return lambda sock: sock.sendall(data)


LEAVING: dict[str, list[Step]] = {
    "close": [close],
    "reset": [reset],
    "both ways shut": [shut_both_ways],
    "a stray line, then close": [sends(b"\r\n"), close],
    "a stray line, then reset": [sends(b"\r\n"), reset],
    "a pipelined request, then close": [sends(PIPELINED), close],
    "many pipelined requests, then close": [sends(PIPELINED * 2000), close],
    "half a request, then close": [sends(PIPELINED[:20]), close],
    "end of sending, then close": [end_sending, close],
    "end of sending, then reset": [end_sending, reset],
    "more than is read, then close": [send_much],
}


@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", LEAVING)
def test_a_client_that_left_takes_nothing(site: App, valkey: Store, name: str, operation: str, way: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    sock = ask(site, name, operation)
    until(lambda: queue.state().counts.waiters == 1)
    for step in LEAVING[way]:
        step(sock)
    valkey.client().lpush(queue.key, "a")
    until(lambda: queue.state().counts.waiters == 0)
    assert (queue.all(), queue.state().counts.reserved) == ([b"a"], 0)
    sock.close()


@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.slow)])
def test_a_client_that_left_is_soon_not_counted_as_waiting(site: App, valkey: Store, name: str, operation: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    sock = ask(site, name, operation)
    until(lambda: queue.state().counts.waiters == 1)
    sock.sendall(b"\r\n")
    sock.close()
    until(lambda: queue.state().counts.waiters == 0)


@pytest.mark.slow
def test_a_client_that_leaves_a_quiet_queue_is_noticed_and_takes_nothing(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str
) -> None:
    store = own_store()
    app, queue = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1"), ReliableQueue(store.client(), name)
    half_closed, gone = ask(app, name), ask(app, name)
    half_closed.shutdown(socket.SHUT_WR)
    until(lambda: queue.state().counts.waiters == 2)
    until(lambda: not is_blocked(store))
    gone.close()
    until(lambda: queue.state().counts.waiters == 1, 10)  # seconds; without the worker's help it would be 15
    queue.push(b"a")
    assert message(rest(half_closed)) == "a"
    last = ask(app, name)
    until(lambda: queue.state().counts.waiters == 1)
    until(lambda: not is_blocked(store))
    last.close()
    queue.push(b"b")
    until(lambda: queue.state().counts.waiters == 0)
    assert queue.all() == [b"b"]


def is_blocked(store: Store) -> bool:
    """Return whether a client blocks in Redis: on a quiet queue none does."""
    return any("b" in client["flags"] for client in store.client().client_list())


@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.slow)])
def test_a_client_that_ended_its_sending_and_later_left_takes_nothing(
    site: App, valkey: Store, name: str, operation: str
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    sock = ask(site, name, operation)
    until(lambda: queue.state().counts.waiters == 1)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b"H"  # it has read what would make its system refuse the rest
    sock.close()
    valkey.client().lpush(queue.key, "a")
    until(lambda: queue.state().counts.waiters == 0)
    assert (queue.all(), queue.state().counts.reserved) == ([b"a"], 0)


STAYING: dict[str, list[Step]] = {
    "nothing": [],
    "end of sending": [end_sending],
    "a stray line": [sends(b"\r\n")],
    "a stray line and the end of sending": [sends(b"\r\n"), end_sending],
}


@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.slow)])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("way", STAYING)
def test_a_client_that_reads_on_gets_the_message_that_waits(
    site: App, valkey: Store, name: str, operation: str, version: str, way: str
) -> None:
    valkey.client().lpush(f"queue:{name}", "a")
    sock = ask(site, name, operation, version=version)
    for step in STAYING[way]:
        step(sock)
    sock.settimeout(20)
    answer = sock.recv(1 << 16)
    while not answer.endswith(b"}\n"):
        answer += sock.recv(1 << 16)
    assert message(answer) == "a"
    sock.close()


@pytest.mark.parametrize("operation", ["pop", pytest.param("reserve", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seconds", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_client_that_ended_its_sending_gets_a_message_that_comes_later(
    site: App, valkey: Store, name: str, operation: str, seconds: int
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    sock = ask(site, name, operation)
    sock.shutdown(socket.SHUT_WR)
    until(lambda: queue.state().counts.waiters == 1)
    threading.Timer(seconds, lambda: queue.push(b"a")).start()
    assert message(rest(sock)) == "a"


@pytest.mark.slow
def test_a_client_that_ended_its_sending_gets_the_answer_of_an_empty_queue(site: App, name: str) -> None:
    sock = ask(site, name, wait=1)
    sock.shutdown(socket.SHUT_WR)
    assert json.loads(rest(sock).partition(b"\r\n\r\n")[2])["error"] == "empty"


def test_a_request_that_is_pipelined_behind_a_wait_is_answered_after_it(site: App, valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    sock = ask(site, name)
    until(lambda: queue.state().counts.waiters == 1)
    sock.sendall(PIPELINED)
    queue.push(b"a")
    answers = b""
    while answers.count(b"}\n") < 2:
        answers += sock.recv(1 << 16)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert queue.all() == []
    sock.close()


@pytest.fixture
def unix_site(serve: Callable[..., App], valkey: Store, folder: Path, name: str) -> Path:
    """The app on a unix socket too; the path of the socket."""
    app, path = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1"), folder / f"{name}.sock"
    app.end()
    app.env["GUNICORN_CMD_ARGS"] = f"--bind 127.0.0.1:{app.port} --bind unix:{path}"
    app.start()
    return path


@pytest.mark.slow
def test_a_client_on_a_unix_socket_leaves_and_stays_as_well(unix_site: Path, valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)

    def ask_there() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(str(unix_site))
        sock.sendall(REQUEST.format(name=name, operation="pop", wait=30, version="1.1").encode())
        until(lambda: queue.state().counts.waiters == 1)
        return sock

    gone = ask_there()
    gone.sendall(b"\r\n")
    gone.close()
    until(lambda: queue.state().counts.waiters == 0)
    here = ask_there()
    here.shutdown(socket.SHUT_WR)
    queue.push(b"a")
    assert message(rest(here)) == "a"


# --- a stop


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    ["a slow reader", "an unfinished body", *(pytest.param(each, marks=pytest.mark.soak) for each in OTHER_WAYS)],
)
def test_a_stop_does_not_wait_for_a_client(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str, way: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    for _ in range(16):
        store.client().lpush(f"queue:{name}", b"x" * (1 << 20))
    heads = {
        "a slow reader": f"GET /api/queue/{name}/all HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "an idle connection": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "an unfinished body": f"POST /api/queue/{name}x/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n",
        "an unfinished head": "GET / HTTP/1.1\r\nX: ",
    }
    sock = socket.create_connection(("127.0.0.1", app.port), timeout=60)
    sock.sendall(heads[way].encode())
    if way in ("a slow reader", "an idle connection"):
        assert sock.recv(1)
    reading = threading.Event()

    def read_slowly() -> None:
        while way == "a slow reader" and not reading.wait(0.2) and sock.recv(1 << 13):
            pass

    thread = threading.Thread(target=read_slowly)
    thread.start()
    began = time.monotonic()
    app.end()
    assert time.monotonic() - began < 20
    reading.set()
    thread.join()
    if way == "an unfinished body":
        assert b'"incomplete_body"' in rest(sock)
    sock.close()
