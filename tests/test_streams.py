"""Bodies of any length: what is read from a line, what others do meanwhile, what is left when a stream breaks."""

import contextlib
import http.client
import json
import random
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from broker.reliable import ReliableQueue
from RedisQueue import RedisQueue
from tests.servers import App, FakeRedis, Proxy, Store
from web import streams
from web.errors import Refusal

LIMIT = 100  # bytes a message, in the tests without a server


@pytest.fixture
def context() -> Iterator[None]:
    app = Flask(__name__)
    app.config["MAX_MESSAGE_BYTES"] = LIMIT
    with app.app_context():
        yield


@pytest.fixture
def queue(context: None, name: str) -> ReliableQueue:
    return ReliableQueue(FakeRedis(), name)


def in_pieces(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def refused(act: Callable[[], Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


# --- lines in


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("ndjson", "body", "messages"),
    [
        (False, "a\nb\n", ["a", "b"]),
        (False, "a\r\nb\r\n", ["a", "b"]),
        (False, "a\nb", ["a", "b"]),
        (False, "\n\r\n\na\n\n\nb\n\n", ["a", "b"]),
        (False, "", []),
        (False, "\n", []),
        (False, "žluťoučký\n🐎🐎\n€", ["žluťoučký", "🐎🐎", "€"]),
        (False, ' "a" \n{"b":1}\n', [' "a" ', '{"b":1}']),
        (False, "a\rb\n\r\r\n", ["a\rb", "\r"]),
        (False, "\0\n\x1e\u2028\x85\n", ["\0", "\x1e\u2028\x85"]),
        (True, '"a"\n"b"\n', ["a", "b"]),
        (True, '"a"\r\n\r\n\n  1.10 \r\n"b"', ["a", "1.10", "b"]),
        (True, '"\\u00e9\\n\\ud83d\\udc0e"\n"🐎"\n', ["é\n🐎", "🐎"]),
        (True, '{"b": [1, 2.50, null]}\ntrue\n""\n'[:-3], ['{"b":[1,2.50,null]}', "true"]),
        (True, '{"base64": "AAE="}\n', ["\0\1"]),
    ],
)
def test_lines_are_messages_however_they_are_cut(
    queue: ReliableQueue, size: int, ndjson: bool, body: str, messages: list[str]
) -> None:
    queue.push(b"x")
    expected = [message.encode() for message in messages]
    pushed = streams.push_lines(queue, in_pieces(body.encode(), size), ndjson)
    assert pushed == (len(expected), len(expected) + 1)
    assert queue.all() == [b"x", *expected]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("ndjson", "body", "error", "line", "pushed"),
    [
        (True, b'"a"\n"b"\nnot json\n"c"\n', "bad_json", 3, 2),
        (True, b'"a"\n\n\n""\n"c"\n', "empty_message", 4, 1),
        (True, b"null\n", "empty_message", 1, 0),
        (True, b'"a"\n"\xff"\n"c"', "bad_utf8", 2, 1),
        (True, b'"a"\n"\\ud800"\n"c"', "bad_utf8", 2, 1),
        (True, b'"a"\n[1,{"a":1,"a":2}]\n', "duplicate_key", 2, 1),
        (True, b'"a"\n"b', "bad_json", 2, 1),
        (True, b'"a" "b"\n', "bad_json", 1, 0),
        (True, b"[" * 40 + b"]" * 40 + b"\n", "too_deep", 1, 0),
        (True, b'"a"\n"' + b"x" * 101 + b'"\n"c"\n', "message_too_large", 2, 1),
        (False, b"a\nb\xff\nc\n", "bad_utf8", 2, 1),
        (False, b"\xc5\n\xbe\n", "bad_utf8", 1, 0),
        (False, b"a\n\n" + b"x" * 101 + b"\nc\n", "message_too_large", 3, 1),
    ],
)
def test_a_bad_line_is_named_and_nothing_behind_it_is_stored(
    queue: ReliableQueue, size: int, ndjson: bool, body: bytes, error: str, line: int, pushed: int
) -> None:
    refusal = refused(lambda: streams.push_lines(queue, in_pieces(body, size), ndjson))
    assert (refusal.error, refusal.more["line"], refusal.more["pushed"]) == (error, line, pushed)
    assert queue.all() == [b"a", b"b"][:pushed]


@pytest.mark.parametrize("ndjson", [True, False])
def test_bad_lines_are_counted_over_many_batches(queue: ReliableQueue, ndjson: bool) -> None:
    quote = b'"' if ndjson else b""
    good = b"".join(b"%b%d%b\n" % (quote, number, quote) for number in range(5000))
    refusal = refused(lambda: streams.push_lines(queue, in_pieces(good + b"\xff\n" + good, 1 << 16), ndjson))
    assert (refusal.more["line"], refusal.more["pushed"], queue.count()) == (5001, 5000, 5000)


@pytest.mark.parametrize("ndjson", [True, False])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(queue: ReliableQueue, ndjson: bool) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'"a"\n' if ndjson else b"a\n"
        while True:
            read += 100
            yield b"x" * 100

    refusal = refused(lambda: streams.push_lines(queue, endless(), ndjson))
    assert (refusal.status, refusal.error, refusal.more["pushed"]) == (413, "message_too_large", 1)
    assert refusal.more["line"] == 2
    assert read < 10_000
    assert queue.all() == [b"a"]


def test_a_message_of_the_largest_size_passes_with_every_byte_escaped(queue: ReliableQueue) -> None:
    line = b'"' + b"\\u0001" * LIMIT + b'"'
    assert streams.push_lines(queue, in_pieces(line, 50), True) == (1, 1)
    assert queue.all() == [b"\1" * LIMIT]


def test_a_body_that_breaks_off_leaves_whole_messages_only(queue: ReliableQueue) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"a\nb\nhalf of"
        raise Refusal(400, "short_body", "The body is cut off.")

    refusal = refused(lambda: streams.push_lines(queue, breaking(), False))
    assert (refusal.error, refusal.more["pushed"]) == ("short_body", 2)
    assert queue.all() == [b"a", b"b"]


def test_when_redis_fails_half_way_the_answer_says_how_many_are_sure(valkey: Store, proxy: Proxy, name: str) -> None:
    app = Flask(__name__)
    app.config["MAX_MESSAGE_BYTES"] = LIMIT
    queue = ReliableQueue(redis.Redis.from_url(proxy.url), name)
    proxy.cut("LPUSH", skip=2, before=True)
    body = b"".join(b"%d\n" % number for number in range(10_000))
    with app.app_context():
        refusal = refused(lambda: streams.push_lines(queue, in_pieces(body, 8000), False))
    pushed = refusal.more["pushed"]
    assert refusal.status == 503
    assert 0 < pushed < 10_000
    assert RedisQueue(valkey.client(), name).all() == [b"%d" % number for number in range(pushed)]


# --- a walk while others push and pop


class Meddled:
    """A client that lets others do something before each of its commands."""

    def __init__(self, client: Any, meddle: Callable[[], None]) -> None:
        self.client, self.meddle = client, meddle

    def __getattr__(self, name: str) -> Any:
        self.meddle()
        return getattr(self.client, name)


def flat(pieces: Iterable[list[bytes]]) -> list[bytes]:
    return [message for piece in pieces for message in piece]


def texts(count: int, start: int = 0) -> list[bytes]:
    return [b"m%d" % number for number in range(start, start + count)]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 144, 145, 3000])
@pytest.mark.parametrize(("offset", "limit"), [(0, None), (0, 20), (5, None), (5, 7), (10**6, None), (3, 10**6)])
def test_a_walk_is_the_queue(queue: ReliableQueue, count: int, offset: int, limit: int | None) -> None:
    queue.push(*texts(count))
    expected = texts(count)[offset : None if limit is None else offset + limit]
    assert flat(streams.walk(queue, offset, limit)) == expected


def test_a_walk_over_equal_messages_counts_them(queue: ReliableQueue) -> None:
    queue.push(*[b"same"] * 2500)
    assert flat(streams.walk(queue)) == [b"same"] * 2500


@pytest.mark.parametrize(
    "meddle",
    [
        lambda raw, number: raw.pop(10),
        lambda raw, number: raw.pop(200),
        lambda raw, number: raw.pop(10_000) and raw.push(*texts(10, 10_000 * number)),
        lambda raw, number: raw.push(*texts(300, 10_000 * number)),
        lambda raw, number: raw.push(*texts(1, 10_000 * number), next=True),
        lambda raw, number: raw.push(*texts(500, 10_000 * number), next=True),
        lambda raw, number: raw.push(*texts(5000, 10_000 * number), next=True),
        lambda raw, number: raw.client.lset(raw.key, -15, "marked") and raw.client.lrem(raw.key, -1, "marked"),
        lambda raw, number: raw.client.lset(raw.key, -16, "marked") and raw.client.lrem(raw.key, -1, "marked"),
        lambda raw, number: raw.push(*raw.pop(100)[50:], next=True),
    ],
    ids=["pops", "many pops", "all popped", "pushes", "one put back", "put back", "many put back", "removed",
         "last removed", "popped and put back"],
)  # fmt: skip
@pytest.mark.parametrize("before", range(1, 5))
def test_one_act_of_another_makes_a_walk_neither_skip_nor_double(
    queue: ReliableQueue, meddle: Callable[[RedisQueue, int], Any], before: int
) -> None:
    """The act comes before the walk's command number `before`."""
    raw, number = RedisQueue(queue.client, queue.name), 0

    def act() -> None:
        nonlocal number
        number += 1
        if number == before:
            meddle(raw, number)

    raw.push(*texts(1000))
    check_walk(raw, act)


def check_walk(raw: RedisQueue, meddle: Callable[[], None]) -> None:
    """Walk a queue of unique messages; each that waits all the while must be seen once, in order."""
    stayed = set(raw.all())

    def watched() -> None:
        meddle()
        stayed.intersection_update(raw.all())

    seen = flat(streams.walk(RedisQueue(Meddled(raw.client, watched), raw.name)))
    assert [message for message in seen if message in stayed] == [m for m in raw.all() if m in stayed]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_others_do_a_walk_neither_skips_nor_doubles(queue: ReliableQueue, seed: int) -> None:
    dice, raw, new = random.Random(seed), RedisQueue(queue.client, queue.name), iter(range(10_000, 10**9))

    def some() -> list[bytes]:
        return [b"m%d" % next(new) for _ in range(dice.choice([1, 3, 40, 300, 1500]))]

    def meddle() -> None:
        for _ in range(dice.randrange(3)):
            what = dice.randrange(5)
            if what < 2:
                raw.pop(dice.choice([1, 5, 50, 400]))
            elif what == 2:
                raw.push(*some())
            elif what == 3:
                raw.push(*some(), next=True)
            elif length := raw.count():
                raw.client.lset(raw.key, dice.randrange(length), "marked")
                raw.client.lrem(raw.key, 1, "marked")

    raw.push(*texts(dice.choice([50, 1000, 4000])))
    check_walk(raw, meddle)


def test_a_walk_beside_busy_clients_sees_every_message_that_stays(valkey: Store, name: str) -> None:
    raw = RedisQueue(valkey.client(), name)
    raw.push(*texts(5000))  # these are popped meanwhile
    stay = [b"stay%d" % number for number in range(20_000)]
    for start in range(0, 20_000, 1000):
        raw.push(*stay[start : start + 1000])
    done = threading.Event()

    def consumer() -> None:
        mine = RedisQueue(valkey.client(), name)
        for _ in range(4900):
            if done.is_set():
                return
            found = mine.pop()
            if found and found[0].startswith(b"stay"):
                mine.push(*found, next=True)
                return

    def producer() -> None:
        mine = RedisQueue(valkey.client(), name)
        for number in range(5000):
            if done.is_set():
                return
            mine.push(b"new%d" % number)

    threads = [threading.Thread(target=target) for target in (consumer, producer)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            seen = flat(streams.walk(RedisQueue(valkey.client(), name)))
            assert [message for message in seen if message.startswith(b"stay")] == stay
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("small", [0, 2000])
def test_a_walk_of_large_messages_holds_few_at_once(valkey: Store, name: str, small: int) -> None:
    queue = RedisQueue(valkey.client(), name)
    if small:
        queue.push(*texts(small))
    for number in range(40):
        queue.push(b"%d" % number * (1 << 19))
    pieces = list(streams.walk(queue))
    assert max(map(len, pieces)) <= 1000
    sizes = [sum(map(len, piece)) for piece in pieces]
    assert sum(sizes) > 30 << 20
    if not small:
        assert max(sizes) <= 16 << 20
        assert max(sizes[1:]) <= 2 << 20
    queue.pop(small + 40)


# --- answers out


def test_pieces_that_came_out_empty_leave_the_json_whole() -> None:
    cases: list[list[list[str]]] = [[[], ["a"]], [["a"], []], [["a"], [], ["b"]], [[], []], []]
    for pieces in cases:
        text = "".join(streams.as_json(pieces, {"count": 3}))
        expected = [value for piece in pieces for value in piece]
        assert json.loads(text) == {"success": True, "messages": expected, "count": 3}


def test_a_preview_of_a_queue_that_shrinks_is_whole_json(queue: ReliableQueue) -> None:
    queue.push(*texts(1500))
    pieces = streams.previews(queue, 0, 1500, 5)
    text = ""
    for part in streams.as_json(pieces, {"count": 1500}):
        text += part
        queue.client.rpop(queue.key, 600)
    assert json.loads(text)["success"] is True


# --- over HTTP


def post(site: App, path: str, body: Any, kind: str = "application/x-ndjson") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, json.load(response)


def get(site: App, path: str, accept: str = "*/*") -> http.client.HTTPResponse:
    request = urllib.request.Request(site.url + path, headers={"Accept": accept})
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return response


def test_a_stream_is_pushed_and_comes_back_as_one(site: App, name: str) -> None:
    values = ["a", "žluťoučký\n🐎", "\x00\x7f\u2028", "1.10", '{"a":1}', " "] * 300
    body = "".join(json.dumps(value) + "\n" for value in values).encode()
    status, answer = post(site, f"/api/queue/{name}/push", iter(in_pieces(body, 777)))
    assert (status, answer) == (200, {"success": True, "pushed": 1800, "count": 1800})
    assert json.load(get(site, f"/api/queue/{name}/all"))["messages"] == values
    out = get(site, f"/api/queue/{name}/all", "application/x-ndjson")
    assert out.headers["Content-Type"] == "application/x-ndjson"
    lines = out.read()
    assert [json.loads(line) for line in lines.decode().split("\n")[:-1]] == values
    assert post(site, f"/api/queue/{name}x/push", lines)[1]["pushed"] == 1800
    assert get(site, f"/api/queue/{name}x/all", "application/x-ndjson").read() == lines


def test_binary_messages_come_back_through_ndjson(site: App, valkey: Store, name: str) -> None:
    messages = [bytes([number]) * 3 for number in range(256)]
    RedisQueue(valkey.client(), name).push(*messages)
    lines = get(site, f"/api/queue/{name}/all", "application/x-ndjson").read()
    assert post(site, f"/api/queue/{name}x/push", lines)[1]["pushed"] == 256
    assert RedisQueue(valkey.client(), name + "x").all() == messages


def test_text_is_pushed_a_message_a_line(site: App, valkey: Store, name: str) -> None:
    status, answer = post(site, f"/api/queue/{name}/push?each=line", b"a\r\n\r\nb\nc", "text/plain")
    assert (status, answer) == (200, {"success": True, "pushed": 3, "count": 3})
    assert RedisQueue(valkey.client(), name).all() == [b"a", b"b", b"c"]


def test_an_empty_stream_pushes_nothing_and_is_no_failure(site: App, name: str) -> None:
    assert post(site, f"/api/queue/{name}/push", b"") == (200, {"success": True, "pushed": 0, "count": 0})


@pytest.mark.parametrize("headers", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("count", [3, 30_000])
def test_a_stream_cut_half_way_stores_whole_messages_and_says_how_many(
    site: App, valkey: Store, name: str, headers: str, count: int
) -> None:
    body = b"".join(b'"%d"\n' % number for number in range(count)) + b'"half of'
    if "chunked" in headers:
        body = b"%x\r\n%b\r\n" % (len(body), body)
    head = f"POST /api/queue/{name}/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as sock:
        sock.sendall(f"{head}{headers}\r\n\r\n".encode() + body)
        sock.shutdown(socket.SHUT_WR)
        reply = sock.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 400 ")
    answer = json.loads(reply.partition(b"\r\n\r\n")[2])
    stored = RedisQueue(valkey.client(), name).all()
    assert (answer["success"], answer["error"], answer["pushed"]) == (False, "short_body", len(stored))
    assert stored == [b"%d" % number for number in range(len(stored))]
    assert len(stored) == count or "chunked" in headers
    assert count < 1000 or len(stored) > 10_000


def test_a_line_that_is_too_long_is_413_with_the_limit(site: App, valkey: Store, name: str) -> None:
    for body, kind, line in [
        (b'"a"\n"' + b"x" * ((1 << 20) + 1) + b'"\n', "application/x-ndjson", 2),
        (b'"a"\n"' + b"x" * (8 << 20), "application/x-ndjson", 2),
        (b"a\n" + b"x" * ((1 << 20) + 1) + b"\n", "text/plain", 2),
    ]:
        each = "?each=line" if kind == "text/plain" else ""
        status, answer = post(site, f"/api/queue/{name}/push{each}", body, kind)
        assert (status, answer["error"], answer["pushed"], answer["line"]) == (413, "message_too_large", 1, line)
    assert RedisQueue(valkey.client(), name).all() == [b"a"] * 3


def test_next_and_idempotency_key_do_not_go_with_a_stream(site: App, name: str) -> None:
    assert post(site, f"/api/queue/{name}/push?next=1", b'"a"\n')[0] == 400
    assert json.load(get(site, f"/api/queue/{name}/count"))["count"] == 0


def peak(worker: int) -> int:
    """Return the most memory a process ever had, in bytes."""
    [line] = [line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_a_million_messages_pass_in_constant_memory(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    [worker] = app.workers()
    get(app, f"/api/queue/{name}/all").read()
    before = peak(worker)

    values = [b'"message %d"' % number for number in range(1_000_000)]
    lines = b"\n".join(values) + b"\n"
    status, answer = post(app, f"/api/queue/{name}/push", in_pieces(lines, 1 << 16))
    assert (status, answer["pushed"], answer["count"]) == (200, 1_000_000, 1_000_000)
    assert get(app, f"/api/queue/{name}/all", "application/x-ndjson").read() == lines
    whole = b'{"success":true,"messages":[' + b",".join(values) + b'],"count":1000000}\n'
    assert get(app, f"/api/queue/{name}/all").read() == whole
    assert peak(worker) - before < 60 << 20

    check_windows(app, store, name)


def check_windows(app: App, store: Store, name: str) -> None:
    """At a depth of 1,000,000 a window asks Redis for the window only, wherever it lies."""
    client = store.client()
    for offset in (0, 500_000, 999_990):
        client.config_resetstat()
        answer = json.load(get(app, f"/api/queue/{name}/all?offset={offset}&limit=10"))
        assert answer["messages"] == [f"message {number}" for number in range(offset, offset + 10)]
        assert answer["count"] == 1_000_000
        assert client.info("stats")["total_net_output_bytes"] < 20_000
        client.config_resetstat()
        answer = json.load(get(app, f"/api/queue/{name}/all?offset={offset}&limit=10&preview=9"))
        assert answer["messages"][9] == {
            "preview": "message " + str(offset + 9)[:1],
            "bytes": len(f"message {offset + 9}"),
        }
        assert client.info("stats")["total_net_output_bytes"] < 20_000
        stats = client.info("commandstats")
        assert {name for name in stats if name.startswith(("cmdstat_l", "cmdstat_eval"))} <= {
            "cmdstat_lrange", "cmdstat_llen", "cmdstat_evalsha", "cmdstat_latency",
        }  # fmt: skip


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_when_redis_dies_in_the_middle_the_answer_does_not_end_well(
    valkey: Store, serve: Callable[..., App], accept: str, name: str
) -> None:
    proxy = Proxy(valkey.port)
    app = serve(REDIS_URL=proxy.url, WEB_CONCURRENCY="1")
    queue = RedisQueue(valkey.client(), name)
    queue.push(*[b"%1000d" % number for number in range(8000)])
    proxy.cut("LRANGE", skip=3)
    out = get(app, f"/api/queue/{name}/all", accept)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        out.read()
    assert json.load(get(app, f"/api/queue/{name}/count"))["count"] == 8000
    proxy.end()


def test_when_redis_is_away_at_once_the_answer_says_so(serve: Callable[..., App], name: str) -> None:
    app = serve(REDIS_URL="redis://127.0.0.1:1/0", WEB_CONCURRENCY="1")
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(app, f"/api/queue/{name}/all", "application/x-ndjson")
    assert (caught.value.code, json.load(caught.value)["error"]) == (503, "redis_away")
    status, answer = post(app, f"/api/queue/{name}/push", b'"a"\n')
    assert (status, answer["error"], answer["pushed"]) == (503, "redis_away", 0)
