"""Attacks without the token: whatever one client does, others are served and memory stays bounded."""

import contextlib
import http.client
import json
import random
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from broker import scan as browse
from RedisQueue import RedisQueue
from tests.conftest import Api
from tests.servers import ROOT, App, Store, until
from web import answers
from web.errors import ApiError
from web.fairness import STALL_SECONDS, BodyMemory, HeldBody
from web.input import body, codec
from web.input import raw_json as raw_json
from web.input.parameters import MessageList
from web.operations.operation import MAX_FIELDS_BYTES
from web.pages import MAX_LOGIN_BYTES

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
TOKEN = "secretsecret"


# --- others are served


@contextlib.contextmanager
def attacking(app: App, seconds: float, names: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.web.attacks", str(app.port), str(seconds), *names.split()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as attack:
        assert attack.stdout and attack.stdout.readline() == b"attacking\n"
        try:
            yield attack
        finally:
            attack.kill()


def push(app: App) -> float:
    """Push on a new connection, and return the seconds it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("POST", "/api/queue/mine/push", b'{"message": {"a": "x"}}', {"Content-Type": JSON})
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - began


def memory(app: App) -> int:
    """Return the peak memory of the app's workers, in bytes."""
    peaks = [
        int(line.split()[1]) * 1024
        for worker in app.workers()
        for line in Path(f"/proc/{worker}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return max(peaks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attacks", "most"),
    [
        pytest.param("escapes push_escapes", 200, marks=pytest.mark.soak),
        ("tiny_chunks tiny_lines", 50),
        ("pipelined pipelined_unread", 50),
        pytest.param("drip drip_head drip_body silence", 100, marks=pytest.mark.soak),
        pytest.param("unread unread_lines", 250, marks=pytest.mark.soak),
        pytest.param("unfinished unfinished_push", 300, marks=pytest.mark.soak),
        ("many_keys many_lists most_lists most_numbers most_lines", 250),
    ],
)
def test_others_are_served_during(
    own_store: Callable[..., Store], serve: Callable[..., App], attacks: str, most: int
) -> None:
    """The worker has 1000 connections and must not need more than `most` MiB more."""
    store = own_store()
    for number in range(32):
        store.client().lpush("queue:large", b"%d" % (number % 10) * (1 << 20))
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1", MAX_BLOCKED_CLIENTS="0")
    workers, before, times = app.workers(), memory(app), []
    with attacking(app, 10, attacks) as attack:
        while attack.poll() is None:
            times.append(push(app))
    assert max(times) < 6  # seconds; far less on an idle machine
    assert sorted(times)[len(times) // 2] < 1
    assert memory(app) - before < most << 20
    assert app.workers() == workers
    assert "Traceback" not in app.log.read_text()


# --- bodies


@pytest.fixture(scope="module")
def guarded(valkey: Store, folder: Path) -> Iterator[App]:
    app = App(folder / "attacked", REDIS_URL=valkey.url, WEB_CONCURRENCY="1", API_TOKEN=TOKEN)
    yield app
    app.end()


def begin(app: App, path: str, headers: str, kind: str = FORM) -> socket.socket:
    """Send the head of a request."""
    sock = socket.create_connection(("127.0.0.1", app.port), timeout=60)
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{headers}\r\n\r\n".encode())
    return sock


def answer(sock: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(sock)
    response.begin()
    found = response.status, response.read()
    sock.close()
    return found


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/login", MAX_LOGIN_BYTES + 1, 413),
        ("/login", 1 << 40, 413),
        ("/api/queue/push", 1 << 20, 401),
        ("/api/queue/pop", 1 << 20, 401),
        ("/logout", 1 << 20, 401),
        ("/nothing", 1 << 20, 401),
    ],
)
def test_a_large_body_is_refused_before_it_is_read(guarded: App, path: str, size: int, status: int) -> None:
    assert answer(begin(guarded, path, f"Content-Length: {size}"))[0] == status


def test_a_login_without_a_length_is_refused_as_soon_as_it_is_too_large(guarded: App) -> None:
    sock = begin(guarded, "/login", "Transfer-Encoding: chunked")
    sock.sendall(b"%x\r\n%b\r\n" % (MAX_LOGIN_BYTES + 1, b"x" * (MAX_LOGIN_BYTES + 1)))
    sock.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    assert answer(sock)[0] == 413


def test_a_login_of_the_largest_size_works(guarded: App) -> None:
    sock = begin(guarded, "/login", f"Content-Length: {MAX_LOGIN_BYTES}")
    sent = f"token={TOKEN}&to=".encode()
    sock.sendall(sent + b"x" * (MAX_LOGIN_BYTES - len(sent)))
    assert answer(sock)[0] == 303


@pytest.mark.parametrize("operation", ["pop", "reserve", "release", "extend", "clear", "restore"])
def test_an_operation_without_messages_takes_no_large_body(api: Api, operation: str) -> None:
    found = api.post(operation, b"x=" + b"x" * MAX_FIELDS_BYTES, FORM)
    assert (found.status_code, found.json["error"], found.json["limit"]) == (413, "body_too_large", MAX_FIELDS_BYTES)


def test_the_largest_list_of_ids_fits_in_a_body(api: Api) -> None:
    ids = [f"{number:064}" for number in range(1000)]
    found = api.post("ack", json={"ids": ids})
    assert (found.status_code, found.json["error"]) == (409, "stale")


@pytest.mark.slow
def test_large_bodies_are_bounded_in_all_and_small_ones_always_read(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    """Those that stall use up the memory and are then cut, the first of them first; one that progresses is not."""
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_BODY_BYTES=str(1 << 20))
    path, size = f"/api/queue/{name}/push", 1 << 20

    def start() -> socket.socket:
        return begin(app, path, f"Content-Length: {size}", "application/octet-stream")

    def push_large() -> int:
        sock = start()
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"x" * size)
        return answer(sock)[0]

    stalled = [start() for _ in range(12)]
    for sock in stalled:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"x" * (size - 500))
    assert push(app) < 60
    until(lambda: push_large() == 200)
    progressing = start()
    progressing.sendall(b"x" * (size // 2))
    for _ in range(8):
        assert push_large() == 200
        progressing.sendall(b"x" * (size // 16))
    assert answer(progressing)[0] == 200
    statuses = [answer(sock)[0] for sock in stalled if select.select([sock], [], [], 0)[0]]
    assert 408 in statuses and set(statuses) <= {408, 503}


@pytest.mark.slow
def test_a_request_that_waits_holds_no_memory_for_bodies(serve: Callable[..., App], valkey: Store, name: str) -> None:
    size = 1 << 17
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_BODY_BYTES=str(size))
    waiting = [begin(app, f"/api/queue/{name}/pop", f"Content-Length: {size}", JSON) for _ in range(12)]
    for sock in waiting:
        sock.sendall(b'{"wait": 50}'.ljust(size))
    until(lambda: waiters(app, name) == len(waiting))
    sock = begin(app, "/api/queue/other/push", f"Content-Length: {size}", "application/octet-stream")
    sock.sendall(b"x" * size)
    assert answer(sock)[0] == 200
    for sock in waiting:
        sock.close()


def waiters(app: App, name: str) -> int:
    with urllib.request.urlopen(f"{app.url}/api/queue/{name}/count") as found:
        return int(json.load(found)["waiters"])


def test_the_memory_for_bodies_is_bounded() -> None:
    counted = BodyMemory(10)
    one, other = HeldBody(lambda: False), HeldBody(lambda: False)
    counted.reserve(one, 4)
    counted.reserve(one, 6)
    with pytest.raises(ApiError) as caught:
        counted.reserve(other, 1)
    assert (caught.value.status, caught.value.error) == (503, "too_many_bodies")
    counted.reserve(one, 90)  # the only one
    counted.release(one)
    counted.reserve(other, 10)


def test_the_body_that_has_stalled_longest_is_cut_for_others() -> None:
    now, cut = [0.0], list[str]()

    def body(name: str, waits: bool = True) -> HeldBody:
        def end() -> bool:
            cut.extend([name] if waits else [])
            return waits

        return HeldBody(end)

    counted = BodyMemory(10, lambda: now[0])
    complete, first, second, progressing = body("complete", False), body("first"), body("second"), body("progressing")
    counted.reserve(complete, 1)
    counted.reserve(progressing, 1)
    for stalled in (first, second):
        now[0] += 1
        counted.reserve(stalled, 4)
    with pytest.raises(ApiError):
        counted.reserve(progressing, 1)
    now[0] += STALL_SECONDS
    counted.reserve(progressing, 1)
    assert (cut, counted.reserved) == (["first"], 7)
    counted.release(first)  # when its request ends, later
    counted.reserve(progressing, 3)
    now[0] += 1
    counted.reserve(body("new"), 4)
    assert (cut, counted.reserved) == (["first", "second"], 10)
    with pytest.raises(ApiError):
        counted.reserve(body("newer"), 4)


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 1 << 16])
def test_a_form_is_read_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(body, "UNQUOTE_SIZE", max(3, piece))
    dice = random.Random(piece)
    texts = ["".join(dice.choices("%%%%4aAfFgz+ é", k=dice.randrange(40))) for _ in range(500)]
    for text in [*texts, "", "%", "%%", "%4", "%41", "%c3%a9", "a" * 100 + "%41"]:
        with contextlib.suppress(UnicodeDecodeError):
            assert body._unquote(text.encode(), lambda: None) == unquote_plus(text, errors="strict")


@pytest.mark.slow
@pytest.mark.parametrize("field", [b"%d=" + b"%%41" * 5000, b"%d" + b"%%41" * 5000 + b"=1", b"%d=" + b"x" * 15_000])
def test_a_form_of_many_fields_has_checkpoints(field: bytes) -> None:
    checkpoints: list[int] = []
    form = b"&".join(field % number for number in range(body.MAX_FORM_FIELDS))
    body._read_form(form, body.ESCAPED_BY_ANY, lambda: checkpoints.append(1))
    assert len(checkpoints) >= len(form) // body.UNQUOTE_SIZE


HEAD_BYTES = 57_000  # nearly as many as all headers together can have
HEADERS = [
    ("Accept", "text/a,"),
    ("Accept", "text/plain;a=b;"),
    ("Accept-Encoding", "es,"),
    ("Accept-Language", "es-"),
    ("Accept-Language", "fr,"),
    ("Accept-Language", "text/a,"),
    ("Cookie", "a=1;"),
    ("Cookie", 'lang="\\012\\'),
    ("If-None-Match", 'W/"a",'),
    ("Range", "bytes=0-1,"),
    ("X-Forwarded-For", "127.0.0.1,"),
]


@pytest.mark.parametrize(("name", "repeated"), HEADERS)
@pytest.mark.parametrize("path", ["/login", "/q/jobs", "/api/queue/jobs/all", "/metrics"])
def test_the_longest_header_takes_little_time(api: Api, path: str, name: str, repeated: str) -> None:
    app = api.with_settings(api_tokens=(TOKEN.encode(),))
    headers = {name: repeated * (HEAD_BYTES // len(repeated))}
    if path != "/login":
        headers["Authorization"] = f"Bearer {TOKEN}"
    began = time.process_time()
    assert app.http.get(path, headers=headers).status_code in (200, 302)
    assert time.process_time() - began < 1  # seconds; what compares each part with the others takes many


DRIPS = [
    "POST /api/queue/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + FORM + "\r\nContent-Length: 999\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n99\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz",
    "GET /login HTTP/1.1\r\nX: ",
    "GET /",
]


@pytest.mark.soak
@pytest.mark.slow
def test_clients_that_send_a_byte_now_and_then_are_given_up(guarded: App) -> None:
    ended: list[str] = []

    def drip(sent: str) -> None:
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=90) as sock:
            sock.sendall(sent.encode())
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() - began < 80:
                    sock.sendall(b"1")
                    if select.select([sock], [], [], 1)[0] and not sock.recv(1 << 16):
                        break
            if time.monotonic() - began < 80:
                ended.append(sent)

    with ThreadPoolExecutor(len(DRIPS)) as threads:
        list(threads.map(drip, DRIPS))
    assert sorted(ended) == sorted(DRIPS)


# --- answers


@pytest.mark.slow
@pytest.mark.parametrize("small", [0, 5, 3000])
@pytest.mark.parametrize("size", [100_000, 1 << 20])
def test_a_walk_holds_little_even_where_large_messages_follow_small_ones(
    valkey: Store, name: str, small: int, size: int
) -> None:
    queue = RedisQueue(valkey.client(), name)
    wanted = [b"%d" % number for number in range(small)] + [b"%c" % (65 + number) * size for number in range(20)]
    queue.push(*wanted)
    chunks = list(browse.iter_messages(queue))
    assert [message for chunk in chunks for message in chunk] == wanted
    assert max(sum(map(len, chunk)) for chunk in chunks) <= max(browse.CHUNK_BYTES, size)
    queue.pop(len(wanted))


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("character", ["a", "\x01", "é", "🐎", '"'])
def test_an_answer_is_made_in_small_parts(size: int, character: str) -> None:
    values = [character * size, "b", {"base64": "AAE="}]
    chunks = [[value] for value in values]  # a long message comes alone
    parts = list(answers.as_json(chunks, {"count": 3}))
    assert json.loads(b"".join(parts)) == {"success": True, "messages": values, "count": 3}
    lines = list(answers.as_ndjson(chunks))
    assert [json.loads(line) for line in b"".join(lines).split(b"\n")[:-1]] == values
    assert max(map(len, parts + lines)) <= 8 * answers.PART_CHARACTERS


# --- JSON


LIST = MessageList("messages")


def parse(data: bytes) -> ApiError | None:
    """Read a list of messages as push does."""
    try:
        LIST.encode(body.RawJson(raw_json.compact_json(data)), codec.Limits(16 << 20), lambda: None)
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize(
    "value", [b"1,", b"[],", b"{},", b'"ab",', b'"",', b'{"k":1},', b"null,", b'"\\"[",', b'[["]"]],'], ids=str
)
def test_values_are_counted_before_they_are_made(value: bytes) -> None:
    error = parse(b"[" + value * (raw_json.MAX_VALUES + 20_000) + b"1]")
    assert error is not None
    assert (error.status, error.error, error.details["limit"]) == (413, "too_many_values", raw_json.MAX_VALUES)


@pytest.mark.parametrize("value", [b"1,", b'"a",', b'{"a":1},', b'{"base64":"YQ=="},'])
def test_messages_are_counted_before_they_are_encoded(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr(codec, "encode_message", pytest.fail)
    monkeypatch.setattr(codec, "validate_messages", pytest.fail)
    error = parse(b"[" + value * LIST.maximum + value.removesuffix(b",") + b"]")
    assert error is not None and (error.status, error.error) == (413, "too_many_messages")


@pytest.mark.parametrize("text", [b",[{" * 1_000_000, b'\\"' * 1_000_000, b"\\\\" * 1_000_000, b"\\u005b" * 300_000])
def test_a_long_text_is_one_value(text: bytes) -> None:
    assert parse(b'["' + text + b'"]') is None


@pytest.mark.parametrize("text", [b'"' * 8_000_000, b'["' + b'\\"' * 4_000_000, b"[" * 4_000_000, b'"\\' * 4_000_000])
def test_malformed_json_is_refused_in_linear_time(text: bytes) -> None:
    began = time.process_time()
    error = parse(text)
    assert error is not None and error.status == 400
    assert time.process_time() - began < 20  # seconds; a time that grows with the square would be hours


@pytest.mark.parametrize("value", [b"1,", b"[],", b"[[]],", b'{"":1},'])
def test_a_message_of_the_largest_size_may_have_any_number_of_values(value: bytes) -> None:
    text = b"[" + value * ((1 << 20) // len(value) - 2) + b"1]"
    assert codec.encode_message(raw_json.compact_json(text), codec.Limits(1 << 20)) == text


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("levels", [31, 32, 33, 34])
def test_levels_are_counted_exactly_also_beside_others(opening: bytes, levels: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * (levels - 1) + b"1" + closing * (levels - 1)
    text = b'["][{",' + b"[[],[]]," * 50 + deep + b"]"
    if levels <= raw_json.MAX_DEPTH:
        raw_json.check_depth(text)
    else:
        with pytest.raises(ApiError) as caught:
            raw_json.check_depth(text)
        assert caught.value.error == "too_deep"


def test_a_long_list_has_many_checkpoints() -> None:
    checkpoints = []
    value = body.RawJson(b"[" + b'{"a":1},' * 50_000 + b"1]")
    LIST.encode(value, codec.Limits(1 << 20), lambda: checkpoints.append(1))
    assert len(checkpoints) >= 100
