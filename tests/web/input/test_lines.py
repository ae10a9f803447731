"""A streamed push without HTTP: how blocks become lines, lines messages, and what is stored before an error."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from broker.queue import ReliableQueue
from RedisQueue import RedisQueue
from tests.servers import Proxy, Store, until
from tests.web.helpers import NDJSON, TEXT, in_blocks
from web.errors import ApiError
from web.input import lines

LIMIT = 100  # bytes in a message


@pytest.fixture
def queue(valkey: Store, name: str) -> ReliableQueue:
    """An empty queue."""
    return ReliableQueue(valkey.client(), name)


def error_of(push: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        push()
    return caught.value


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
def test_each_line_is_a_message_in_blocks_of_any_size(
    queue: ReliableQueue, kind: str, body: str, messages: list[str]
) -> None:
    expected = [message.encode() for message in messages]
    for size in (1, 2, 3, 7, 1000):
        queue.push(b"x")
        pushed = lines.push_lines(queue, in_blocks(body.encode(), size), kind, LIMIT)
        assert pushed == (len(expected), len(expected) + 1), size
        assert queue.pop(10) == [b"x", *expected], size


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
def test_the_error_of_an_invalid_line_has_its_number_and_later_lines_are_not_stored(
    queue: ReliableQueue, kind: str, body: bytes, error: str, line: int, pushed: int
) -> None:
    for size in (1, 7, 1000):
        found = error_of(lambda size=size: lines.push_lines(queue, in_blocks(body, size), kind, LIMIT))  # type: ignore[misc]
        assert (found.error, found.details["line"], found.details["pushed"]) == (error, line, pushed), size
        assert queue.pop(10) == [b"a", b"b"][:pushed], size


@pytest.mark.parametrize("kind", [NDJSON, TEXT])
def test_line_numbers_count_across_batches(queue: ReliableQueue, kind: str) -> None:
    quote = b'"' if kind == NDJSON else b""
    good = b"".join(b"%b%d%b\n" % (quote, number, quote) for number in range(5000))
    error = error_of(lambda: lines.push_lines(queue, in_blocks(good + b"\xff\n" + good, 1 << 16), kind, LIMIT))
    assert (error.details["line"], error.details["pushed"], queue.count()) == (5001, 5000, 5000)


@pytest.mark.parametrize("kind", [NDJSON, TEXT])
def test_an_endless_line_is_refused_before_it_fills_the_memory(queue: ReliableQueue, kind: str) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield b'"a"\n' if kind == NDJSON else b"a\n"
        while True:
            read += 100
            yield b"x" * 100

    error = error_of(lambda: lines.push_lines(queue, endless(), kind, LIMIT))
    assert (error.status, error.error, error.details["pushed"]) == (413, "message_too_large", 1)
    assert error.details["line"] == 2
    assert read < 10_000
    assert queue.all() == [b"a"]


def test_a_message_of_the_maximum_size_is_accepted_with_every_byte_escaped(queue: ReliableQueue) -> None:
    line = b'"' + b"\\u0001" * LIMIT + b'"'
    assert lines.push_lines(queue, in_blocks(line, 50), NDJSON, LIMIT) == (1, 1)
    assert queue.all() == [b"\1" * LIMIT]


def test_an_incomplete_body_stores_complete_lines_only(queue: ReliableQueue) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"a\nb\nhalf of"
        raise ApiError("incomplete_body")

    error = error_of(lambda: lines.push_lines(queue, breaking(), TEXT, LIMIT))
    assert (error.error, error.details["pushed"]) == ("incomplete_body", 2)
    assert queue.all() == [b"a", b"b"]


def test_the_error_of_a_failing_redis_has_the_number_of_messages_stored(valkey: Store, proxy: Proxy, name: str) -> None:
    queue = ReliableQueue(redis.Redis.from_url(proxy.url), name)
    proxy.cut("LPUSH", skip=2, before=True)
    body = b"".join(b"%d\n" % number for number in range(10_000))
    records: list[dict[str, int]] = []
    error = error_of(lambda: lines.push_lines(queue, in_blocks(body, 8000), TEXT, LIMIT, records.append))
    pushed = error.details["pushed"]
    assert error.status == 503
    assert sum(one["pushed"] for one in records) == pushed
    assert 0 < pushed < 10_000
    assert RedisQueue(valkey.client(), name).all() == [b"%d" % number for number in range(pushed)]


def test_every_message_pushed_is_recorded_while_the_stream_lasts(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[dict[str, int]] = []

    def body() -> Iterator[bytes]:
        yield b"a\nb\n"
        until(lambda: len(records) == 1)
        monkeypatch.setattr(lines, "RECORD_INTERVAL", 0)
        yield b"c\n"
        until(lambda: len(records) == 2)
        monkeypatch.setattr(lines, "RECORD_INTERVAL", 60)
        yield b"d\ne\n\xff\n"

    error_of(lambda: lines.push_lines(queue, body(), TEXT, LIMIT, records.append))
    assert [(one["pushed"], one["count"]) for one in records] == [(2, 2), (1, 3), (2, 5)]
