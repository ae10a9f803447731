"""Bodies of any length, without HTTP: how lines become messages, and messages an answer, some at a time."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from broker.queue import ReliableQueue
from RedisQueue import RedisQueue
from tests.broker.helpers import numbered
from tests.servers import FakeRedis, Proxy, Store, until
from tests.web.helpers import NDJSON, TEXT, in_blocks
from web import streams
from web.errors import ApiError
from web.input.codec import decode_message

LIMIT = 100  # bytes a message may have here


@pytest.fixture
def queue(name: str) -> ReliableQueue:
    """An empty queue on fakeredis."""
    return ReliableQueue(FakeRedis(), name)


def error_of(push: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        push()
    return caught.value


# --- lines in


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("kind", "body", "messages"),
    [
        (TEXT, "a\nb\n", ["a", "b"]),
        (TEXT, "a\r\nb\r\n", ["a", "b"]),
        (TEXT, "a\nb", ["a", "b"]),
        (TEXT, "\n\r\n\na\n\n\nb\n\n", ["a", "b"]),
        (TEXT, "", []),
        (TEXT, "\n", []),
        (TEXT, "žluťoučký\n🐎🐎\n€", ["žluťoučký", "🐎🐎", "€"]),
        (TEXT, ' "a" \n{"b":1}\n', [' "a" ', '{"b":1}']),
        (TEXT, "a\rb\n\r\r\n", ["a\rb", "\r"]),
        (TEXT, "\0\n\x1e\u2028\x85\n", ["\0", "\x1e\u2028\x85"]),
        (NDJSON, '"a"\n"b"\n', ["a", "b"]),
        (NDJSON, '"a"\r\n\r\n\n  1.10 \r\n"b"', ["a", "1.10", "b"]),
        (NDJSON, '"\\u00e9\\n\\ud83d\\udc0e"\n"🐎"\n', ["é\n🐎", "🐎"]),
        (NDJSON, '{"b": [1, 2.50, null]}\ntrue\n""\n'[:-3], ['{"b":[1,2.50,null]}', "true"]),
        (NDJSON, '{"base64": "AAE="}\n', ["\0\1"]),
    ],
)
def test_lines_are_messages_wherever_the_blocks_are_cut(
    queue: ReliableQueue, size: int, kind: str, body: str, messages: list[str]
) -> None:
    queue.push(b"x")
    expected = [message.encode() for message in messages]
    pushed = streams.push_lines(queue, in_blocks(body.encode(), size), kind, LIMIT)
    assert pushed == (len(expected), len(expected) + 1)
    assert queue.all() == [b"x", *expected]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("kind", "body", "error", "line", "pushed"),
    [
        (NDJSON, b'"a"\n"b"\nnot json\n"c"\n', "bad_json", 3, 2),
        (NDJSON, b'"a"\n\n\n""\n"c"\n', "empty_message", 4, 1),
        (NDJSON, b"null\n", "empty_message", 1, 0),
        (NDJSON, b'"a"\n"\xff"\n"c"', "bad_utf8", 2, 1),
        (NDJSON, b'"a"\n"\\ud800"\n"c"', "bad_utf8", 2, 1),
        (NDJSON, b'"a"\n[1,{"a":1,}]\n', "bad_json", 2, 1),
        (NDJSON, b'"a"\n"b', "bad_json", 2, 1),
        (NDJSON, b'"a" "b"\n', "bad_json", 1, 0),
        (NDJSON, b"[" * 40 + b"]" * 40 + b"\n", "too_deep", 1, 0),
        (NDJSON, b'"a"\n"' + b"x" * 101 + b'"\n"c"\n', "message_too_large", 2, 1),
        (TEXT, b"a\nb\xff\nc\n", "bad_utf8", 2, 1),
        (TEXT, b"\xc5\n\xbe\n", "bad_utf8", 1, 0),
        (TEXT, b"a\n\n" + b"x" * 101 + b"\nc\n", "message_too_large", 3, 1),
    ],
)
def test_a_bad_line_is_named_and_nothing_after_it_is_stored(
    queue: ReliableQueue, size: int, kind: str, body: bytes, error: str, line: int, pushed: int
) -> None:
    found = error_of(lambda: streams.push_lines(queue, in_blocks(body, size), kind, LIMIT))
    assert (found.error, found.details["line"], found.details["pushed"]) == (error, line, pushed)
    assert queue.all() == [b"a", b"b"][:pushed]


@pytest.mark.parametrize("kind", [NDJSON, TEXT])
def test_bad_lines_are_counted_over_many_batches(queue: ReliableQueue, kind: str) -> None:
    quote = b'"' if kind == NDJSON else b""
    good = b"".join(b"%b%d%b\n" % (quote, number, quote) for number in range(5000))
    error = error_of(lambda: streams.push_lines(queue, in_blocks(good + b"\xff\n" + good, 1 << 16), kind, LIMIT))
    assert (error.details["line"], error.details["pushed"], queue.count()) == (5001, 5000, 5000)


@pytest.mark.parametrize("kind", [NDJSON, TEXT])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(queue: ReliableQueue, kind: str) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'"a"\n' if kind == NDJSON else b"a\n"
        while True:
            read += 100
            yield b"x" * 100

    error = error_of(lambda: streams.push_lines(queue, endless(), kind, LIMIT))
    assert (error.status, error.error, error.details["pushed"]) == (413, "message_too_large", 1)
    assert error.details["line"] == 2
    assert read < 10_000
    assert queue.all() == [b"a"]


def test_a_message_of_the_largest_size_passes_with_every_byte_escaped(queue: ReliableQueue) -> None:
    line = b'"' + b"\\u0001" * LIMIT + b'"'
    assert streams.push_lines(queue, in_blocks(line, 50), NDJSON, LIMIT) == (1, 1)
    assert queue.all() == [b"\1" * LIMIT]


def test_a_body_that_breaks_off_leaves_whole_messages_only(queue: ReliableQueue) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"a\nb\nhalf of"
        raise ApiError("incomplete_body")

    error = error_of(lambda: streams.push_lines(queue, breaking(), TEXT, LIMIT))
    assert (error.error, error.details["pushed"]) == ("incomplete_body", 2)
    assert queue.all() == [b"a", b"b"]


def test_when_redis_fails_half_way_the_error_says_how_many_were_stored(valkey: Store, proxy: Proxy, name: str) -> None:
    queue = ReliableQueue(redis.Redis.from_url(proxy.url), name)
    proxy.cut("LPUSH", skip=2, before=True)
    body = b"".join(b"%d\n" % number for number in range(10_000))
    told: list[dict[str, int]] = []
    error = error_of(lambda: streams.push_lines(queue, in_blocks(body, 8000), TEXT, LIMIT, told.append))
    pushed = error.details["pushed"]
    assert error.status == 503
    assert sum(one["pushed"] for one in told) == pushed
    assert 0 < pushed < 10_000
    assert RedisQueue(valkey.client(), name).all() == [b"%d" % number for number in range(pushed)]


def test_what_is_pushed_is_recorded_as_it_comes_and_to_the_last_message(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, int]] = []

    def recorded() -> Iterator[bytes]:
        yield b"a\nb\n"
        until(lambda: len(told) == 1)
        monkeypatch.setattr(streams, "RECORD_INTERVAL", 0)
        yield b"c\n"
        until(lambda: len(told) == 2)
        monkeypatch.setattr(streams, "RECORD_INTERVAL", 60)
        yield b"d\ne\n\xff\n"

    error_of(lambda: streams.push_lines(queue, recorded(), TEXT, LIMIT, told.append))
    assert [(one["pushed"], one["count"]) for one in told] == [(2, 2), (1, 3), (2, 5)]


# --- answers out


def test_empty_chunks_leave_the_json_whole() -> None:
    cases: list[list[list[str]]] = [[[], ["a"]], [["a"], []], [["a"], [], ["b"]], [[], []], []]
    for chunks in cases:
        text = b"".join(streams.as_json(chunks, {"count": 3}))
        expected = [value for chunk in chunks for value in chunk]
        assert json.loads(text) == {"success": True, "messages": expected, "count": 3}


def test_a_preview_of_a_queue_that_shrinks_is_whole_json(queue: ReliableQueue) -> None:
    queue.push(*numbered(1500))
    chunks = streams.iter_previews(queue, 0, 1500, 5)
    text = b""
    for part in streams.as_json(chunks, {"count": 1500}):
        text += part
        queue.client.rpop(queue.key, 600)
    assert json.loads(text)["success"] is True


PARTS = [b"a", b'"', b"\\", b"\n", b"\x00", b"\x1f", b"\x7f", b"\xff", "é".encode(), b'","', b'"\n"', b""]


@given(st.lists(st.lists(st.sampled_from(PARTS)).map(b"".join), min_size=1))
def test_any_messages_are_answered_as_their_values(messages: list[bytes]) -> None:
    values = [decode_message(message) for message in messages]
    answer = b"".join(streams.as_json([messages], {"count": 1}))
    assert json.loads(answer) == {"success": True, "messages": values, "count": 1}
    lines = b"".join(streams.as_ndjson([messages])).split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == values
    assert lines[-1] == b""
