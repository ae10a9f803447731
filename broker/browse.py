"""Walking a queue that moves meanwhile."""

from collections.abc import Iterator

from RedisQueue import RedisQueue

CHUNK_BYTES = 1 << 20  # about how much is read from Redis at once
FIRST_CHUNK = 16  # messages in the first chunk, before their size is known
MAX_CHUNK = 1000  # messages in a chunk: large ones may follow small ones


def iter_messages(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, in chunks, in constant memory.

    Others may push and pop meanwhile: each chunk is read together with the end of the one before, and how far that end
    has moved tells how many messages were popped. A message that waits throughout is seen once, unless an equal one
    waits too.
    """
    position, last, size = offset, list[bytes](), FIRST_CHUNK
    while limit is None or limit > 0:
        wanted = size if limit is None else min(size, limit)
        chunk, position = _after(queue, position, last, wanted)
        if not chunk:
            return
        yield chunk
        if limit is not None:
            limit -= len(chunk)
        average = max(1, sum(map(len, chunk)) // len(chunk))
        size = max(1, min(MAX_CHUNK, CHUNK_BYTES // average, size * 8))
        last = chunk[-min(100, max(1, size // 4)) :]


def _after(queue: RedisQueue, position: int, last: list[bytes], wanted: int) -> tuple[list[bytes], int]:
    """Return up to `wanted` messages that follow `last`, which ended before `position`, and the position after them."""
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
    for message in last[:-4:-1]:  # more was put in front than the window holds, or a message of `last` was removed
        before = _before(queue, message)
        if before is not None:
            return _after(queue, before + 1, [message], wanted)
    window = queue.all(0, wanted)  # everything that was read has left the queue, so nothing that waits was read
    return window, len(window)


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
