"""Waiting for messages: whatever brings one wakes who waits, and who is gone or refused has taken nothing."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connection import NotSent, connect
from broker.reliable import ReliableQueue
from RedisQueue import RedisQueue
from tests.servers import App, FakeRedis, Store, until
from web import waiting
from web.errors import Refusal, from_redis
from web.waiting import Waiting


class Recording:
    """A client that only waits, and keeps for how long, and what it got: a message, or None when the time was over."""

    def __init__(self, client: Any, woken: list[bytes | None], seconds: list[float]) -> None:
        self.client, self.woken, self.seconds = client, woken, seconds

    def blmove(self, first: str, second: str, seconds: float, *sides: Any) -> bytes | None:
        self.seconds.append(seconds)
        found: bytes | None = self.client.blmove(first, second, seconds, *sides)
        self.woken.append(found)
        return found


class Line:
    """A process's waiting on one queue, without HTTP: clients that wait in threads."""

    def __init__(self, store: Store, name: str, most: int = 100) -> None:
        self.name, self.store = name, store
        self.label = f"waits-on-{name}"
        self.stopping = False
        self.gone: set[int] = set()
        self.woken: list[bytes | None] = []
        self.seconds: list[float] = []
        client = connect(f"{store.url}?client_name={self.label}", blocking=True)
        self.waiting = Waiting(Recording(client, self.woken, self.seconds), most, lambda: self.stopping)
        self.queue = ReliableQueue(store.client(), name)
        self.pool = ThreadPoolExecutor(100)

    def wait(self, verb: str = "pop", seconds: float = 60, number: int = 0) -> "Future[list[Any]]":
        """Let one more client wait, and return once it stands in line."""
        before = self.length()
        attempt = self.queue.take if verb == "pop" else self.queue.reserve
        future = self.pool.submit(self.waiting.take, self.queue, seconds, attempt, lambda: number in self.gone)
        until(lambda: self.length() > before or future.done())
        until(lambda: self.blocked() or future.done())
        return future

    def length(self) -> int:
        line = self.waiting.lines.get(self.queue.key)
        return len(line.tickets) if line else 0

    def blocked(self) -> list[Any]:
        """Return the connections that wait in Redis for this process."""
        clients = self.store.client().client_list()
        return [client for client in clients if client["name"] == self.label and "b" in client["flags"]]


@pytest.fixture(params=["valkey", "redis7"])
def line(request: pytest.FixtureRequest, name: str) -> Iterator[Line]:
    made = Line(request.getfixturevalue(request.param), name)
    yield made
    made.stopping = True
    made.pool.shutdown()
    assert made.waiting.number == 0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look again by himself before a test fails: only what wakes counts."""
    monkeypatch.setattr(waiting, "TICK", 4.0)


# --- what wakes

WAYS: dict[str, Callable[[ReliableQueue], Any]] = {
    "push": lambda queue: queue.push(b"a"),
    "push next": lambda queue: queue.push(b"a", next=True),
    "push once": lambda queue: queue.push_once("key", [b"a"]),
    "raw LPUSH": lambda queue: queue.client.lpush(queue.key, "a"),
    "raw RPUSH": lambda queue: queue.client.rpush(queue.key, "a"),
    "move": lambda queue: [other(queue).push(b"a"), other(queue).move(queue.name, 1)],
    "move of dead letters": lambda queue: [other(queue, ".dead").push(b"a"), other(queue, ".dead").move(queue.name, 1)],
}


def other(queue: ReliableQueue, more: str = "x") -> ReliableQueue:
    return ReliableQueue(queue.client, queue.name + more)


@pytest.mark.parametrize("verb", ["pop", "reserve"])
@pytest.mark.parametrize("way", WAYS)
def test_whoever_brings_a_message_wakes_who_waits(patient: None, line: Line, verb: str, way: str) -> None:
    future = line.wait(verb)
    WAYS[way](line.queue)
    assert future.result() == [b"a"]
    assert line.woken == [b"a"]
    assert line.queue.client.llen(line.queue.key) == 0


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_release_wakes_who_waits(patient: None, line: Line, verb: str) -> None:
    line.queue.push(b"a")
    [delivery] = line.queue.reserve().messages
    future = line.wait(verb)
    line.queue.release(delivery.id)
    assert (future.result(), line.woken) == ([b"a"], [b"a"])


def test_a_restore_wakes_who_waits(patient: None, line: Line) -> None:
    line.queue.push(b"a", b"b")
    _, undo = line.queue.clear()
    future = line.wait()
    line.queue.restore(str(undo))
    assert (future.result(), line.queue.all()) == ([b"a"], [b"b"])
    assert line.woken == [b"a"]


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_lease_that_ends_brings_its_message_to_who_waits(patient: None, line: Line, verb: str) -> None:
    line.queue.push(b"a")
    line.queue.reserve(0.5)
    assert line.wait(verb).result() == [b"a"]
    assert line.seconds[0] <= 0.5


def test_a_lease_made_meanwhile_is_seen_too(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TICK", 0.1)
    future = line.wait()
    line.queue.client.eval(  # a message goes straight to another client, which holds it for a while
        "redis.call('ZADD', KEYS[1], ARGV[1], 'id') redis.call('HSET', KEYS[2], 'id', '1:a')",
        2,
        *line.queue._keys[1:3],
        int(time.time() * 1000) + 300,
    )
    assert future.result() == [b"a"]


# --- who waits


def test_the_first_in_line_is_served_first(line: Line) -> None:
    futures = [line.wait() for _ in range(5)]
    for number in range(5):
        line.queue.push(b"%d" % number)
    assert [future.result() for future in futures] == [[b"%d" % number] for number in range(5)]


def test_many_who_wait_block_one_connection(line: Line) -> None:
    futures = [line.wait() for _ in range(50)]
    assert len(line.blocked()) == 1
    line.queue.push(*[b"%d" % number for number in range(50)])
    assert sorted(int(future.result()[0]) for future in futures) == list(range(50))


def test_who_is_gone_takes_nothing_and_the_next_is_served(patient: None, line: Line) -> None:
    gone, here = line.wait(number=1), line.wait(number=2)
    line.gone.add(1)
    line.queue.push(b"a")
    assert (gone.result(), here.result()) == ([], [b"a"])


def test_the_time_is_over_for_who_waits_in_vain(line: Line) -> None:
    assert line.wait(seconds=0.2).result() == []
    first, second = line.wait(seconds=60), line.wait(seconds=0.2)
    assert second.result() == []
    line.queue.push(b"a")
    assert first.result() == [b"a"]


def test_at_the_end_who_waits_is_told_that_the_queue_is_empty(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TICK", 0.1)
    futures = [line.wait() for _ in range(3)]
    line.stopping = True
    assert [future.result() for future in futures] == [[], [], []]
    line.queue.push(b"a")
    assert line.queue.all() == [b"a"]


def test_more_than_may_wait_are_refused_and_the_queue_still_serves(line: Line) -> None:
    line.waiting.most = 2
    waits = [line.wait(), line.wait()]
    with pytest.raises(Refusal) as caught:
        line.wait().result()
    assert (caught.value.status, caught.value.error) == (429, "too_many_waiting")
    assert "Retry-After" in caught.value.headers
    assert line.wait(seconds=0).result() == []
    line.queue.push(b"a", b"b")
    assert sorted(future.result()[0] for future in waits) == [b"a", b"b"]
    line.queue.push(b"c")
    assert line.wait().result() == [b"c"]


def test_lines_and_threads_are_gone_when_nobody_waits(line: Line) -> None:
    line.wait(seconds=0.2).result()
    until(lambda: not line.waiting.lines)
    until(lambda: "tell-waiters" not in [thread.name for thread in threading.enumerate()])
    assert line.wait(seconds=0.1).result() == []


def test_a_server_that_cannot_block_is_not_asked_without_end(name: str) -> None:
    asked = 0

    class Counting(FakeRedis):
        def blmove(self, *_: Any, **__: Any) -> None:
            nonlocal asked
            asked += 1

    queue = ReliableQueue(FakeRedis(), name)
    made = Waiting(Counting(), 10, lambda: False)
    assert made.take(queue, 0.3, queue.take, lambda: False) == []
    assert 1 <= asked <= 16


# --- how many wait


def test_redis_is_told_how_many_wait(line: Line) -> None:
    for _ in range(3):
        line.wait()
    until(lambda: line.queue.state().waiters == 3)
    line.queue.push(b"a", b"b", b"c")
    until(lambda: line.queue.state().waiters == 0)
    assert not line.queue.client.exists(line.queue.meta + "waiters")


def test_what_redis_was_told_is_told_again_before_it_ends(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "ANNOUNCED", 0.3)
    key = line.queue.meta + "waiters"

    def valid() -> bytes:
        return b"".join(line.queue.client.hvals(key))

    line.wait()
    first = until(valid)
    assert re.fullmatch(rb"1:[0-9]{13}", first)
    until(lambda: valid() not in (b"", first))


# --- when Redis fails


def test_a_wait_on_what_is_no_list_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TICK", 0.1)
    future = line.wait()
    line.queue.client.set(line.queue.key, "text")
    for each in (future, line.wait()):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            each.result()
    assert line.queue.client.get(line.queue.key) == b"text"


def test_a_wait_whose_connection_breaks_has_taken_nothing_and_says_so(line: Line) -> None:
    futures = [line.wait(), line.wait()]
    [blocked] = line.blocked()
    line.store.client().client_kill_filter(_id=blocked["id"])
    with pytest.raises(NotSent) as caught:
        futures[0].result()
    assert from_redis(caught.value).error == "redis_away"
    line.queue.push(b"a")
    assert futures[1].result() == [b"a"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_wait_in_a_full_redis_gets_what_comes_back(own_store: Callable[..., Store], name: str, kind: str) -> None:
    line = Line(own_store(kind), name)
    line.queue.push(b"a", b"b")
    line.queue.reserve(1)
    line.queue.reserve(1000)
    line.queue.client.config_set("maxmemory", 1)
    assert line.waiting.take(line.queue, 10, line.queue.take, lambda: False) == [b"a"]
    assert line.waiting.take(line.queue, 0.5, line.queue.take, lambda: False) == []
    line.pool.shutdown()


# --- over HTTP


def ask(app: App, path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("POST", path, headers={"Content-Length": "0"})
    return connection


def answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def call(app: App, path: str) -> tuple[int, dict[str, Any]]:
    return answer(ask(app, path))


def waiters(app: App, name: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("GET", f"/api/queue/{name}/count")
    return int(answer(connection)[1]["waiters"])


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_waiting_client_is_counted_and_served(site: App, valkey: Store, name: str, verb: str) -> None:
    asked = ask(site, f"/api/queue/{name}/{verb}?wait=60")
    until(lambda: waiters(site, name) == 1)
    valkey.client().lpush(f"queue:{name}", "a")
    status, found = answer(asked)
    assert (status, found["success"], found["message"]) == (200, True, "a")
    until(lambda: waiters(site, name) == 0)


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_client_that_hung_up_takes_nothing_and_is_not_counted(site: App, valkey: Store, name: str, verb: str) -> None:
    asked = ask(site, f"/api/queue/{name}/{verb}?wait=60&max=5")
    until(lambda: waiters(site, name) == 1)
    asked.close()
    valkey.client().lpush(f"queue:{name}", "a")
    until(lambda: waiters(site, name) == 0)
    assert RedisQueue(valkey.client(), name).all() == [b"a"]
    assert ReliableQueue(valkey.client(), name).state().reserved == 0


def test_a_client_that_resets_its_connection_takes_nothing(site: App, valkey: Store, name: str) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as sock:
        sock.sendall(
            f"POST /api/queue/{name}/pop?wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        until(lambda: waiters(site, name) == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
    valkey.client().lpush(f"queue:{name}", "a")
    until(lambda: waiters(site, name) == 0)
    assert RedisQueue(valkey.client(), name).all() == [b"a"]


def test_an_empty_queue_is_answered_as_empty_after_the_wait(site: App, name: str) -> None:
    empty = {"success": False, "error": "empty", "message": "The queue is empty."}
    for verb in ("pop", "reserve"):
        assert call(site, f"/api/queue/{name}/{verb}?wait=0.1") == (200, empty)
        assert call(site, f"/api/queue/{name}/{verb}?wait=0.1&max=3") == (200, {**empty, "messages": []})


def test_too_many_waiting_clients_are_429_and_one_that_leaves_makes_room(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_WAITING="1")
    first = ask(app, f"/api/queue/{name}/pop?wait=60")
    until(lambda: waiters(app, name) == 1)
    refused = ask(app, f"/api/queue/{name}/reserve?wait=60").getresponse()
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert json.loads(refused.read())["error"] == "too_many_waiting"
    assert call(app, f"/api/queue/{name}/pop")[1]["error"] == "empty"
    first.close()
    until(lambda: waiters(app, name) == 0)
    assert call(app, f"/api/queue/{name}/pop?wait=0.1")[1]["error"] == "empty"


def test_a_redis_that_dies_while_clients_wait_is_told_and_nothing_is_taken(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    asked = [ask(app, f"/api/queue/{name}/{verb}?wait=60") for verb in ("pop", "reserve")]
    until(lambda: waiters(app, name) == 2)
    store.end(signal.SIGKILL)
    for one in asked:
        status, found = answer(one)
        assert (status, found["success"], found["error"]) == (503, False, "redis_away")
    assert call(app, f"/api/queue/{name}/pop?wait=60")[0] == 503
    store.start()
    store.client().lpush(f"queue:{name}", "a")
    assert call(app, f"/api/queue/{name}/pop?wait=60")[1] == {"success": True, "message": "a"}


def test_the_waiters_of_a_killed_worker_end_by_themselves(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    asked = ask(app, f"/api/queue/{name}/pop?wait=60")
    until(lambda: waiters(app, name) == 1)
    [worker] = app.workers()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        asked.getresponse()
    client, key = valkey.client(), f"{{queue:{name}}}:waiters"
    [(process, told)] = client.hgetall(key).items()
    number, valid = map(int, told.split(b":"))
    seconds = valid / 1000 - client.time()[0]
    assert number == 1
    assert seconds <= 31
    assert client.ttl(key) <= 60
    client.hset(key, process, f"1:{client.time()[0] * 1000 - 1}")
    until(lambda: [pid for pid in app.workers() if pid != worker])
    assert waiters(app, name) == 0
