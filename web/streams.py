"""Bodies of any length, in and out, in constant memory."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis

from broker.browse import iter_messages
from broker.reliable import ReliableQueue
from RedisQueue import RedisQueue
from web.codec import (
    NDJSON,
    compact,
    decode_message,
    encode_message,
    parse_json,
    preview,
    validate_message,
    validate_utf8,
)
from web.errors import ApiError, from_redis

BATCH_MESSAGES = 1000  # messages in one LPUSH
BATCH_BYTES = 1 << 20  # about how much is pushed at once
PREVIEW_BATCH = 100  # previews read from Redis at once
JSON_ESCAPE_BYTES = 6  # bytes that JSON may need for one byte of a message
LINE_OVERHEAD_BYTES = 1024  # white space and quotes that a line may hold beside its message

# Of some lines: the messages before the first that cannot be taken, the number of lines before it, and its error.
LinesRead = tuple[list[bytes], int, ApiError | None]


def push_lines(queue: RedisQueue, blocks: Iterable[bytes], kind: str, max_bytes: int) -> tuple[int, int]:
    """Push one message per line, in batches, as the lines come; return how many, and the queue's length after.

    The lines are JSON values (`kind` NDJSON) or text. Empty lines are skipped; CR LF ends a line too. A last line
    without an end counts if the body is complete. A message may have `max_bytes` bytes.

    Raises:
        ApiError: a line cannot be taken, or the body is cut, or Redis refuses. `pushed` says how many messages were
            stored until then, `line` which line it was.
    """
    pushed, line, count = 0, 0, 0
    read = _read_json_lines if kind == NDJSON else _read_text_lines
    try:
        for lines in _batches(blocks, max_bytes * (JSON_ESCAPE_BYTES if kind == NDJSON else 1) + LINE_OVERHEAD_BYTES):
            messages, lines_read, error = read(lines, max_bytes)
            if messages:
                count = queue.push(*messages)
                pushed += len(messages)
            line += lines_read
            if error:
                raise error
        return pushed, count if pushed else queue.count()
    except redis.RedisError as error:
        raise from_redis(error).with_details(pushed=pushed) from error
    except ApiError as error:
        raise error.with_details(pushed=pushed, line=line + 1) from error


def _read_text_lines(lines: list[bytes], max_bytes: int) -> LinesRead:
    try:
        b"\n".join(lines).decode()  # all at once is much faster than each
        if max(map(len, lines)) <= max_bytes:
            return [line for line in lines if line], len(lines), None
    except UnicodeDecodeError:
        pass
    return _read_one_by_one(lines, lambda line: validate_message(validate_utf8(line), max_bytes))


PLAIN_STRING = re.compile(rb'"([^"\\\x00-\x1f]+)"')  # a JSON string without escapes


def _read_json_lines(lines: list[bytes], max_bytes: int) -> LinesRead:
    def read(line: bytes) -> bytes:
        plain = PLAIN_STRING.fullmatch(line)
        if plain:
            return validate_message(validate_utf8(plain[1]), max_bytes)
        return encode_message(parse_json(line), max_bytes)

    return _read_one_by_one(lines, read)


def _read_one_by_one(lines: list[bytes], read: Callable[[bytes], bytes]) -> LinesRead:
    messages = []
    for number, line in enumerate(lines):
        if line:
            try:
                messages.append(read(line))
            except ApiError as error:
                return messages, number, error
    return messages, len(lines), None


def _batches(blocks: Iterable[bytes], max_line_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines of a body, some at a time, without their ends. What came before a cut is yielded first."""
    rest, lines, size = b"", [], 0
    failure: ApiError | None = None
    try:
        for block in blocks:
            *complete, rest = (rest + block).split(b"\n")
            lines += complete
            size += len(block)
            if len(rest) > max_line_bytes:
                message = "A line is longer than a message may be."
                raise ApiError(413, "message_too_large", message, limit=max_line_bytes)
            if len(lines) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                yield from _cut(lines)
                lines, size = [], 0
        lines.append(rest)
    except ApiError as error:
        failure = error
    yield from _cut(lines)
    if failure:
        raise failure


def _cut(lines: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(lines), BATCH_MESSAGES):
        yield [line.removesuffix(b"\r") for line in lines[start : start + BATCH_MESSAGES]]


def iter_values(queue: RedisQueue, offset: int, limit: int | None) -> Iterator[list[Any]]:
    """Yield the JSON values of the waiting messages, some at a time."""
    for chunk in iter_messages(queue, offset, limit):
        yield [decode_message(message) for message in chunk]


def iter_previews(queue: ReliableQueue, offset: int, limit: int, characters: int) -> Iterator[list[Any]]:
    """Yield the previews of the waiting messages, some at a time; only their first bytes leave Redis."""
    for start in range(offset, offset + limit, PREVIEW_BATCH):
        heads = queue.state(min(PREVIEW_BATCH, offset + limit - start), start, 4 * characters).heads
        yield [preview(head, size, characters) for head, size in heads]


def as_ndjson(chunks: Iterable[list[Any]]) -> Iterator[str]:
    """Yield one line of JSON per message."""
    for chunk in chunks:
        yield "".join(compact(value) + "\n" for value in chunk)


def as_json(chunks: Iterable[list[Any]], rest: dict[str, Any]) -> Iterator[str]:
    """Yield the JSON answer whose `messages` are these, with the other fields after them."""
    yield '{"success":true,"messages":['
    comma = ""
    for chunk in chunks:
        if chunk:
            yield comma + compact(chunk)[1:-1]
            comma = ","
    yield "]," + compact(rest)[1:] + "\n"


def prefetch(chunks: Iterator[Any]) -> Iterator[Any]:
    """Return the iterator with its first chunk already made, so that an early failure is answered with a status."""
    first = next(chunks, None)

    def resume() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from chunks

    return resume()
