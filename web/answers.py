"""Stream lists of messages of any length from Redis to the client, as JSON or NDJSON, in constant memory."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from broker.attached.queue import AttachedQueue
from broker.models import Details, Exported
from broker.queue import ReliableQueue
from broker.scan import iter_messages
from RedisQueue import RedisQueue
from web.input.codec import MAX_VALUE_BYTES, decode_message, preview
from web.input.exported import write_exported
from web.input.raw_json import is_plain

PREVIEW_BATCH = 100  # previews read from Redis at once
FIRST_PREVIEWS = 10  # the number of the first ones, whose sizes are not known
MAX_PREVIEWED_BYTES = 1 << 20  # of messages of which previews are read at once, if all are of the average size
NO_LIMIT = 1 << 62  # more messages than there can be
PART_CHARACTERS = 1 << 15  # an answer is made in parts of about this size

MAX_SEARCH_PAUSE = 0.01  # seconds after a step of a search; as long as the step if that took less

T = TypeVar("T")

_search_lock = threading.Lock()
_encoder = msgspec.json.Encoder()


def iter_waiting(queue: RedisQueue, offset: int, limit: int | None) -> Iterator[list[Any]]:
    """Yield the waiting messages in chunks, as bytes; the next chunk is read while the current one is sent."""
    chunks, thread = iter_messages(queue, offset, limit), ThreadPoolExecutor(1)
    try:
        future = thread.submit(next, chunks, None)
        while (chunk := future.result()) is not None:
            future = thread.submit(next, chunks, None)
            time.sleep(0)  # let the thread send its command now
            yield chunk
    finally:
        thread.shutdown(wait=False)


def iter_previews(queue: ReliableQueue, offset: int, limit: int, characters: int) -> Iterator[list[Any]]:
    """Yield the previews of the waiting messages in chunks; only the beginning of each message leaves Redis."""
    end, batch = offset + limit, FIRST_PREVIEWS
    while offset < end:
        heads = queue.state(min(batch, end - offset), offset, 4 * characters).heads
        if not heads:
            return
        yield [content_of(queue, head, size, characters) for head, size in heads]
        offset += len(heads)
        average = 1 + sum(size for _, size in heads) // len(heads)
        batch = max(1, min(PREVIEW_BATCH, MAX_PREVIEWED_BYTES // average))


def iter_details(queue: ReliableQueue, offset: int, limit: int, characters: int | None) -> Iterator[list[Any]]:
    """Yield the waiting messages in chunks, each with its details; whole (`characters` None) or as a preview."""
    end = offset + limit
    while offset < end:
        found = queue.details(min(PREVIEW_BATCH, end - offset), offset, _head_bytes(characters))
        if not found:
            return
        yield [content_of(queue, head, size, characters) | _details(details) for head, size, details in found]
        offset += len(found)


def in_turns(steps: Iterator[T]) -> Iterator[T]:
    """Yield the steps of a search: one at a time in this process, with pauses in which Redis serves the others."""
    while True:
        with _search_lock:
            started = time.monotonic()
            step = next(steps, None)
            time.sleep(min(MAX_SEARCH_PAUSE, time.monotonic() - started))
        if step is None:
            return
        yield step


def iter_found(
    queue: ReliableQueue,
    text: str | None,
    reason: str | None,
    offset: int,
    limit: int | None,
    characters: int | None,
    details: bool,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the waiting messages that contain a text and failed for a reason, as far as these are given.

    They have their positions, and come in chunks; a chunk can be empty.
    """
    left = NO_LIMIT if limit is None else limit
    steps = in_turns(queue.find(text or "", _head_bytes(characters), offset, details, reason))
    while left > 0 and (found := next(steps, None)) is not None:
        yield [
            {"position": one.position, **content_of(queue, one.head, one.size, characters), **_details(one.details)}
            for one in found[:left]
        ]
        left -= len(found)


def iter_held(
    queue: ReliableQueue, kind: str, offset: int, limit: int | None, characters: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the "reserved" or "delayed" messages in chunks, the earliest deadline first."""
    last, left = None, NO_LIMIT if limit is None else limit
    while left > 0:
        found = queue.in_flight(kind, min(left, PREVIEW_BATCH), _head_bytes(characters), offset, last)
        if not found:
            return
        yield [
            {"id": one.id, **_content(one.head, one.size, characters)}
            | {"deadline": one.deadline, **({"by": one.by} if one.by else {}), **_details(one.details)}
            for one in found
        ]
        last, left = found[-1], left - len(found)


def iter_exported(queue: ReliableQueue, dead: ReliableQueue | None) -> Iterator[list[dict[str, Any]]]:
    """Yield all messages of a queue and of its dead letters, if it has any, in chunks, as `import` takes them.

    While a queue is paused, its messages move on in this order only: none is missed, though one can be yielded twice.
    """
    for one in (queue, dead) if dead else (queue,):
        for kind in ("reserved", "delayed"):
            last = None
            while found := one.in_flight(kind, PREVIEW_BATCH, MAX_VALUE_BYTES, 0, last):
                yield [_exported(one is dead, kind, each.head, each.details, each.deadline) for each in found]
                last = found[-1]
        for chunk in in_turns(one.find("", MAX_VALUE_BYTES, details=True)):
            yield [_exported(one is dead, "waiting", each.head, each.details or Details()) for each in chunk]


def _exported(is_dead: bool, state: str, message: bytes, details: Details, deadline: float = 0) -> dict[str, Any]:
    is_delayed = state == "delayed" and not is_dead
    return write_exported(Exported(message, "dead" if is_dead else state, details, deadline if is_delayed else 0))


def _head_bytes(characters: int | None) -> int:
    """Return the number of bytes at the start of a message that a preview needs; None: the whole message."""
    return MAX_VALUE_BYTES if characters is None else 4 * characters


def content_of(queue: ReliableQueue, head: bytes, size: int, characters: int | None) -> dict[str, Any]:
    """Return the fields of a waiting message: whole (`characters` None) or its preview, and its summary if it has one.

    `head` may be longer than the preview.
    """
    summary = queue.summary(head, size) if isinstance(queue, AttachedQueue) else None
    return _content(head, size, characters) | ({"summary": summary} if summary else {})


def _content(head: bytes, size: int, characters: int | None) -> dict[str, Any]:
    """Return the fields of a whole message (`characters` None) or of its preview."""
    if characters is None:
        return {"message": decode_message(head)}
    return preview(head[: _head_bytes(characters)], size, characters)


def _details(details: Details | None) -> dict[str, Any]:
    """Return the fields of a message's details; none if they were not requested."""
    if details is None:
        return {}
    times = {"failed": details.failed, "died": details.died}
    known = {name: when for name, when in times.items() if when is not None}
    return {"deliveries": details.deliveries, **({"reason": details.reason} if known else {}), **known}


def as_ndjson(chunks: Iterable[list[Any]]) -> Iterator[bytes]:
    """Yield one line of JSON per message. The chunks are lists of messages, as bytes, or of JSON values."""
    for chunk in filter(None, chunks):
        if _is_long(chunk):
            yield from _join((*_json_parts(chunk[0]), b"\n"))
        else:
            quoted = _quote_all(chunk, b"\n")
            yield quoted + b"\n" if quoted else _encoder.encode_lines(decode_all(chunk))


def as_json(chunks: Iterable[list[Any]], rest: dict[str, Any]) -> Iterator[bytes]:
    """Yield a JSON answer with these `messages`, followed by the fields of `rest`."""
    before = b'{"success":true,"messages":['
    for chunk in filter(None, chunks):
        if _is_long(chunk):
            yield from _join((before, *_json_parts(chunk[0])))
        else:
            yield before + (_quote_all(chunk, b",") or _encoder.encode(decode_all(chunk))[1:-1])
        before = b","
    yield (b"" if before == b"," else before) + b"]," + _encoder.encode(rest)[1:] + b"\n"


def decode_all(chunk: list[Any]) -> list[Any]:
    """Return the JSON values of messages; JSON values stay as they are."""
    return [decode_message(one) if isinstance(one, bytes) else one for one in chunk]


def _quote_all(chunk: list[Any], between: bytes) -> bytes:
    """Return messages as JSON strings separated by `between`; b"" if any needs more than quotes."""
    if not isinstance(chunk[0], bytes):
        return b""
    separator = b'"%b"' % between
    joined = separator.join(chunk)
    return b'"%b"' % joined if is_plain(joined, separator, len(chunk)) else b""


def _is_long(chunk: list[Any]) -> bool:
    """Return whether the chunk is a single message that is encoded in parts; such a message always comes alone."""
    return len(chunk) == 1 and len(chunk[0]) > PART_CHARACTERS


def _json_parts(value: Any) -> Iterator[bytes]:
    """Yield the JSON text of a value; a long string in parts, because escaping can make it six times as long."""
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
    """Join the texts into parts of about PART_CHARACTERS bytes, so that a slow client ties up little memory."""
    waiting, size = list[bytes](), 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= PART_CHARACTERS:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
