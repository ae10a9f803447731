"""Bodies of any length, in and out, in constant memory."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import redis

from broker.models import Details, Search
from broker.queue import ReliableQueue
from broker.scan import iter_messages
from RedisQueue import RedisQueue
from web.errors import ApiError, from_redis
from web.input.codec import (
    BOM,
    MAX_VALUE_BYTES,
    Limits,
    decode_message,
    encode_lines,
    encode_message,
    preview,
    validate_message,
    validate_messages,
    validate_utf8,
)
from web.input.raw_json import NDJSON, compact_json, is_plain

BATCH_MESSAGES = 1000  # messages in one LPUSH
BATCH_BYTES = 1 << 20  # about how much is pushed at once
MAX_DELAY = 0.02  # seconds until a message of a stream that has come is pushed, with those that came meanwhile
RECORD_INTERVAL = 0.1  # seconds between two records of what a stream has pushed: each takes some microseconds
PREVIEW_BATCH = 100  # previews read from Redis at once
MAX_FOUND = 1 << 62  # more messages than there can be
PART_CHARACTERS = 1 << 15  # about how much of an answer is made at once
JSON_ESCAPE_BYTES = 6  # bytes that JSON may need for one byte of a message
LINE_OVERHEAD_BYTES = 1024  # white space and quotes that a line may hold beside its message

T = TypeVar("T")

_encoder = msgspec.json.Encoder()

# Of some lines: the messages before the first that cannot be taken, the number of lines before it, and its error.
LinesRead = tuple[list[bytes], int, ApiError | None]


def push_lines(
    queue: RedisQueue,
    blocks: Iterable[bytes],
    kind: str,
    max_bytes: int,
    record: Callable[[dict[str, int]], object] = lambda _: None,
) -> tuple[int, int]:
    """Push one message per line, soon after the line came; return how many, and the queue's length after.

    The lines are JSON values (`kind` NDJSON) or text. Empty lines are skipped; CR LF ends a line too, and a byte order
    mark before the first line is dropped. A last line without an end counts if the body is complete. A message may
    have `max_bytes` bytes. `record` is told, every RECORD_INTERVAL, what the answer tells of all.

    Raises:
        ApiError: a line cannot be taken, or the body is cut, or Redis refuses. `pushed` says how many messages were
            stored until then, `line` which line it was.
    """
    writer, line, failure = _Writer(queue, record), 0, None
    read, limits = _read_json_lines if kind == NDJSON else _read_text_lines, Limits(max_bytes)
    try:
        try:
            for lines in _split(blocks, max_bytes * (JSON_ESCAPE_BYTES if kind == NDJSON else 1) + LINE_OVERHEAD_BYTES):
                messages, lines_read, error = read(lines, limits)
                writer.add(messages)
                line += lines_read
                if error:
                    raise error
        except ApiError as error:
            failure = error
        count = writer.close()
    except redis.RedisError as error:
        raise from_redis(error).with_details(pushed=writer.pushed) from error
    finally:
        writer.record_pushed()
    if failure:
        raise failure.with_details(pushed=writer.pushed, line=line + 1)
    return writer.pushed, count


class _Writer:
    """Pushes the messages of a stream in order: full batches at once, what is left when it has been here for a moment.

    The next batch is read while the last is pushed. After a failed push nothing more is pushed; the next call raises
    its error.
    """

    def __init__(self, queue: RedisQueue, record: Callable[[dict[str, int]], object]) -> None:
        self.queue = queue
        self.record = record
        self.pushed = 0
        self._recorded, self._recorded_at = 0, -math.inf
        self._count: int | None = None
        self._messages: list[bytes] = []
        self._size = 0
        self._pushing: Future[None] | None = None  # the last push, which may have failed
        self._thread = ThreadPoolExecutor(1)
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def add(self, messages: list[bytes]) -> None:
        """Take messages; they are pushed within MAX_DELAY, whether more come or not."""
        with self._lock:
            self._messages += messages
            number = len(self._messages)
            if number >= BATCH_MESSAGES:
                self._start_push(number - number % BATCH_MESSAGES)
            elif self._add_size(messages) >= BATCH_BYTES:
                self._start_push(number)
            if self._messages and self._timer is None:
                self._timer = threading.Timer(MAX_DELAY, self._push_late)
                self._timer.daemon = True
                self._timer.start()

    def _add_size(self, messages: list[bytes]) -> int:
        self._size += sum(map(len, messages))
        return self._size

    def close(self) -> int:
        """Push what is left; return the queue's length after the last push."""
        try:
            with self._lock:
                if self._timer:
                    self._timer.cancel()
                self._start_push(len(self._messages))
                self._wait()
        finally:
            self._thread.shutdown(wait=False)
        return self.queue.count() if self._count is None else self._count

    def _push_late(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # the next call raises it
            self._timer = None
            self._start_push(len(self._messages))

    def _start_push(self, number: int) -> None:
        """Push so many messages. Few that are left over are not counted in the size."""
        self._wait()
        messages, self._messages, self._size = self._messages[:number], self._messages[number:], 0
        self._pushing = self._thread.submit(self._push, messages)
        time.sleep(0)  # let it send the first batch now

    def _wait(self) -> None:
        if self._pushing:
            self._pushing.result()

    def _push(self, messages: list[bytes]) -> None:
        for start in range(0, len(messages), BATCH_MESSAGES):
            batch = messages[start : start + BATCH_MESSAGES]
            self._count = self.queue.push(*batch)
            self.pushed += len(batch)
            if time.monotonic() - self._recorded_at >= RECORD_INTERVAL:
                self.record_pushed()

    def record_pushed(self) -> None:
        """Record what was pushed since the last record."""
        if self.pushed > self._recorded:
            self.record({"pushed": self.pushed - self._recorded, "count": self._count or 0})
            self._recorded, self._recorded_at = self.pushed, time.monotonic()


def _read_text_lines(lines: list[bytes], limits: Limits) -> LinesRead:
    try:
        b"\n".join(lines).decode()  # all at once is much faster than each
        return validate_messages(list(filter(None, lines)), limits), len(lines), None
    except (UnicodeDecodeError, ApiError):
        return _read_one_by_one(lines, lambda line: validate_message(validate_utf8(line), limits))


def _read_json_lines(lines: list[bytes], limits: Limits) -> LinesRead:
    messages = encode_lines(list(filter(None, lines)), limits)
    if messages is not None:
        return messages, len(lines), None

    def read(line: bytes) -> bytes:
        return encode_message(compact_json(validate_utf8(line).removeprefix(BOM)), limits)

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
            yield _trim(lines, is_start, has_returns=b"\r" in block or lines[0].endswith(b"\r"))
            is_start = False
        if len(rest) > max_line_bytes:
            raise ApiError(413, "message_too_large", "A line is longer than a message may be.", limit=max_line_bytes)
    yield _trim([bytes(rest)], is_start, has_returns=True)


def _trim(lines: list[bytes], is_start: bool, has_returns: bool) -> list[bytes]:
    """Return the lines without their carriage returns, and without the byte order mark at the start of the body."""
    if is_start:
        lines[0] = lines[0].removeprefix(BOM)
    return [line.removesuffix(b"\r") for line in lines] if has_returns else lines


def iter_waiting(queue: RedisQueue, offset: int, limit: int | None) -> Iterator[list[Any]]:
    """Yield the waiting messages, some at a time, as bytes."""
    return _read_ahead(iter_messages(queue, offset, limit))


def _read_ahead(chunks: Iterator[T]) -> Iterator[T]:
    """Yield the chunks; the next one is read while the last is sent."""
    thread = ThreadPoolExecutor(1)
    try:
        future = thread.submit(next, chunks, None)
        while (chunk := future.result()) is not None:
            future = thread.submit(next, chunks, None)
            time.sleep(0)  # let it send its command now
            yield chunk
    finally:
        thread.shutdown(wait=False)


def iter_previews(queue: ReliableQueue, offset: int, limit: int, characters: int) -> Iterator[list[Any]]:
    """Yield the previews of the waiting messages, some at a time; only their first bytes leave Redis."""
    for start in range(offset, offset + limit, PREVIEW_BATCH):
        heads = queue.state(min(PREVIEW_BATCH, offset + limit - start), start, 4 * characters).heads
        yield [preview(head, size, characters) for head, size in heads]


def iter_details(queue: ReliableQueue, offset: int, limit: int, characters: int | None) -> Iterator[list[Any]]:
    """Yield what is known of the waiting messages, some at a time, each with its preview or as a whole (None)."""
    end = offset + limit
    while offset < end:
        found = queue.details(min(PREVIEW_BATCH, end - offset), offset, head_bytes(characters))
        if not found:
            return
        yield [show(head, size, characters) | show_details(details) for head, size, details in found]
        offset += len(found)


def iter_found(
    queue: ReliableQueue, text: str, offset: int, limit: int | None, characters: int | None, details: bool
) -> Iterator[list[dict[str, Any]]]:
    """Yield the waiting messages that hold a text, with their positions, some at a time; a list may be empty."""
    search, left = Search(offset), MAX_FOUND if limit is None else limit
    while left > 0 and not search.is_over:
        found, search = queue.find(text, min(left, PREVIEW_BATCH), head_bytes(characters), search, details)
        yield [
            {"position": one.position, **show(one.head, one.size, characters), **show_details(one.details)}
            for one in found
        ]
        left -= len(found)


def iter_held(
    queue: ReliableQueue, kind: str, offset: int, limit: int | None, characters: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the messages that are "reserved" or "delayed", the soonest to come back first, some at a time."""
    last, left = None, MAX_FOUND if limit is None else limit
    while left > 0:
        found = queue.in_flight(kind, min(left, PREVIEW_BATCH), head_bytes(characters), offset, last)
        if not found:
            return
        yield [
            {"id": one.id, **show(one.head, one.size, characters), "deliveries": one.deliveries}
            | {"deadline": one.deadline, **show_failure("failed", one.failed, one.reason)}
            for one in found
        ]
        last, left = found[-1], left - len(found)


def head_bytes(characters: int | None) -> int:
    """Return how many bytes of a message are needed to show so many characters of it; all for None."""
    return MAX_VALUE_BYTES if characters is None else 4 * characters


def show(head: bytes, size: int, characters: int | None) -> dict[str, Any]:
    """Return a message as a whole (`characters` None), or its preview."""
    return {"message": decode_message(head)} if characters is None else preview(head, size, characters)


def show_details(details: Details | None) -> dict[str, Any]:
    """Return what is known of a message; nothing if it was not asked for."""
    if details is None:
        return {}
    when = "died" if details.died else "failed"
    return {"deliveries": details.deliveries, **show_failure(when, details.failed, details.reason)}


def show_failure(when: str, failed: float | None, reason: str) -> dict[str, Any]:
    """Return why a message failed last and when (Unix seconds); nothing if it did not."""
    return {} if failed is None else {"reason": reason, when: failed}


def as_ndjson(chunks: Iterable[list[Any]]) -> Iterator[bytes]:
    """Yield one line of JSON per message: the chunks are lists of messages, as bytes, or of JSON values."""
    for chunk in filter(None, chunks):
        if _is_long(chunk):
            yield from _join((*_json_parts(chunk[0]), b"\n"))
        else:
            quoted = _quote_all(chunk, b"\n")
            yield quoted + b"\n" if quoted else _encoder.encode_lines(decode_all(chunk))


def as_json(chunks: Iterable[list[Any]], rest: dict[str, Any]) -> Iterator[bytes]:
    """Yield the JSON answer whose `messages` are these, with the other fields after them."""
    before = b'{"success":true,"messages":['
    for chunk in filter(None, chunks):
        if _is_long(chunk):
            yield from _join((before, *_json_parts(chunk[0])))
        else:
            yield before + (_quote_all(chunk, b",") or _encoder.encode(decode_all(chunk))[1:-1])
        before = b","
    yield (b"" if before == b"," else before) + b"]," + _encoder.encode(rest)[1:] + b"\n"


def decode_all(chunk: list[Any]) -> list[Any]:
    """Return the JSON values of messages; what is a value already stays."""
    return [decode_message(one) if isinstance(one, bytes) else one for one in chunk]


def _quote_all(chunk: list[Any], between: bytes) -> bytes:
    """Return messages as JSON strings, with something between; b"" if their JSON takes more than quotes."""
    if not isinstance(chunk[0], bytes):
        return b""
    separator = b'"%b"' % between
    joined = separator.join(chunk)
    return b'"%b"' % joined if is_plain(joined, separator, len(chunk)) else b""


def _is_long(chunk: list[Any]) -> bool:
    """Return whether the chunk is one message that is so long that its JSON is made in parts; it comes alone."""
    return len(chunk) == 1 and len(chunk[0]) > PART_CHARACTERS


def _json_parts(value: Any) -> Iterator[bytes]:
    """Yield the JSON text of a value; a long text in parts, as escaping makes it up to six times as long."""
    if isinstance(value, bytes):
        value = decode_message(value)
    if not isinstance(value, str):
        yield _encoder.encode(value)
        return
    yield b'"'
    for start in range(0, len(value), PART_CHARACTERS):
        yield _encoder.encode(value[start : start + PART_CHARACTERS])[1:-1]
    yield b'"'


def _join(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the texts joined to parts worth sending, so that a client that is slow to read holds little memory."""
    waiting, size = list[bytes](), 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= PART_CHARACTERS:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def prefetch(chunks: Iterator[Any]) -> Iterator[Any]:
    """Return the iterator with its first chunk already made, so that an early failure is answered with a status."""
    first = next(chunks, None)

    def resume() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from chunks

    return resume()
