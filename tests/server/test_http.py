"""Raw HTTP requests to gunicorn: valid, truncated, malformed and hostile ones."""

import contextlib
import http.client
import io
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import App, Store

FORM = "application/x-www-form-urlencoded"
MIB = 1 << 20


class Answer:
    """An HTTP response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Unclosed(io.BufferedReader):
    """A reader that stays open after a response, for the next one."""

    def close(self) -> None:
        pass


class Wire:
    """A connection to the app: bytes out, responses in."""

    def __init__(self, app: App) -> None:
        self.sock = socket.create_connection(("127.0.0.1", app.port), timeout=20)
        self.reader = Unclosed(socket.SocketIO(self.sock, "r"))

    def makefile(self, mode: str) -> Unclosed:
        return self.reader

    def send(self, data: bytes) -> "Wire":
        self.sock.sendall(data)
        return self

    def half_close(self) -> "Wire":
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def answer(self, method: str = "POST") -> Answer:
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]  # needs makefile only
        response.begin()
        return Answer(response)

    def rest(self) -> bytes:
        """Return the bytes that arrive until the app closes the connection."""
        return self.reader.read()


@pytest.fixture
def wire(site: App) -> Iterator[Wire]:
    made = Wire(site)
    with made.sock:
        yield made


def head(path: str, *headers: str, method: str = "POST", host: str = "localhost", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def push(name: str, *headers: str) -> bytes:
    return head(f"/api/queue/{name}/push", f"Content-Type: {FORM}", *headers)


def waiting(store: Store, name: str) -> list[bytes]:
    found: list[bytes] = store.client().lrange(f"queue:{name}", 0, -1)
    return found[::-1]


def keys(store: Store) -> dict[bytes, bytes]:
    """Return everything in the store except the numbers of waiting clients, which expire."""
    client = store.client()
    return {key: client.dump(key) for key in client.scan_iter() if not key.endswith(b":waiters")}


def test_curl_as_the_readme_shows_it(site: App, name: str) -> None:
    def curl(*arguments: str) -> Any:
        done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)

    url = f"{site.url}/api/queue/{name}"
    assert curl("-d", "message=hello", url + "/push") == {"success": True, "message": "hello", "count": 1}
    assert curl("-d", '{"messages": ["a", 1.10]}', url + "/push") == {"success": True, "pushed": 2, "count": 3}
    assert curl(url + "/all")["messages"] == ["hello", "a", "1.10"]
    assert curl("-d", "max=2", url + "/pop")["messages"] == ["hello", "a"]
    assert curl("-X", "POST", url + "/pop") == {"success": True, "message": "1.10"}


# --- bodies


def test_a_body_shorter_than_its_content_length_is_refused(wire: Wire, valkey: Store, name: str) -> None:
    answer = wire.send(push(name, "Content-Length: 99") + b"message=abcdefg").half_close().answer()
    assert (answer.status, answer.json["success"], answer.json["error"]) == (400, False, "incomplete_body")
    assert waiting(valkey, name) == []


def test_chunks_form_one_body(wire: Wire, valkey: Store, name: str) -> None:
    chunks = b"5\r\nmessa\r\n3;ext=1\r\nge=\r\n001\r\na\r\n0\r\nX-Trailer: x\r\n\r\n"
    answer = wire.send(push(name, "Transfer-Encoding: chunked") + chunks).answer()
    assert (answer.json, waiting(valkey, name)) == ({"success": True, "message": "a", "count": 1}, [b"a"])


@pytest.mark.parametrize(
    "chunks",
    [
        b"9\r\nmessage=a\r\nzz\r\n",
        b"zz\r\nmessage=a\r\n0\r\n\r\n",
        b"9\r\nmessage=a\r\n",
        b"9\r\nmessage",
        b"",
        b"\r\n",
        b"-9\r\nmessage=a\r\n0\r\n\r\n",
        b"+9\r\nmessage=a\r\n0\r\n\r\n",
        b"0x9\r\nmessage=a\r\n0\r\n\r\n",
        b"0_9\r\nmessage=a\r\n0\r\n\r\n",
        b" 9\r\nmessage=a\r\n0\r\n\r\n",
        b"9\nmessage=a\n0\n\n",
        b"9\r\nmessage=aXX0\r\n\r\n",
        b"9\r\nmessage=abc\r\n0\r\n\r\n",
        b"99999999999999999999\r\nmessage=a\r\n0\r\n\r\n",
        b"9" * 5000 + b"\r\nmessage=a\r\n0\r\n\r\n",
    ],
    ids=lambda chunks: repr(chunks)[:30],
)
def test_malformed_chunks_are_refused(site: App, wire: Wire, valkey: Store, name: str, chunks: bytes) -> None:
    smuggled = push(name, "Content-Length: 17") + b"message=smuggled!"
    wire.send(push(name, "Transfer-Encoding: chunked") + chunks + smuggled).half_close()
    answer = wire.answer()
    assert answer.status == 400
    assert b"200 OK" not in wire.rest()
    assert waiting(valkey, name) == []


def test_bytes_after_malformed_chunks_are_not_read_as_a_request(wire: Wire, valkey: Store, name: str) -> None:
    wire.send(push(name, "Transfer-Encoding: chunked") + b"zz\r\n")
    assert wire.answer().status == 400
    with contextlib.suppress(OSError):
        wire.send(push(name, "Content-Length: 9") + b"message=a").half_close()
        assert wire.rest() == b""
    assert waiting(valkey, name) == []


@pytest.mark.parametrize("close", ["Connection: keep-alive", "Connection: close"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_client_can_read_why_its_large_body_is_refused(
    wire: Wire, valkey: Store, name: str, close: str, chunked: bool
) -> None:
    large = b"x" * (40 * MIB)  # far more than socket buffers hold
    if chunked:
        wire.send(push(name, close, "Transfer-Encoding: chunked") + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n")
    else:
        wire.send(push(name, close, f"Content-Length: {len(large)}") + large)
    answer = wire.answer()
    assert (answer.status, answer.json["error"], answer.json["limit"]) == (413, "body_too_large", 16 * MIB)
    assert waiting(valkey, name) == []
    if close == "Connection: keep-alive":
        wire.send(head(f"/api/queue/{name}/count", method="GET"))
        assert wire.answer("GET").json["count"] == 0


@pytest.mark.parametrize("cause", ["an untrusted host", "a cross-site request", "an unknown path", "a wrong method"])
def test_a_client_that_is_still_sending_can_read_every_error(wire: Wire, name: str, cause: str) -> None:
    size = 20 * MIB
    rest = ["Connection: close", f"Content-Length: {size}"]
    heads = {
        "an untrusted host": (400, head(f"/api/queue/{name}/push", *rest, host="evil.example")),
        "a cross-site request": (403, push(name, *rest, "Sec-Fetch-Site: cross-site")),
        "an unknown path": (404, head("/api/nothing", *rest)),
        "a wrong method": (405, head(f"/api/queue/{name}/push", *rest, method="PUT")),
    }
    status, start = heads[cause]
    answer = wire.send(start + b"x" * size).answer()
    assert (answer.status, answer.json["success"]) == (status, False)


def test_a_body_with_a_too_large_content_length_is_refused_before_it_is_sent(wire: Wire, name: str) -> None:
    answer = wire.send(push(name, f"Content-Length: {17 * MIB}")).answer()
    assert answer.status == 413


def test_expect_100_continue_is_answered(wire: Wire, name: str) -> None:
    wire.send(push(name, "Content-Length: 9", "Expect: 100-continue"))
    assert wire.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.send(b"message=a").answer().json["message"] == "a"


def test_a_body_can_arrive_a_byte_at_a_time(wire: Wire, name: str) -> None:
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in push(name, "Content-Length: 9") + b"message=a":
        wire.send(bytes([byte]))
    assert wire.answer().json["message"] == "a"


def test_pipelined_requests_are_answered_in_order(wire: Wire, name: str) -> None:
    for letter in (b"a", b"b", b"c"):
        wire.send(push(name, "Content-Length: 9") + b"message=" + letter)
    wire.send(head(f"/api/queue/{name}/all", method="GET"))
    assert [wire.answer().json["message"] for _ in range(3)] == ["a", "b", "c"]
    assert wire.answer("GET").json["messages"] == ["a", "b", "c"]


def test_an_unread_body_is_not_taken_for_the_next_request(wire: Wire, valkey: Store, name: str) -> None:
    inner = push(name, "Content-Length: 9") + b"message=a"
    wire.send(head(f"/api/queue/{name}/count", f"Content-Length: {len(inner)}", method="GET") + inner)
    wire.send(head("/api/nothing", f"Content-Length: {len(inner)}") + inner)
    wire.send(head(f"/api/queue/{name}/count", "Connection: close", method="GET"))
    assert [wire.answer("GET").status, wire.answer().status, wire.answer("GET").status] == [200, 404, 200]
    assert (wire.rest(), waiting(valkey, name)) == (b"", [])


# --- requests


def test_head_has_no_body(wire: Wire, name: str) -> None:
    for operation in ("count", "all"):
        answer = wire.send(head(f"/api/queue/{name}/{operation}", method="HEAD")).answer("HEAD")
        assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


def test_options_and_405_list_the_allowed_methods(wire: Wire, name: str) -> None:
    path = f"/api/queue/{name}/push"
    options = wire.send(head(path, method="OPTIONS")).answer("OPTIONS")
    other = wire.send(head(path, method="GET")).answer("GET")
    assert (options.status, other.status) == (200, 405)
    for answer in (options, other):
        assert sorted(answer.headers["Allow"].split(", ")) == ["OPTIONS", "POST"]


def test_a_request_without_host_is_refused(wire: Wire) -> None:
    answer = wire.send(b"GET /api/queue/count HTTP/1.1\r\n\r\n").answer("GET")
    assert (answer.status, answer.json["error"]) == (400, "untrusted_host")


@pytest.mark.parametrize("target", ["http://localhost", "http://evil.example", "HTTP://x:1"])
def test_an_absolute_target_does_not_change_the_host(site: App, name: str, target: str) -> None:
    path = f"{target}/api/queue/{name}/count"
    for host, status in (("localhost", 200), ("evil.example", 400)):
        wire = Wire(site)
        with wire.sock:
            assert wire.send(head(path, method="GET", host=host)).answer("GET").status == status


def test_headers_of_a_proxy_are_ignored_from_a_client(wire: Wire, name: str) -> None:
    headers = ["SCRIPT_NAME: /x", "PATH_INFO: /api/queue/other/count", "X-Forwarded-Host: evil", "Forwarded: host=evil"]
    answer = wire.send(head(f"/api/queue/{name}/count", *headers, method="GET")).answer("GET")
    assert (answer.status, answer.json["count"]) == (200, 0)


# --- hostile

NAME = "hostile"
PATH = f"/api/queue/{NAME}"
BODIES = [
    b"",
    b"{",
    b"[]",
    b'{"message"',
    b'{"message": NaN}',
    b'{"message": "\\ud800"}',
    b'{"message": "\xff"}',
    b'{"message": ""}',
    b'{"message": null}',
    b'{"message": 1, "message": 2}',
    b'{"messages": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}',
    b"[" * 100_000,
    b'{"message":' * 50_000,
    b'{"message": {"base64": "%%%"}}',
    b"message=%FF",
    b"message=a&message=b",
    b"&" * 5000,
    b"\x00" * 100,
    b"--x\r\nContent-Disposition: form-data; name=message\r\n\r\na\r\n--x--",
]
TYPES = ["application/json", FORM, "multipart/form-data; boundary=x", "text/xml", ""]
HOSTILE: list[bytes] = [
    *[
        head(f"{PATH}/push", f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
        for kind in TYPES
        for body in BODIES
    ],
    *[head(f"{PATH}/pop{query}", "Content-Length: 0") for query in ("?max=0", "?max=x", "?max=1&max=2", "?wait=-1")],
    *[head(f"{PATH}/pop{query}", "Content-Length: 0") for query in ("?wait=nan", "?wait=inf", "?wait=1e9", "?max=%FF")],
    *[head(f"/api/queue/{name}/pop") for name in ("%00", "%2F", "a%2Fb", "..%2F", "%FF", "%F0%9F%90%8E", "x" * 129)],
    *[head(f"/api/queue/{name}/pop") for name in ("", "a%0D%0AX:y", "a%20b", "*", "{a}", "%25", "a;b", "a,b")],
    *[head(path, method="GET") for path in ("/%2e%2e/%2e%2e/etc/passwd", "/static/..%2fapp.py", "/static/%00")],
    *[head(path, method="GET") for path in ("//", "/?" + "a=b&" * 900, "/q/%00", "/q/" + "x" * 3000, "/%zz%")],
    *[head(f"{PATH}/pop", method=method) for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW")],
    *[head(f"{PATH}/pop", f"Origin: {origin}") for origin in ("null", "http://evil.example", "http://[", "", "://")],
    *[head(f"{PATH}/pop", f"Sec-Fetch-Site: {site}") for site in ("cross-site", "same-site", "", "\xff")],
    *[
        head(f"{PATH}/pop", host=host)
        for host in ("evil.example", "", ".", "localhost:99999999", "[::1", "\xff", "a b")
    ],
    *[head(f"{PATH}/pop", f"Idempotency-Key: {key}") for key in ("", "\xff", "x" * 256, "a b")],
    head(f"{PATH}/pop", "Content-Type: application/json", "Content-Length: 2") + b"[]",
    head(f"{PATH}/pop", "Content-Type: text/plain", "Content-Length: 2") + b"no",
    head(f"{PATH}/pop", "Content-Encoding: gzip", f"Content-Type: {FORM}", "Content-Length: 5") + b"max=1",
    head(f"{PATH}/push", "Transfer-Encoding: gzip, chunked", f"Content-Type: {FORM}") + b"9\r\nmessage=a\r\n0\r\n\r\n",
    head(f"{PATH}/push", "Transfer-Encoding: chunked", "Content-Length: 9") + b"9\r\nmessage=a\r\n0\r\n\r\n",
    head(f"{PATH}/push", "Transfer-Encoding: xchunked", f"Content-Type: {FORM}") + b"9\r\nmessage=a\r\n0\r\n\r\n",
    *[push(NAME, f"Content-Length: {size}") + b"message=a" for size in ("-1", "+9", "9, 9", "0x9", "9" * 400, "nine")],
    push(NAME, "Content-Length: 9", "Content-Length: 10") + b"message=a",
    push(NAME, "Content-Length: 9", "X: " + "x" * 20_000) + b"message=a",
    push(NAME, "Content-Length: 9", *["X: x"] * 500) + b"message=a",
    push(NAME, "Content-Length: 9", "No colon") + b"message=a",
    push(NAME, "Content-Length: 9", " folded: line") + b"message=a",
    push(NAME, "Content-Length : 9") + b"message=a",
    push(NAME, "Content-Length: 9", "X\0: x") + b"message=a",
    push(NAME, "Content-Length: 9", "Expect: the unexpected") + b"message=a",
    head(f"{PATH}/push?front=maybe", f"Content-Type: {FORM}", "Content-Length: 9") + b"message=a",
    head(f"{PATH}/push", "Content-Type: text/plain; charset=utf-16", "Content-Length: 2") + b"aa",
    head(f"{PATH}/push", "Content-Type: " + ";" * 1000, "Content-Length: 2") + b"aa",
    head(f"{PATH}/push", "Content-Length: 9") + b"message=a",
    head(f"{PATH}/all", "Accept: " + ",;=*/" * 500, method="GET"),
    head(f"{PATH}/all?offset=-1&limit=99999999999999999999", method="GET"),
    head(f"{PATH}/count", "Cookie: " + "=;" * 500, "Authorization: Basic \xff", method="GET"),
    head(f"{PATH}/count", "Range: bytes=0-0,5-", "If-None-Match: *", method="GET"),
    head(f"{PATH}/pop", version="9.9"),
    head(f"{PATH}/pop", version="0.9"),
    b"GET\r\n\r\n",
    b"POST /api/queue/hostile/pop\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x00\x75\x01\x00\x00\x71\x03" + b"x" * 200,
    b"*1\r\n$8\r\nFLUSHALL\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "POST /api/queue/žluťoučký/pop HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    b"\0" * 10_000,
]


def statuses(site: App, data: bytes) -> list[int]:
    """Send bytes, close the sending side, and return the status of each response."""
    found, wire = b"", Wire(site)
    with wire.sock:
        with contextlib.suppress(OSError):  # refused and closed before all of it was sent
            wire.send(data).half_close()
        with contextlib.suppress(ConnectionError):
            while some := wire.sock.recv(1 << 16):
                found += some
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", found, re.MULTILINE)]


@pytest.mark.slow
def test_hostile_requests_cause_no_server_error_and_change_nothing(
    serve: Callable[..., App], own_store: Callable[..., Store]
) -> None:
    assert len(HOSTILE) > 150
    valkey = own_store()
    site = serve(REDIS_URL=valkey.url)
    valkey.client().rpush(f"queue:{NAME}", "waiting")
    before = keys(valkey)
    for request in HOSTILE:
        found = statuses(site, request)
        assert all(status < 500 for status in found), (request[:300], found)
        assert keys(valkey) == before, request[:300]
    assert "Traceback" not in site.log.read_text()


@pytest.mark.parametrize(
    ("status", "error", "malformed"),
    [
        (400, "bad_request", b"GET\r\n\r\n"),
        (400, "bad_request", push(NAME, "Content-Length: 9", "No colon") + b"message=a"),
        (400, "bad_request", push(NAME, "Content-Length: \xff") + b"message=a"),
        (400, "bad_request", head(f"{PATH}/push", "Transfer-Encoding: xchunked")),
        (414, "uri_too_long", head("/" + "x" * 8200, method="GET")),
        (417, "expectation_failed", push(NAME, "Content-Length: 9", "Expect: the unexpected")),
        (431, "request_header_fields_too_large", push(NAME, *["X: x"] * 500)),
    ],
)
def test_a_malformed_request_is_answered_in_json(wire: Wire, status: int, error: str, malformed: bytes) -> None:
    answer = wire.send(malformed).answer()
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert (answer.json["success"], answer.json["error"]) == (False, error)
    assert answer.json["message"]
    assert wire.rest() == b""


texts = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
paths = st.sampled_from(["push", "pop?max=", "all?offset=", "count", "pop?wait=", "", "push?front="])


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["POST", "GET", "PUT", "HEAD", "OPTIONS"]) | texts,
    st.builds("{}/{}{}".format, st.just(PATH), paths, texts) | texts,
    st.lists(
        st.builds(
            "{}: {}".format,
            st.sampled_from(["Accept", "Content-Type", "Origin", "Range", "Cookie", "Transfer-Encoding", "X"]) | texts,
            st.sampled_from(["application/json", "chunked", "text/plain", "*/*"]) | texts,
        ),
        max_size=5,
    ),
    st.binary(max_size=60) | st.sampled_from(BODIES),
)
def test_generated_requests_cause_no_server_error(
    site: App, valkey: Store, method: str, path: str, headers: list[str], body: bytes
) -> None:
    data = head(path, *headers, f"Content-Length: {len(body)}", method=method) + body
    assert all(status < 500 for status in statuses(site, data))
