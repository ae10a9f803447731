"""Bodies of any length, in and out, in constant memory."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import redis

from broker.browse import iter_messages
from broker.reliable import ReliableQueue
from RedisQueue import RedisQueue
from web.codec import (
    BOM,
    NDJSON,
    Pace,
    compact,
    decode_message,
    encode_message,
    hurry,
    parse_json,
    preview,
    validate_message,
    validate_utf8,
)
from web.errors import ApiError, from_redis

BATCH_MESSAGES = 1000  # messages in one LPUSH
BATCH_BYTES = 1 << 20  # about how much is pushed at once
MAX_DELAY = 0.02  # seconds until a message of a stream that has come is pushed, with those that came meanwhile
PREVIEW_BATCH = 100  # previews read from Redis at once
PART_CHARACTERS = 1 << 15  # about how much of an answer is made at once
JSON_ESCAPE_BYTES = 6  # bytes that JSON may need for one byte of a message
LINE_OVERHEAD_BYTES = 1024  # white space and quotes that a line may hold beside its message

# Of some lines: the messages before the first that cannot be taken, the number of lines before it, and its error.
LinesRead = tuple[list[bytes], int, ApiError | None]


def push_lines(
    queue: RedisQueue, blocks: Iterable[bytes], kind: str, max_bytes: int, pace: Pace = hurry
) -> tuple[int, int]:
    """Push one message per line, soon after the line came; return how many, and the queue's length after.

    The lines are JSON values (`kind` NDJSON) or text. Empty lines are skipped; CR LF ends a line too, and a byte order
    mark before the first line is dropped. A last line without an end counts if the body is complete. A message may
    have `max_bytes` bytes.

    Raises:
        ApiError: a line cannot be taken, or the body is cut, or Redis refuses. `pushed` says how many messages were
            stored until then, `line` which line it was.
    """
    writer, line, failure = _Writer(queue), 0, None
    read = partial(_read_json_lines, pace=pace) if kind == NDJSON else _read_text_lines
    try:
        try:
            for lines in _split(blocks, max_bytes * (JSON_ESCAPE_BYTES if kind == NDJSON else 1) + LINE_OVERHEAD_BYTES):
                messages, lines_read, error = read(lines, max_bytes)
                writer.add(messages)
                line += lines_read
                if error:
                    raise error
        except ApiError as error:
            failure = error
        count = writer.close()
    except redis.RedisError as error:
        raise from_redis(error).with_details(pushed=writer.pushed) from error
    if failure:
        raise failure.with_details(pushed=writer.pushed, line=line + 1)
    return writer.pushed, count


class _Writer:
    """Pushes the messages of a stream in order: a full batch at once, fewer when they have been here for a moment.

    After a failed push nothing more is pushed, and the next call raises its error.
    """

    def __init__(self, queue: RedisQueue) -> None:
        self.queue = queue
        self.pushed = 0
        self._count: int | None = None
        self._messages: list[bytes] = []
        self._size = 0
        self._failure: Exception | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def add(self, messages: list[bytes]) -> None:
        """Take messages; they are pushed within MAX_DELAY, whether more come or not."""
        with self._lock:
            self._messages += messages
            self._size += sum(map(len, messages))
            if len(self._messages) >= BATCH_MESSAGES or self._size >= BATCH_BYTES or self._failure:
                self._push()
            elif self._messages and self._timer is None:
                self._timer = threading.Timer(MAX_DELAY, self._push_late)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> int:
        """Push what is left; return the queue's length after the last push."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            self._push()
        return self.queue.count() if self._count is None else self._count

    def _push_late(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # `_push` keeps it for the next call
            self._timer = None
            self._push()

    def _push(self) -> None:
        if self._failure:
            raise self._failure
        try:
            for start in range(0, len(self._messages), BATCH_MESSAGES):
                batch = self._messages[start : start + BATCH_MESSAGES]
                self._count = self.queue.push(*batch)
                self.pushed += len(batch)
        except Exception as error:
            self._failure = error
            raise
        self._messages, self._size = [], 0


def _read_text_lines(lines: list[bytes], max_bytes: int) -> LinesRead:
    try:
        b"\n".join(lines).decode()  # all at once is much faster than each
        if max(map(len, lines)) <= max_bytes:
            return [line for line in lines if line], len(lines), None
    except UnicodeDecodeError:
        pass
    return _read_one_by_one(lines, lambda line: validate_message(validate_utf8(line), max_bytes))


PLAIN_STRING = re.compile(rb'"([^"\\\x00-\x1f]+)"')  # a JSON string without escapes


def _read_json_lines(lines: list[bytes], max_bytes: int, pace: Pace) -> LinesRead:
    def read(line: bytes) -> bytes:
        plain = PLAIN_STRING.fullmatch(line)
        if plain:
            return validate_message(validate_utf8(plain[1]), max_bytes)
        return encode_message(parse_json(line, pace), max_bytes, pace=pace)

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


def _split(blocks: Iterable[bytes], max_line_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines of a body, some at a time, without their ends; what came before a cut is yielded first."""
    rest, is_start = bytearray(), True
    for block in blocks:
        rest += block
        if b"\n" in block:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            yield _trim(lines, is_start)
            is_start = False
        if len(rest) > max_line_bytes:
            raise ApiError(413, "message_too_large", "A line is longer than a message may be.", limit=max_line_bytes)
    yield _trim([bytes(rest)], is_start)


def _trim(lines: list[bytes], is_start: bool) -> list[bytes]:
    """Return the lines without their carriage returns, and without the byte order mark at the start of the body."""
    if is_start:
        lines[0] = lines[0].removeprefix(BOM)
    return [line.removesuffix(b"\r") for line in lines]


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
    return _join(text for chunk in chunks for value in chunk for text in (*_json_parts(value), "\n"))


def as_json(chunks: Iterable[list[Any]], rest: dict[str, Any]) -> Iterator[str]:
    """Yield the JSON answer whose `messages` are these, with the other fields after them."""
    return _join(chain(['{"success":true,"messages":['], _json_list(chunks), ["]," + compact(rest)[1:] + "\n"]))


def _json_list(chunks: Iterable[list[Any]]) -> Iterator[str]:
    comma = ""
    for chunk in chunks:
        for value in chunk:
            yield comma
            yield from _json_parts(value)
            comma = ","


def _json_parts(value: Any) -> Iterator[str]:
    """Yield the JSON text of a value; a long text in parts, as escaping makes it up to six times as long."""
    if not isinstance(value, str) or len(value) <= PART_CHARACTERS:
        yield compact(value)
        return
    yield '"'
    for start in range(0, len(value), PART_CHARACTERS):
        yield compact(value[start : start + PART_CHARACTERS])[1:-1]
    yield '"'


def _join(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts joined to parts worth sending, so that a client that is slow to read holds little memory."""
    waiting, size = [], 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= PART_CHARACTERS:
            yield "".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


def prefetch(chunks: Iterator[Any]) -> Iterator[Any]:
    """Return the iterator with its first chunk already made, so that an early failure is answered with a status."""
    first = next(chunks, None)

    def resume() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from chunks

    return resume()
