"""Bodies of any length, in and out, in constant memory."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis
from flask import current_app

from broker.reliable import ReliableQueue
from RedisQueue import RedisQueue
from web import errors as answers
from web.body import checked, compact, message_of, parse_json, preview_of, utf8, value_of
from web.errors import Refusal

BATCH = 1000  # messages in one LPUSH
PIECE = 1 << 20  # bytes: about how much is read from Redis, or pushed to it, at once
FIRST = 16  # messages in the first piece, before their size is known
MOST = 1000  # messages in a piece, for those behind small ones may be large
JSON_ESCAPE = 6  # bytes that JSON may need for one byte of a message


def push_lines(queue: RedisQueue, blocks: Iterable[bytes], ndjson: bool) -> tuple[int, int]:
    """Push a message a line, in batches, as the lines come; return how many, and the queue's length after.

    Empty lines are skipped; CR LF ends a line too. A last line without an end counts if the body is whole.

    Raises:
        Refusal: a line cannot be taken, or the body is cut, or Redis refuses. `pushed` says how many messages were
            stored until then, `line` which line it was.
    """
    pushed, line, count = 0, 0, 0
    read = _json_lines if ndjson else _text_lines
    try:
        for lines in _batches(blocks, ndjson):
            batch, refusal = read(lines)
            if batch:
                count = queue.push(*batch)
                pushed += len(batch)
            if refusal:
                refusal.more["line"] += line
                raise refusal
            line += len(lines)
        return pushed, count if pushed else queue.count()
    except redis.RedisError as error:
        refused = answers.from_redis(error)
        refused.more["pushed"] = pushed
        raise refused from error
    except Refusal as refused:
        refused.more["pushed"] = pushed
        refused.more.setdefault("line", line + 1)
        raise


def _text_lines(lines: list[bytes]) -> tuple[list[bytes], Refusal | None]:
    """Return the messages of the lines before the first that cannot be taken, and why it cannot."""
    try:
        b"\n".join(lines).decode()  # all at once is much quicker than each
        if max(map(len, lines)) <= current_app.config["MAX_MESSAGE_BYTES"]:
            return [line for line in lines if line], None
    except UnicodeDecodeError:
        pass
    return _one_by_one(lines, lambda line: checked(utf8(line)))


PLAIN = re.compile(rb'"([^"\\\x00-\x1f]+)"')  # a JSON string that stands for itself


def _json_lines(lines: list[bytes]) -> tuple[list[bytes], Refusal | None]:
    """Return the messages as `_text_lines` does."""

    def read(line: bytes) -> bytes:
        plain = PLAIN.fullmatch(line)
        return checked(utf8(plain[1])) if plain else message_of(parse_json(line))

    return _one_by_one(lines, read)


def _one_by_one(lines: list[bytes], read: Callable[[bytes], bytes]) -> tuple[list[bytes], Refusal | None]:
    messages = []
    for number, line in enumerate(lines, 1):
        if line:
            try:
                messages.append(read(line))
            except Refusal as refusal:
                refusal.more["line"] = number
                return messages, refusal
    return messages, None


def _batches(blocks: Iterable[bytes], ndjson: bool) -> Iterator[list[bytes]]:
    """Yield the lines of a body, some at a time, without their ends."""
    limit = current_app.config["MAX_MESSAGE_BYTES"] * (JSON_ESCAPE if ndjson else 1) + 1024
    rest, lines, size = b"", [], 0
    failed: Refusal | None = None
    try:
        for block in blocks:
            *whole, rest = (rest + block).split(b"\n")
            lines += whole
            size += len(block)
            if len(rest) > limit:
                raise Refusal(413, "message_too_large", "A line is longer than a message may be.", limit=limit)
            if len(lines) >= BATCH or size >= PIECE:
                for start in range(0, len(lines), BATCH):
                    yield [line.removesuffix(b"\r") for line in lines[start : start + BATCH]]
                lines, size = [], 0
        lines.append(rest)
    except Refusal as refusal:
        failed = refusal  # what came whole before is still pushed
    for start in range(0, len(lines), BATCH):
        yield [line.removesuffix(b"\r") for line in lines[start : start + BATCH]]
    if failed:
        raise failed


def walk(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, some at a time, in constant memory.

    Others may push and pop meanwhile: each piece is read with the end of the one before, and what was popped since
    shows by how far that has moved. A message that waits all the while is seen once, if no other is equal to it.
    """
    position, last, size = offset, list[bytes](), FIRST
    while limit is None or limit > 0:
        wanted = size if limit is None else min(size, limit)
        piece, position = _after(queue, position, last, wanted)
        if not piece:
            return
        yield piece
        if limit is not None:
            limit -= len(piece)
        average = max(1, sum(map(len, piece)) // len(piece))
        size = max(1, min(MOST, PIECE // average, size * 8))
        last = piece[-min(100, max(1, size // 4)) :]


def _after(queue: RedisQueue, position: int, last: list[bytes], wanted: int) -> tuple[list[bytes], int]:
    """Return the messages that follow `last`, which ended before `position`, and the position after them."""
    start = position - len(last)
    while True:
        window = queue.all(max(0, start), len(last) + wanted - min(0, start))
        start = max(0, start)
        at = _find(window, last, position - len(last) - start)
        if at is not None:
            found = window[at + len(last) :][:wanted]
            return found, start + at + len(last) + len(found)
        if start == 0:
            break
        start -= wanted
    for message in last[:-4:-1]:  # more was put in front than the window holds, or some of `last` was removed
        before = _before(queue, message)
        if before is not None:
            return _after(queue, before + 1, [message], wanted)
    window = queue.all(0, wanted)  # all that was read is gone, so nothing that waits was read
    return window, len(window)


def _before(queue: RedisQueue, message: bytes) -> int | None:
    """Return how many messages wait before this one, None where it does not wait."""
    with queue.client.pipeline() as transaction:
        transaction.lpos(queue.key, message, rank=-1)
        transaction.llen(queue.key)
        index, count = transaction.execute()
    return None if index is None else count - 1 - index


def _find(window: list[bytes], last: list[bytes], near: int) -> int | None:
    """Return where `last` stands in the window, the place nearest to `near`; its beginning may be popped."""
    if not last or window[near : near + len(last)] == last:
        return max(0, near)
    for at in range(near - 1, -len(last), -1):  # messages were popped: it moved to the front
        if at >= 0 and window[at : at + len(last)] == last:
            return at
        if at < 0 and window[: len(last) + at] == last[-at:]:
            return at
    for at in range(near + 1, len(window) - len(last) + 1):  # messages were put in front: it moved back
        if window[at : at + len(last)] == last:
            return at
    return None


def values(queue: RedisQueue, offset: int, limit: int | None) -> Iterator[list[Any]]:
    """Yield the JSON values of the waiting messages, some at a time."""
    for piece in walk(queue, offset, limit):
        yield [value_of(message) for message in piece]


def previews(queue: ReliableQueue, offset: int, limit: int, characters: int) -> Iterator[list[Any]]:
    """Yield the previews of the waiting messages, some at a time; only their first bytes leave Redis."""
    for start in range(offset, offset + limit, 100):
        heads = queue.state(min(100, offset + limit - start), start, 4 * characters).shown
        yield [preview_of(head, size, characters) for head, size in heads]


def as_ndjson(pieces: Iterable[list[Any]]) -> Iterator[str]:
    """Yield a line of JSON a message."""
    for piece in pieces:
        yield "".join(compact(value) + "\n" for value in piece)


def as_json(pieces: Iterable[list[Any]], rest: dict[str, Any]) -> Iterator[str]:
    """Yield the JSON answer whose `messages` are these, with the other fields behind them."""
    yield '{"success":true,"messages":['
    comma = ""
    for piece in pieces:
        if piece:
            yield comma + compact(piece)[1:-1]
            comma = ","
    yield "]," + compact(rest)[1:] + "\n"


def started(pieces: Iterator[Any]) -> Iterator[Any]:
    """Return the iterator with its first piece already made, so that what fails at once is answered with a status."""
    first = next(pieces, None)

    def again() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from pieces

    return again()
