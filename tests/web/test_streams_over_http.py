"""Streams in and out over HTTP: a million messages in constant memory, and what an aborted stream leaves behind."""

import contextlib
import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from RedisQueue import RedisQueue
from tests.servers import App, Proxy, Store
from tests.web.helpers import JSON, NDJSON, TEXT, in_blocks


def post(
    site: App, path: str, body: Any, kind: str = NDJSON, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind, **(headers or {})})
    with contextlib.closing(connection), connection.getresponse() as response:
        return response.status, json.load(response)


def get(site: App, path: str, accept: str = "*/*") -> http.client.HTTPResponse:
    request = urllib.request.Request(site.url + path, headers={"Accept": accept})
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=60)
    return response


def test_a_pushed_stream_comes_back_as_a_stream(site: App, name: str) -> None:
    values = ["a", "žluťoučký\n🐎", "\x00\x7f\u2028", "1.10", '{"a":1}', " "] * 300
    body = "".join(json.dumps(value) + "\n" for value in values).encode()
    status, answer = post(site, f"/api/queue/{name}/push", iter(in_blocks(body, 777)))
    assert (status, answer) == (200, {"success": True, "pushed": 1800, "count": 1800})
    assert json.load(get(site, f"/api/queue/{name}/all"))["messages"] == values
    out = get(site, f"/api/queue/{name}/all", NDJSON)
    assert out.headers["Content-Type"] == NDJSON
    lines = out.read()
    assert [json.loads(line) for line in lines.decode().split("\n")[:-1]] == values
    assert post(site, f"/api/queue/{name}x/push", lines)[1]["pushed"] == 1800
    assert get(site, f"/api/queue/{name}x/all", NDJSON).read() == lines


def test_binary_messages_survive_ndjson(site: App, valkey: Store, name: str) -> None:
    messages = [bytes([number]) * 3 for number in range(256)]
    RedisQueue(valkey.client(), name).push(*messages)
    lines = get(site, f"/api/queue/{name}/all", NDJSON).read()
    assert post(site, f"/api/queue/{name}x/push", lines)[1]["pushed"] == 256
    assert RedisQueue(valkey.client(), name + "x").all() == messages


def test_each_line_of_text_is_a_message(site: App, valkey: Store, name: str) -> None:
    status, answer = post(site, f"/api/queue/{name}/push?each=line", b"a\r\n\r\nb\nc", TEXT)
    assert (status, answer) == (200, {"success": True, "pushed": 3, "count": 3})
    assert RedisQueue(valkey.client(), name).all() == [b"a", b"b", b"c"]


def test_an_empty_stream_succeeds_and_pushes_nothing(site: App, name: str) -> None:
    assert post(site, f"/api/queue/{name}/push", b"") == (200, {"success": True, "pushed": 0, "count": 0})


@pytest.mark.parametrize("headers", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("count", [3, 30_000])
def test_an_incomplete_stream_stores_its_complete_lines_and_answers_their_number(
    site: App, valkey: Store, name: str, headers: str, count: int
) -> None:
    body = b"".join(b'"%d"\n' % number for number in range(count)) + b'"half of'
    if "chunked" in headers:
        body = b"%x\r\n%b\r\n" % (len(body), body)
    head = f"POST /api/queue/{name}/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as sock:
        sock.sendall(f"{head}{headers}\r\n\r\n".encode() + body)
        sock.shutdown(socket.SHUT_WR)
        reply = sock.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 400 ")
    answer = json.loads(reply.partition(b"\r\n\r\n")[2])
    stored = RedisQueue(valkey.client(), name).all()
    assert (answer["success"], answer["error"], answer["pushed"]) == (False, "incomplete_body", len(stored))
    assert stored == [b"%d" % number for number in range(len(stored))]
    assert len(stored) == count or "chunked" in headers
    assert count < 1000 or len(stored) > 10_000


def test_a_line_that_is_too_long_is_refused_with_its_number(site: App, valkey: Store, name: str) -> None:
    for body, kind, line in [
        (b'"a"\n"' + b"x" * ((1 << 20) + 1) + b'"\n', NDJSON, 2),
        (b'"a"\n"' + b"x" * (8 << 20), NDJSON, 2),
        (b"a\n" + b"x" * ((1 << 20) + 1) + b"\n", TEXT, 2),
    ]:
        each = "?each=line" if kind == TEXT else ""
        status, answer = post(site, f"/api/queue/{name}/push{each}", body, kind)
        assert (status, answer["error"], answer["pushed"], answer["line"]) == (413, "message_too_large", 1, line)
    assert RedisQueue(valkey.client(), name).all() == [b"a"] * 3


def test_a_stream_refuses_front_and_an_idempotency_key(site: App, name: str) -> None:
    status, answer = post(site, f"/api/queue/{name}/push?front=1", b'"a"\n')
    assert (status, answer["error"]) == (400, "bad_parameter")
    status, answer = post(site, f"/api/queue/{name}/push", b'"a"\n', headers={"Idempotency-Key": "key"})
    assert (status, answer["error"]) == (400, "bad_idempotency_key")
    assert json.load(get(site, f"/api/queue/{name}/count"))["count"] == 0


def max_memory(worker: int) -> int:
    """Return the largest memory that a process has used, in bytes."""
    [line] = [line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.slow
def test_a_million_messages_pass_in_constant_memory(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store()
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    [worker] = app.workers()
    get(app, f"/api/queue/{name}/all").read()
    before = max_memory(worker)

    values = [b'"message %d"' % number for number in range(1_000_000)]
    lines = b"\n".join(values) + b"\n"
    status, answer = post(app, f"/api/queue/{name}/push", in_blocks(lines, 1 << 16))
    assert (status, answer["pushed"], answer["count"]) == (200, 1_000_000, 1_000_000)
    assert get(app, f"/api/queue/{name}/all", NDJSON).read() == lines
    whole = b'{"success":true,"messages":[' + b",".join(values) + b'],"count":1000000}\n'
    assert get(app, f"/api/queue/{name}/all").read() == whole
    assert max_memory(worker) - before < 60 << 20

    check_windows(app, store, name)


def check_windows(app: App, store: Store, name: str) -> None:
    """At a depth of 1,000,000, a window reads only its own messages from Redis, at any offset."""
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


@pytest.mark.slow
def test_an_answer_is_aborted_when_redis_fails_half_way(
    valkey: Store, proxy: Proxy, serve: Callable[..., App], name: str
) -> None:
    app = serve(REDIS_URL=proxy.url, WEB_CONCURRENCY="1")
    queue = RedisQueue(valkey.client(), name)
    queue.push(*[b"%1000d" % number for number in range(8000)])
    for accept in (JSON, NDJSON):
        proxy.cut("LRANGE", skip=3)
        out = get(app, f"/api/queue/{name}/all", accept)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            out.read()
        assert json.load(get(app, f"/api/queue/{name}/count"))["count"] == 8000


@pytest.mark.slow
def test_a_stream_answers_an_error_when_redis_is_unavailable_from_the_start(
    serve: Callable[..., App], name: str
) -> None:
    app = serve(REDIS_URL="redis://127.0.0.1:1/0", WEB_CONCURRENCY="1")
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(app, f"/api/queue/{name}/all", NDJSON)
    assert (caught.value.code, json.load(caught.value)["error"]) == (503, "redis_unavailable")
    status, answer = post(app, f"/api/queue/{name}/push", b'"a"\n')
    assert (status, answer["error"], answer["pushed"]) == (503, "redis_unavailable", 0)
