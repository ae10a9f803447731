"""Walking a queue that moves meanwhile."""

from collections.abc import Iterator

from broker.queue import Script
from RedisQueue import RedisQueue

CHUNK_BYTES = 1 << 18  # read from Redis at once; a larger message comes alone
EVEN_LIST_BYTES = 1 << 25  # of a list of which chunks may be read without a look at how large they are,
EVEN_AVERAGE = 256  # bytes of a message in it, on the average,
EVEN_EXCESS = 1 << 20  # and bytes that the list has more than if all messages were as the last ones
ENTRY_BYTES = 12  # that a list takes for a message beside its own bytes
FIRST_CHUNK = 16  # messages in the first chunk
MAX_CHUNK = 8000  # messages in a chunk

_FITTING = Script("count_within.lua", flags="no-writes")


def iter_messages(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, in chunks, in constant memory.

    Others may push and pop meanwhile: each chunk is read together with the end of the one before, and how far that end
    has moved tells how many messages were popped. A message that waits throughout is seen once, unless an equal one
    waits too.
    """
    position, last, size, average = offset, list[bytes](), FIRST_CHUNK, 0
    fitting = _count_fitting(queue, offset)
    while limit is None or limit > 0:
        wanted = max(1, min(size, fitting, size if limit is None else limit))
        chunk, position, fitting = _after(queue, position, last, wanted, average)
        if not chunk:
            return
        yield chunk
        if limit is not None:
            limit -= len(chunk)
        average = max(1, sum(map(len, chunk)) // len(chunk))
        size = max(1, min(MAX_CHUNK, CHUNK_BYTES // average, size * 8))
        last = chunk[-min(100, max(1, size // 4)) :]


def _count_fitting(queue: RedisQueue, offset: int) -> int:
    """Return how many messages from an offset have up to CHUNK_BYTES together, in one chunk."""
    return int(_FITTING.run_once(queue.client, [queue.key], [offset, MAX_CHUNK, CHUNK_BYTES]))


def _read(queue: RedisQueue, offset: int, limit: int, average: int) -> tuple[list[bytes], int]:
    """Return up to `limit` messages, and how many of those after them fit in the next chunk.

    To count those takes longer than to read them, so it is not done where the whole list is about as large as it is if
    all messages have the `average` of the last ones, in bytes.
    """
    with queue.client.pipeline(transaction=False) as pipeline:
        pipeline.lrange(queue.key, -offset - limit, -offset - 1)  # as RedisQueue.all
        pipeline.llen(queue.key)
        pipeline.memory_usage(queue.key, samples=0)
        messages, count, size = pipeline.execute(raise_on_error=False)
    for answer in (messages, count):
        if isinstance(answer, Exception):
            raise answer
    is_known = isinstance(size, int) and size <= EVEN_LIST_BYTES and average <= EVEN_AVERAGE
    is_even = is_known and size - count * (average + ENTRY_BYTES) <= EVEN_EXCESS
    return messages[::-1], MAX_CHUNK if is_even else _count_fitting(queue, offset + limit)


def _after(
    queue: RedisQueue, position: int, last: list[bytes], wanted: int, average: int
) -> tuple[list[bytes], int, int]:
    """Return up to `wanted` messages that follow `last`, which ended before `position`.

    Also return the position after them, and how many of those that follow fit in the next chunk.
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
    for message in last[:-4:-1]:  # more was put in front than the window holds, or a message of `last` was removed
        before = _before(queue, message)
        if before is not None:
            return _after(queue, before + 1, [message], wanted, average)
    # All that was read has left the queue, so nothing that waits was read.
    window, fitting = _read(queue, 0, wanted, average)
    return window, len(window), fitting


def _before(queue: RedisQueue, message: bytes) -> int | None:
    """Return how many messages wait before this one, None where it does not wait."""
    with queue.client.pipeline() as transaction:
        transaction.lpos(queue.key, message, rank=-1)
        transaction.llen(queue.key)
        index, count = transaction.execute()
    return None if index is None else count - 1 - index


def _find(window: list[bytes], last: list[bytes], near: int) -> int | None:
    """Return where `last` stands in the window, at the place nearest to `near`; None where it does not.

    The result is negative when the beginning of `last` was popped: the window [c, d] and `last` [a, b, c] give -2.
    """
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
