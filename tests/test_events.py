"""Live events: what changes is told at once to however many watch, and costs Redis the same for one or many."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.reliable import ReliableQueue
from tests.servers import ROOT, App, Proxy, Store, until
from web import events
from web.events import Events


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


EMPTY = {"count": 0, "reserved": 0, "dead": 0, "waiters": 0, "next": []}


def test_the_state_is_told_at_once(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    stream = watch(f"/api/queue/{name}/events")
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert stream.next() == ("queue", {"name": name, **EMPTY})
    ReliableQueue(valkey.client(), name).push(b"a", "ž\n🐎".encode(), b"\xff" * 9)
    shown = [{"preview": "a", "bytes": 1}, {"preview": "ž\n🐎", "bytes": 7}]
    shown.append({"preview": {"base64": "////////////"}, "bytes": 9})
    assert stream.until(count=3)["next"] == shown
    assert watch(f"/api/queue/{name}/events").next()[1]["next"] == shown


def test_every_change_is_told_whoever_made_it(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    stream, queue, raw = watch(f"/api/queue/{name}/events"), ReliableQueue(valkey.client(), name), valkey.client()
    raw.lpush(queue.key, "a")
    assert stream.until(count=1)["next"] == [{"preview": "a", "bytes": 1}]
    raw.lpop(queue.key)
    stream.until(count=0)
    queue.push(b"b")
    [delivery] = queue.reserve(1000).messages
    stream.until(count=0, reserved=1)
    raw.zadd(queue.meta + "reserved", {delivery.id: 1})
    stream.until(count=1, reserved=0)
    once = ReliableQueue(raw, name, max_deliveries=1)
    once.release(once.reserve().messages[0].id)
    stream.until(count=0, reserved=0, dead=1)
    raw.rpop(queue.meta + "dead")
    stream.until(dead=0)
    queue.announce("process", 2, 30)
    stream.until(waiters=2)


def test_a_change_that_leaves_the_counts_is_told_too(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(b"a", b"b")
    stream = watch(f"/api/queue/{name}/events")
    stream.until(count=2)
    queue.client.lset(queue.key, 0, "c")
    assert stream.until(count=2)["next"][1]["preview"] == "c"


def test_the_first_twenty_are_shown_and_cut(watch: Callable[..., Stream], valkey: Store, name: str) -> None:
    ReliableQueue(valkey.client(), name).push(*["🐎".encode() * 1000] * 30)
    data = watch(f"/api/queue/{name}/events").next()[1]
    assert data["next"] == [{"preview": "🐎" * 160, "bytes": 4000}] * 20
    assert data["count"] == 30


def test_dead_letters_and_the_default_queue_have_events_too(
    watch: Callable[..., Stream], valkey: Store, name: str
) -> None:
    ReliableQueue(valkey.client(), name + ".dead").push(b"d")
    assert watch(f"/api/queue/{name}.dead/events").next()[1]["count"] == 1
    assert watch(f"/api/queue/{name}/events").next()[1]["dead"] == 1
    assert watch("/api/queue/events").next()[1]["name"] == "default"


def test_waiting_clients_show(watch: Callable[..., Stream], site: App, name: str) -> None:
    stream = watch(f"/api/queue/{name}/events")
    waits = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    waits.request("POST", f"/api/queue/{name}/pop?wait=60", headers={"Content-Length": "0"})
    stream.until(waiters=1)
    waits.close()
    stream.until(waiters=0)


def test_head_is_answered_without_a_stream(site: App, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    for _ in range(3):
        connection.request("HEAD", f"/api/queue/{name}/events")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()


def test_what_is_no_list_is_told_as_a_fault_until_it_is_gone(
    watch: Callable[..., Stream], valkey: Store, name: str
) -> None:
    client = valkey.client()
    client.set(f"queue:{name}", "text")
    stream = watch(f"/api/queue/{name}/events")
    kind, data = stream.next()
    assert (kind, data["success"], data["error"]) == ("fault", False, "wrong_type")
    client.delete(f"queue:{name}")
    assert stream.next() == ("queue", {"name": name, **EMPTY})


def test_a_redis_that_is_away_is_told_once_and_its_return_too(
    own_store: Callable[..., Store], serve: Callable[..., App], watch: Callable[..., Stream], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    stream = watch(f"/api/queue/{name}/events", app)
    assert stream.next()[0] == "queue"
    store.end(signal.SIGKILL)
    kind, data = stream.next()
    assert (kind, data["success"], data["error"]) == ("fault", False, "redis_away")
    store.start()
    store.client().lpush(f"queue:{name}", "a")
    stream.until(count=1)


def test_events_count_as_waiting_clients(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_WAITING="1")
    first = Stream(app, f"/api/queue/{name}/events")
    assert first.next()[0] == "queue"
    refused = Stream(app, f"/api/queue/{name}/events")
    assert refused.response.status == 429
    assert json.loads(refused.response.read())["error"] == "too_many_waiting"
    first.close()
    until(lambda: Stream(app, f"/api/queue/{name}/events").response.status == 200)


def test_a_stream_ends_well_when_the_server_is_told_to(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url)
    streams = [Stream(app, f"/api/queue/{name}/events") for _ in range(10)]
    assert {stream.next()[0] for stream in streams} == {"queue"}
    app.process.send_signal(signal.SIGTERM)
    for stream in streams:
        while stream.next()[0] != "end":
            pass  # a broken transfer would raise http.client.IncompleteRead
        stream.close()
    assert app.process.wait() == 0


# --- what it costs


def evals(client: Any) -> int:
    return sum(int(stat["calls"]) for name, stat in client.info("commandstats").items() if "eval" in name)


def still(client: Any) -> bool:
    """Return whether nobody looks at a queue any more; that nothing happens can only be seen by waiting."""
    before = evals(client)
    time.sleep(3 * events.EVERY)
    return evals(client) == before


def test_many_streams_cost_redis_no_more_than_one(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    client = store.client()
    streams = [Stream(app, f"/api/queue/{name}/events") for _ in range(50)]
    assert {stream.next()[0] for stream in streams} == {"queue"}
    start, before = time.monotonic(), evals(client)
    looks = until(lambda: evals(client) - before > 4 and evals(client) - before)
    assert looks <= 2 + (time.monotonic() - start) / events.EVERY
    assert len(client.client_list()) < 6
    client.lpush(f"queue:{name}", "a")
    for stream in streams:
        stream.until(count=1)
        stream.close()
    until(lambda: still(client))


def test_a_client_that_stops_reading_is_dropped(
    tmp_path: Path, serve: Callable[..., App], valkey: Store, name: str
) -> None:
    """As gunicorn serves the app, but with less patience."""
    (tmp_path / "impatient.py").write_text(
        "import app as made; from web import events\nmade.STALLED = 0.5\nevents.EVERY = 0.01\napp = made.app\n"
    )
    original = str(ROOT / "gunicorn.conf.py")
    (tmp_path / "conf.py").write_text(
        f"exec(open({original!r}).read())\nwsgi_app = 'impatient:app'\npythonpath = {str(tmp_path)!r}\n"
    )
    app = serve(
        REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_WAITING="1", GUNICORN_CMD_ARGS=f"--config {tmp_path / 'conf.py'}"
    )
    queue = ReliableQueue(valkey.client(), name)
    queue.push(*["🐎".encode() * 160] * 20)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.connect(("127.0.0.1", app.port))
        sock.sendall(f"GET /api/queue/{name}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sock.recv(10)

        def room() -> bool:
            queue.client.lset(queue.key, -1, os.urandom(8).hex())  # something new to tell
            stream = Stream(app, f"/api/queue/{name}/events")
            with contextlib.closing(stream):
                return stream.response.status == 200

        assert not room()
        until(room)


# --- the streams of a process, without HTTP


class Watched:
    """One process's streams on a queue, read in this thread."""

    def __init__(self, client: Any, name: str) -> None:
        self.ended = False
        self.gone = False
        self.events = Events(lambda: self.ended)
        self.queue = ReliableQueue(client, name)

    def stream(self) -> Iterator[str]:
        return self.events.stream(self.queue, lambda: self.gone)


@pytest.fixture
def watched(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(events, "EVERY", 0.01)
    return Watched(backend, name)


def watchers() -> int:
    return [thread.name for thread in threading.enumerate()].count("watch")


def test_an_event_is_one_line_of_data_whatever_a_message_holds(watched: Watched) -> None:
    text = "\n\r\n\r\u2028\x85\0 event: queue\ndata: {}\n\n"
    watched.queue.push(text.encode())
    stream = watched.stream()
    assert next(stream) == "retry: 1000\n\n"
    event = next(stream)
    first, second, *rest = event.split("\n")
    assert (first, second[:6], rest) == ("event: queue", "data: ", ["", ""])
    assert "\r" not in event
    assert json.loads(second[6:])["next"] == [{"preview": text, "bytes": len(text.encode())}]
    stream.close()  # type: ignore[attr-defined]


def test_a_silent_queue_is_commented_now_and_then(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TICK", 0.01)
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    stream = watched.stream()
    assert [next(stream)[:6] for _ in range(4)] == ["retry:", "event:", ": noth", ": noth"]
    watched.queue.push(b"a")
    while not (event := next(stream)).startswith("event"):
        pass
    assert '"count":1' in event
    stream.close()  # type: ignore[attr-defined]


def test_streams_share_one_watch_which_ends_after_the_last(watched: Watched) -> None:
    until(lambda: watchers() == 0)  # those of the tests before
    streams = [watched.stream() for _ in range(20)]
    for stream in streams:
        next(stream), next(stream)
    assert (len(watched.events.watches), watchers()) == (1, 1)
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    until(lambda: not watched.events.watches and watchers() == 0)
    again = watched.stream()
    assert [next(again)[:6], next(again)[:6]] == ["retry:", "event:"]
    again.close()  # type: ignore[attr-defined]


def test_a_stream_ends_when_its_client_is_gone_or_the_server_ends(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "TICK", 0.01)
    for how in ("gone", "ended"):
        stream = watched.stream()
        next(stream), next(stream)
        setattr(watched, how, True)
        assert list(stream) == []
        watched.gone = False
    until(lambda: not watched.events.watches)


def test_a_stream_that_was_never_read_leaves_no_watch(watched: Watched) -> None:
    watched.stream().close()  # type: ignore[attr-defined]
    assert not watched.events.watches


def test_a_reply_that_is_lost_is_a_fault_and_then_all_is_well(
    proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "EVERY", 0.01)
    monkeypatch.setattr(events, "AFTER_A_FAULT", 0.01)
    watched = Watched(connect(proxy.url), name)
    stream = watched.stream()
    next(stream), next(stream)
    proxy.cut("EVALSHA")
    fault = next(stream)
    assert fault.startswith("event: fault\n")
    assert json.loads(fault.split("data: ")[1])["error"] == "redis_away"
    assert next(stream).startswith("event: queue\n")
    stream.close()  # type: ignore[attr-defined]
    until(lambda: not watched.events.watches)
