"""Event streams over HTTP: every change is an event for every client that watches, and a stream ends cleanly."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.servers import ROOT, App, Store, until
from tests.web.helpers import NO_OTHERS
from web.live import queue_feed


class Stream:
    """A client that reads a queue's events over HTTP."""

    def __init__(self, app: App, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()

    def next(self) -> tuple[str, Any]:
        """Return the next event: its kind and data, or ("comment", text); ("end", None) at the end."""
        kind = ""
        while text := self.response.readline().decode():
            field, _, value = text.rstrip("\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                return kind, json.loads(value)
            elif text.startswith(": "):
                return "comment", value
        return "end", None

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Read on until an event of the queue has these values."""
        while True:
            kind, data = self.next()
            assert kind in ("queue", "fault"), "the stream ended"
            if wanted.items() <= data.items():
                return dict(data)

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture
def watch(site: App) -> Iterator[Callable[..., Stream]]:
    """Open streams that are closed at the end: watch("/api/queue/name/events")."""
    opened: list[Stream] = []

    def start(path: str, app: App = site) -> Stream:
        opened.append(Stream(app, path))
        return opened[-1]

    yield start
    for stream in opened:
        stream.close()


EMPTY = {"count": 0, **NO_OTHERS, "next": []}


def test_a_stream_starts_with_the_state(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    stream = watch(f"/api/queue/{name}/events")
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert stream.next() == ("queue", {"name": name, **EMPTY})
    ReliableQueue(valkey.client(), name).push(b"a", "ž\n🐎".encode(), b"\xff" * 9)
    previews = [{"preview": "a", "bytes": 1}, {"preview": "ž\n🐎", "bytes": 7}]
    previews.append({"preview": {"base64": "////////////"}, "bytes": 9})
    assert stream.until(count=3)["next"] == previews
    assert watch(f"/api/queue/{name}/events").next()[1]["next"] == previews


def test_an_event_holds_the_beginnings_of_twenty_messages(
    watch: Callable[..., Stream], valkey: Store, name: str
) -> None:
    ReliableQueue(valkey.client(), name).push(*["🐎".encode() * 1000] * 30)
    data = watch(f"/api/queue/{name}/events").next()[1]
    assert data["next"] == [{"preview": "🐎" * 160, "bytes": 4000}] * 20
    assert data["count"] == 30


@pytest.mark.slow
def test_the_history_has_the_messages_of_every_process(
    watch: Callable[..., Stream], site: App, valkey: Store, name: str
) -> None:
    path = f"/api/queue/{name}/events?next=0&history=1"
    stream, raw = watch(path), valkey.client()
    stream.until(count=0)
    for number in range(4):
        subprocess.run(["curl", "-sSfd", f"message={number}", f"{site.url}/api/queue/{name}/push"], check=True)
    raw.lpush(f"queue:{name}", *"abc")
    stream.until(count=7)
    subprocess.run(["curl", "-sSfd", "max=5", f"{site.url}/api/queue/{name}/pop"], check=True)
    enqueued = dequeued = 0
    while enqueued < 7 or dequeued < 5:  # until the step ends, or the next one
        history = stream.next()[1].get("history", {"in": [], "out": []})
        enqueued += sum(filter(None, history["in"]))
        dequeued += sum(filter(None, history["out"]))
    for other in [watch(path) for _ in range(6)]:  # they have both processes
        history = other.next()[1]["history"]
        assert (max(filter(None, history["max"])), history["count"][-1]) == (7, 2)
        assert (sum(filter(None, history["in"])), sum(filter(None, history["out"]))) == (enqueued, dequeued)


def test_dead_letters_and_the_default_queue_have_events_too(
    watch: Callable[..., Stream], valkey: Store, name: str
) -> None:
    ReliableQueue(valkey.client(), name + ".dead").push(b"d")
    assert watch(f"/api/queue/{name}.dead/events").next()[1]["count"] == 1
    assert watch(f"/api/queue/{name}/events").next()[1]["dead"] == 1
    assert watch("/api/queue/events").next()[1]["name"] == "default"


def test_head_is_answered_without_a_stream(site: App, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    for _ in range(3):
        connection.request("HEAD", f"/api/queue/{name}/events")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()


def test_another_type_is_a_fault_until_it_is_deleted(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    client = valkey.client()
    client.set(f"queue:{name}", "text")
    stream = watch(f"/api/queue/{name}/events")
    kind, data = stream.next()
    assert (kind, data["success"], data["error"]) == ("fault", False, "wrong_type")
    client.delete(f"queue:{name}")
    assert stream.next() == ("queue", {"name": name, **EMPTY})


@pytest.mark.slow
def test_events_count_as_waiting_clients(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_BLOCKED_CLIENTS="1")
    first = Stream(app, f"/api/queue/{name}/events")
    assert first.next()[0] == "queue"
    second = Stream(app, f"/api/queue/{name}/events")
    assert second.response.status == 429
    assert json.loads(second.response.read())["error"] == "too_many_blocked_clients"
    first.close()
    until(lambda: Stream(app, f"/api/queue/{name}/events").response.status == 200)


@pytest.mark.slow
def test_a_stream_ends_cleanly_when_the_server_stops(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url)
    streams = [Stream(app, f"/api/queue/{name}/events") for _ in range(10)]
    assert {stream.next()[0] for stream in streams} == {"queue"}
    app.process.send_signal(signal.SIGTERM)
    for stream in streams:
        while stream.next()[0] != "end":
            pass  # a broken transfer would raise http.client.IncompleteRead
        stream.close()
    assert app.process.wait() == 0


def evals(client: Any) -> int:
    return sum(int(stat["calls"]) for name, stat in client.info("commandstats").items() if "eval" in name)


def is_quiet(client: Any) -> bool:
    """Return whether no queue is polled any more; that nothing happens can only be seen by waiting."""
    before = evals(client)
    time.sleep(2 * queue_feed.POLL_INTERVAL)
    return evals(client) == before


@pytest.mark.slow
def test_many_streams_cost_redis_no_more_than_one(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    client = store.client()
    streams = [Stream(app, f"/api/queue/{name}/events") for _ in range(50)]
    assert {stream.next()[0] for stream in streams} == {"queue"}
    before = evals(client)
    for number in range(1, 6):
        client.lpush(f"queue:{name}", "a")
        for stream in streams:
            stream.until(count=number)
    assert evals(client) - before <= 10  # one or two a change: another notification can arrive during a poll
    assert len(client.client_list()) < 7  # the timer has one, too
    for stream in streams:
        stream.close()
    until(lambda: is_quiet(client))


@pytest.mark.soak
@pytest.mark.slow
def test_a_client_that_stops_reading_is_dropped(
    tmp_path: Path, serve: Callable[..., App], valkey: Store, name: str
) -> None:
    """The app is served as always, but with a shorter limit for sends."""
    (tmp_path / "short_limit.py").write_text(
        "from app import app\nfrom server import worker\nworker.SEND_TIMEOUT = 0.2\n"
    )
    original = str(ROOT / "gunicorn.conf.py")
    (tmp_path / "conf.py").write_text(
        f"exec(open({original!r}).read())\nwsgi_app = 'short_limit:app'\npythonpath = {str(tmp_path)!r}\n"
    )
    app = serve(
        REDIS_URL=valkey.url,
        WEB_CONCURRENCY="1",
        MAX_BLOCKED_CLIENTS="1",
        GUNICORN_CMD_ARGS=f"--config {tmp_path / 'conf.py'}",
    )
    queue = ReliableQueue(valkey.client(), name)
    queue.push(*["🐎".encode() * 160] * 20)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.connect(("127.0.0.1", app.port))
        sock.sendall(f"GET /api/queue/{name}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sock.recv(10)

        def has_room() -> bool:
            queue.client.lset(queue.key, -1, os.urandom(8).hex())  # a change, so that there is something to send
            stream = Stream(app, f"/api/queue/{name}/events")
            with contextlib.closing(stream):
                return stream.response.status == 200

        assert not has_room()
        until(has_room)
