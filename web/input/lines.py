"""Store a streamed body: one message per line, stored as the lines arrive, in constant memory."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import redis

from broker.models import Exported
from broker.queue import ReliableQueue
from RedisQueue import RedisQueue
from web.errors import ApiError, from_redis
from web.input.codec import (
    BOM,
    Limits,
    encode_lines,
    encode_message,
    validate_message,
    validate_messages,
    validate_utf8,
)
from web.input.exported import read_exported
from web.input.raw_json import NDJSON, compact_json

BATCH_MESSAGES = 1000  # messages in one LPUSH
BATCH_BYTES = 1 << 20  # a batch this large is pushed before it is full
MAX_DELAY = 0.02  # seconds that a message waits for more to be pushed with it
RECORD_INTERVAL = 0.1  # seconds between two calls of `record`, each of which takes some microseconds
JSON_ESCAPE_BYTES = 6  # JSON needs up to this many bytes for one byte of a message
EXPORTED_OVERHEAD_BYTES = 16_384  # more in a line of an export: the reason alone can have 6,000
LINE_OVERHEAD_BYTES = 1024  # white space and quotes allowed in a line besides its message

T = TypeVar("T")
# The messages before the first invalid line, the number of lines before it, and its error.
LinesRead = tuple[list[T], int, ApiError | None]


def push_lines(
    queue: RedisQueue,
    blocks: Iterable[bytes],
    kind: str,
    max_bytes: int,
    record: Callable[[dict[str, int]], object] = lambda _: None,
) -> tuple[int, int]:
    """Push one message per line as the lines arrive; return the number pushed and the queue's length after that.

    The lines are JSON values (`kind` NDJSON) or text. Empty lines are skipped, CR LF ends a line too, and a byte order
    mark before the first line is dropped. The last line needs no line end if the body is complete. A message has up to
    `max_bytes` bytes. `record` is called with {"pushed", "count"} once per RECORD_INTERVAL, for metrics.

    Raises:
        ApiError: a line is invalid, the body is incomplete, or Redis failed. Its details are `pushed`, the number of
            messages stored, and for an invalid line its number, `line`, from 1.
    """
    read = partial(_read_json_lines if kind == NDJSON else _read_text_lines, limits=Limits(max_bytes))
    lines = _split(blocks, max_bytes * (JSON_ESCAPE_BYTES if kind == NDJSON else 1) + LINE_OVERHEAD_BYTES)
    writer = _Writer[bytes](lambda batch: queue.push(*batch), queue.count, len, record)
    return _store(lines, read, writer, "pushed")


def import_lines(
    queue: ReliableQueue, blocks: Iterable[bytes], max_bytes: int, checkpoint: Callable[[], object]
) -> tuple[int, int]:
    """Import one message per line, an object, as `push_lines` pushes; `checkpoint` is called between the lines.

    Raises:
        ApiError: as in `push_lines`; its details are `imported` and `line`.
    """
    lines = _split(blocks, max_bytes * JSON_ESCAPE_BYTES + EXPORTED_OVERHEAD_BYTES)
    writer = _Writer[Exported](
        lambda batch: queue.import_messages(batch).count, queue.count, lambda one: len(one.message), lambda _: None
    )
    read = partial(_read_one_by_one, read=lambda line: read_exported(line, max_bytes, checkpoint))
    return _store(lines, read, writer, "imported")


def _store(
    chunks: Iterable[list[bytes]], read: Callable[[list[bytes]], LinesRead[T]], writer: "_Writer[T]", field: str
) -> tuple[int, int]:
    """Store the messages of lines; return their number and the queue's length after that."""
    line, failure = 0, None
    try:
        try:
            for lines in chunks:
                messages, lines_read, error = read(lines)
                writer.add(messages)
                line += lines_read
                if error:
                    raise error
        except ApiError as error:
            failure = error
        count = writer.close()
    except redis.RedisError as error:
        raise from_redis(error).with_details(**{field: writer.pushed}) from error
    finally:
        writer.record_pushed()
    if failure:
        raise failure.with_details(**{field: writer.pushed}, line=line + 1)
    return writer.pushed, count


class _Writer(Generic[T]):
    """Pushes the messages of a stream in order: a full batch at once, a partial one after MAX_DELAY.

    A thread pushes one batch while the caller reads the next. After a failed push, nothing more is pushed, and the next
    call raises its error.
    """

    def __init__(
        self,
        push: Callable[[list[T]], int],
        count: Callable[[], int],
        size_of: Callable[[T], int],
        record: Callable[[dict[str, int]], object],
    ) -> None:
        self.push = push
        self.count = count
        self.size_of = size_of
        self.record = record
        self.pushed = 0
        self._recorded, self._recorded_at = 0, -math.inf
        self._count: int | None = None
        self._messages: list[T] = []
        self._size = 0
        self._push_in_progress: Future[None] | None = None  # or that has ended, with its error if it failed
        self._thread = ThreadPoolExecutor(1)
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def add(self, messages: list[T]) -> None:
        """Accept messages; they are pushed within MAX_DELAY, even if no more arrive."""
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

    def _add_size(self, messages: list[T]) -> int:
        self._size += sum(map(self.size_of, messages))
        return self._size

    def close(self) -> int:
        """Push the remaining messages; return the queue's length after the last push."""
        try:
            with self._lock:
                if self._timer:
                    self._timer.cancel()
                self._start_push(len(self._messages))
                self._wait()
        finally:
            self._thread.shutdown(wait=False)
        return self.count() if self._count is None else self._count

    def _push_late(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # the next call raises it
            self._timer = None
            self._start_push(len(self._messages))

    def _start_push(self, number: int) -> None:
        """Push the first `number` messages. The size ignores the few that remain."""
        self._wait()
        messages, self._messages, self._size = self._messages[:number], self._messages[number:], 0
        self._push_in_progress = self._thread.submit(self._push, messages)
        time.sleep(0)  # let the thread send the first batch now

    def _wait(self) -> None:
        if self._push_in_progress:
            self._push_in_progress.result()

    def _push(self, messages: list[T]) -> None:
        for start in range(0, len(messages), BATCH_MESSAGES):
            batch = messages[start : start + BATCH_MESSAGES]
            self._count = self.push(batch)
            self.pushed += len(batch)
            if time.monotonic() - self._recorded_at >= RECORD_INTERVAL:
                self.record_pushed()

    def record_pushed(self) -> None:
        """Record the messages pushed since the last record."""
        if self.pushed > self._recorded:
            self.record({"pushed": self.pushed - self._recorded, "count": self._count or 0})
            self._recorded, self._recorded_at = self.pushed, time.monotonic()


def _read_text_lines(lines: list[bytes], limits: Limits) -> LinesRead[bytes]:
    try:
        b"\n".join(lines).decode()  # checking all lines at once is much faster than one by one
        return validate_messages(list(filter(None, lines)), limits), len(lines), None
    except (UnicodeDecodeError, ApiError):
        return _read_one_by_one(lines, lambda line: validate_message(validate_utf8(line), limits))


def _read_json_lines(lines: list[bytes], limits: Limits) -> LinesRead[bytes]:
    messages = encode_lines(list(filter(None, lines)), limits)
    if messages is not None:
        return messages, len(lines), None

    def read(line: bytes) -> bytes:
        return encode_message(compact_json(validate_utf8(line).removeprefix(BOM)), limits)

    return _read_one_by_one(lines, read)


def _read_one_by_one(lines: list[bytes], read: Callable[[bytes], T]) -> LinesRead[T]:
    messages = []
    for number, line in enumerate(lines):
        if line:
            try:
                messages.append(read(line))
            except ApiError as error:
                return messages, number, error
    return messages, len(lines), None


def _split(blocks: Iterable[bytes], max_line_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines of a body in chunks, without their line ends; an error comes after the lines before it."""
    rest, is_start = bytearray(), True
    for block in blocks:
        rest += block
        if b"\n" in block:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            yield _trim(lines, is_start, has_returns=b"\r" in block or lines[0].endswith(b"\r"))
            is_start = False
        if len(rest) > max_line_bytes:
            raise ApiError("message_too_large", limit=max_line_bytes)
    yield _trim([bytes(rest)], is_start, has_returns=True)


def _trim(lines: list[bytes], is_start: bool, has_returns: bool) -> list[bytes]:
    """Return the lines without their carriage returns, and without a byte order mark at the start of the body."""
    if is_start:
        lines[0] = lines[0].removeprefix(BOM)
    return [line.removesuffix(b"\r") for line in lines] if has_returns else lines
