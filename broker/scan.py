"""Iterate over the messages of a queue while other clients push and pop."""

from collections.abc import Iterator

from broker.script import COUNT_WITHIN
from RedisQueue import RedisQueue

CHUNK_BYTES = 1 << 18  # read from Redis at once; a larger message comes alone
FIRST_CHUNK = 16  # messages in the first chunk
MAX_CHUNK = 8000  # messages in a chunk

# A list is even if a chunk of it can be read without checking the sizes of its messages:
EVEN_LIST_BYTES = 1 << 25  # it has at most this size,
EVEN_AVERAGE = 256  # its last messages have at most this size on average, in bytes,
EVEN_EXCESS = 1 << 20  # and it is at most this many bytes larger than if all messages were of that size
ENTRY_BYTES = 12  # overhead of a list for each message


def iter_messages(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, in chunks, in constant memory.

    Each chunk is read together with the end of the previous one. The distance by which that end has moved is the number
    of messages popped in between. A message that waits throughout is yielded once, unless an equal one waits too.
    """
    position, last, size, average = offset, list[bytes](), FIRST_CHUNK, 0
    fitting = _count_within(queue, offset)
    while limit is None or limit > 0:
        wanted = max(1, min(size, fitting, size if limit is None else limit))
        chunk, position, fitting = _read_after(queue, position, last, wanted, average)
        if not chunk:
            return
        yield chunk
        if limit is not None:
            limit -= len(chunk)
        average = max(1, sum(map(len, chunk)) // len(chunk))
        size = max(1, min(MAX_CHUNK, CHUNK_BYTES // average, size * 8))
        last = chunk[-min(100, max(1, size // 4)) :]


def _count_within(queue: RedisQueue, offset: int) -> int:
    """Return the number of messages from an offset that fit in one chunk."""
    return int(COUNT_WITHIN.run_once(queue.client, [queue.key], [offset, MAX_CHUNK, CHUNK_BYTES]))


def _read(queue: RedisQueue, offset: int, limit: int, average: int) -> tuple[list[bytes], int]:
    """Return up to `limit` messages, and the number of messages after them that fit in the next chunk.

    Counting those takes longer than reading them, so it is skipped if the list is even: about as large as if all its
    messages had the `average` size of the last ones, in bytes.
    """
    with queue.client.pipeline(transaction=False) as pipeline:
        pipeline.lrange(queue.key, -offset - limit, -offset - 1)  # as RedisQueue.all
        pipeline.llen(queue.key)
        pipeline.memory_usage(queue.key, samples=0)
        messages, count, size = pipeline.execute(raise_on_error=False)
    for reply in (messages, count):
        if isinstance(reply, Exception):
            raise reply
    is_small = isinstance(size, int) and size <= EVEN_LIST_BYTES and average <= EVEN_AVERAGE
    is_even = is_small and size - count * (average + ENTRY_BYTES) <= EVEN_EXCESS
    return messages[::-1], MAX_CHUNK if is_even else _count_within(queue, offset + limit)


def _read_after(
    queue: RedisQueue, position: int, last: list[bytes], wanted: int, average: int
) -> tuple[list[bytes], int, int]:
    """Return up to `wanted` messages behind `last`, which ended before `position`.

    Also return the position after them, and the number of messages that fit in the next chunk.
    """
    start = position - len(last)
    while True:
        window, fitting = _read(queue, max(0, start), len(last) + wanted - min(0, start), average)
        start = max(0, start)
        at = _find(window, last, position - len(last) - start)
        if at is not None:
            found = window[at + len(last) :][:wanted]
            return found, start + at + len(last) + len(found), fitting
        if start == 0:
            break
        start -= wanted
    for message in last[:-4:-1]:  # more messages were put in front than the window holds, or one of `last` was removed
        before = _count_before(queue, message)
        if before is not None:
            return _read_after(queue, before + 1, [message], wanted, average)
    # All messages yielded so far have left the queue, so none of those waiting was yielded.
    window, fitting = _read(queue, 0, wanted, average)
    return window, len(window), fitting


def _count_before(queue: RedisQueue, message: bytes) -> int | None:
    """Return the number of messages waiting before this one; None if it is not waiting."""
    with queue.client.pipeline() as transaction:
        transaction.lpos(queue.key, message, rank=-1)
        transaction.llen(queue.key)
        index, count = transaction.execute()
    return None if index is None else count - 1 - index


def _find(window: list[bytes], last: list[bytes], near: int) -> int | None:
    """Return the position of `last` in the window that is nearest to `near`; None if it is not there.

    It is negative if the beginning of `last` was popped: the window [c, d] and `last` [a, b, c] give -2.
    """
    if not last or window[near : near + len(last)] == last:
        return max(0, near)
    for at in range(near - 1, -len(last), -1):  # messages were popped, so it moved to the front
        if at >= 0 and window[at : at + len(last)] == last:
            return at
        if at < 0 and window[: len(last) + at] == last[-at:]:
            return at
    for at in range(near + 1, len(window) - len(last) + 1):  # messages were put in front, so it moved back
        if window[at : at + len(last)] == last:
            return at
    return None
