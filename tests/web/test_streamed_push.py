"""A streamed push over HTTP: lines are stored as they arrive, whatever happens to the stream afterwards."""

import contextlib
import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import Api
from tests.servers import App, Store, until

NDJSON = "application/x-ndjson"
TEXT = "text/plain"
BOM = b"\xef\xbb\xbf"

# A producer that sends lines one by one, an incomplete one, and then waits to be killed.
PRODUCER = """
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(sys.argv[2].encode())
for number in range(5000):
    line = b"line %d\\n" % number
    sock.sendall(b"%x\\r\\n%s\\r\\n" % (len(line), line))
    time.sleep(0.0001)
sock.sendall(b"7\\r\\nunended\\r\\n")
print("sent", flush=True)
time.sleep(600)
"""


def head(name: str, kind: str, length: int | None = None) -> str:
    """Return the head of a streamed push; without a length, the body is chunked."""
    path = f"/api/queue/{name}/push" + ("?each=line" if kind == TEXT else "")
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{body}\r\n\r\n"


@contextlib.contextmanager
def stream(site: App, name: str, kind: str = TEXT, length: int | None = None) -> Iterator[socket.socket]:
    """Open a streamed push."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as sock:
        sock.sendall(head(name, kind, length).encode())
        yield sock


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of an answer."""
    found = b""
    while not found.endswith(b"}\n"):
        block = sock.recv(1 << 16)
        assert block, found
        found += block
    status, body = found.split(b" ", 2)[1], found.partition(b"\r\n\r\n")[2]
    return int(status), json.loads(body)


def has(store: Store, name: str, number: int) -> bool:
    return len(waiting(store, name)) == number


def waiting(store: Store, name: str) -> list[bytes]:
    """Return the waiting messages, the oldest first."""
    found: list[bytes] = store.client().lrange(f"queue:{name}", 0, -1)
    return found[::-1]


# --- lines are stored as they arrive


@pytest.mark.parametrize("kind", [TEXT, NDJSON])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_line_is_stored_while_the_client_sends_nothing_more(
    site: App, valkey: Store, name: str, kind: str, chunked: bool
) -> None:
    lines = [b"1\n", b"2\n", b"3"]
    with stream(site, name, kind, None if chunked else 5) as sock:
        for number, line in enumerate(lines[:2], 1):
            sock.sendall(chunk(line) if chunked else line)
            until(partial(has, valkey, name, number))
        sock.sendall(chunk(lines[2]) + b"0\r\n\r\n" if chunked else lines[2])
        assert answer(sock) == (200, {"success": True, "pushed": 3, "count": 3})
    assert waiting(valkey, name) == [b"1", b"2", b"3"]


def test_a_line_in_pieces_is_stored_when_its_end_arrives(site: App, valkey: Store, name: str) -> None:
    with stream(site, name) as sock:
        for piece in (b"a", b"b", b"c\nd"):
            assert waiting(valkey, name) == []
            sock.sendall(chunk(piece))
        until(lambda: waiting(valkey, name) == [b"abc"])
        sock.sendall(chunk(b"e") + b"0\r\n\r\n")
        assert answer(sock)[1]["pushed"] == 2
    assert waiting(valkey, name) == [b"abc", b"de"]


@pytest.mark.parametrize("end", ["close", "reset", "half"])
def test_a_client_that_leaves_half_way_keeps_its_whole_lines(site: App, valkey: Store, name: str, end: str) -> None:
    with stream(site, name, length=10**6) as sock:
        sock.sendall(b"one\ntwo\nunen")
        until(lambda: waiting(valkey, name) == [b"one", b"two"])
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == "half":
            sock.shutdown(socket.SHUT_WR)
            status, found = answer(sock)
            assert (status, found["error"], found["pushed"], found["line"]) == (400, "incomplete_body", 2, 3)
    assert waiting(valkey, name) == [b"one", b"two"]


@pytest.mark.slow
def test_the_lines_of_a_slow_producer_are_stored_before_it_is_killed(site: App, valkey: Store, name: str) -> None:
    command = [sys.executable, "-c", PRODUCER, str(site.port), head(name, TEXT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as producer:
        assert producer.stdout and producer.stdout.readline() == b"sent\n"
        until(lambda: len(waiting(valkey, name)) == 5000)  # before it is killed
        producer.send_signal(signal.SIGKILL)
    assert waiting(valkey, name) == [b"line %d" % number for number in range(5000)]


@pytest.mark.slow
def test_a_killed_producer_leaves_the_first_of_its_lines_complete(site: App, valkey: Store, name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRODUCER, str(site.port), head(name, TEXT)], stdout=subprocess.DEVNULL
    ) as producer:
        until(lambda: len(waiting(valkey, name)) >= 100)
        producer.send_signal(signal.SIGKILL)
    until(lambda: answers_again(site, name))
    found = waiting(valkey, name)
    assert found == [b"line %d" % number for number in range(len(found))]


def answers_again(site: App, name: str) -> bool:
    with stream(site, name, length=0) as sock:
        return answer(sock)[0] == 200


def test_an_invalid_line_is_answered_before_the_body_ends(site: App, valkey: Store, name: str) -> None:
    with stream(site, name, NDJSON) as sock:
        sock.sendall(chunk(b'"one"\n\n"two"\n{\n"never"\n'))
        status, found = answer(sock)  # the body has no end yet
    assert (status, found["error"], found["pushed"], found["line"]) == (400, "bad_json", 2, 4)
    assert waiting(valkey, name) == [b"one", b"two"]


def test_the_error_of_a_failing_redis_has_the_number_of_messages_stored(site: App, valkey: Store, name: str) -> None:
    with stream(site, name) as sock:
        sock.sendall(chunk(b"one\n"))
        until(lambda: waiting(valkey, name) == [b"one"])
        valkey.client().delete(f"queue:{name}")
        valkey.client().set(f"queue:{name}", "no list")
        sock.sendall(chunk(b"two\n"))
        sock.sendall(chunk(b"three\n") + b"0\r\n\r\n")
        status, found = answer(sock)
    assert (status, found["error"], found["pushed"]) == (409, "wrong_type", 1)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bytes", [3, 700, 100_000])
def test_lines_and_chunks_of_any_size_are_stored_once_and_in_order(
    site: App, valkey: Store, name: str, chunk_bytes: int
) -> None:
    lines = [b"%d " % number + b"x" * (number % 97) for number in range(2000)]
    body = b"\n".join(lines)
    pieces = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    with stream(site, name) as sock:
        sock.sendall(b"".join(map(chunk, pieces)) + b"0\r\n\r\n")
        assert answer(sock) == (200, {"success": True, "pushed": 2000, "count": 2000})
    assert waiting(valkey, name) == lines


@pytest.mark.slow
def test_a_fast_stream_is_pushed_in_full_batches(site: App, valkey: Store, name: str) -> None:
    client, lines = valkey.client(), 200_000
    body = b"a line of some length\n" * lines
    before = pushes(client)
    with stream(site, name, length=len(body)) as sock:
        sock.sendall(body)
        assert answer(sock)[1]["pushed"] == lines
    assert pushes(client) - before < 2 * lines / 1000


def pushes(client: Any) -> int:
    """Return the number of LPUSH commands that the store has run."""
    return int(client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


def test_a_stream_leaves_the_connection_usable(site: App, name: str) -> None:
    follow = f"GET /api/queue/{name}/count HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for chunked in (True, False):
        with stream(site, name, length=None if chunked else 4) as sock:
            sock.sendall((chunk(b"a\nb\n") + b"0\r\n\r\n" if chunked else b"a\nb\n") + follow)
            found = b""
            while found.count(b"HTTP/1.1 200") < 2 or not found.endswith(b"}\n"):
                block = sock.recv(1 << 16)
                assert block, found
                found += block
            assert re.search(rb'"pushed":2', found)


# --- byte order marks


@pytest.mark.parametrize(
    ("body", "kind", "stored"),
    [
        (BOM + b"one\ntwo", TEXT, [b"one", b"two"]),
        (BOM + b"\r\none", TEXT, [b"one"]),
        (BOM, TEXT, []),
        (b"one\n" + BOM + b"two\n", TEXT, [b"one", BOM + b"two"]),
        (BOM + BOM + b"one", TEXT, [BOM + b"one"]),
        (BOM + b'"one"\n2\n', NDJSON, [b"one", b"2"]),
        (BOM + b'\n"one"', NDJSON, [b"one"]),
        (b"1\n" + BOM + b'{"a": 2}', NDJSON, [b"1", b'{"a":2}']),
    ],
)
def test_a_byte_order_mark_before_the_first_line_is_dropped(
    api: Api, body: bytes, kind: str, stored: list[bytes]
) -> None:
    found = api.post("push" + ("?each=line" if kind == TEXT else ""), body, kind)
    assert found.json == {"success": True, "pushed": len(stored), "count": len(stored)}
    assert api.messages() == stored


def test_a_byte_order_mark_in_pieces_is_dropped(site: App, valkey: Store, name: str) -> None:
    with stream(site, name) as sock:
        for byte in BOM + b"one":
            sock.sendall(chunk(bytes([byte])))
        sock.sendall(b"0\r\n\r\n")
        assert answer(sock)[0] == 200
    assert waiting(valkey, name) == [b"one"]
