"""Read and search the messages of a queue while other clients push and pop."""

import time
from collections.abc import Iterator, Set

from broker.script import COUNT_WITHIN
from RedisQueue import RedisQueue

CHUNK_BYTES = 1 << 18  # read from Redis at once; a larger message comes alone
FIRST_CHUNK = 16  # messages in the first chunk
MAX_CHUNK = 8000  # messages in a chunk
MAX_UNEVEN_CHUNK = 1000  # messages in a chunk of a list that is not even
UNCOUNTED_CHUNK = 250  # the same, where no script may count the bytes before

# A list is even if a chunk of it can be read without checking the sizes of its messages:
EVEN_LIST_BYTES = 1 << 25  # it has at most this size,
EVEN_AVERAGE = 256  # its last messages have at most this size on average, in bytes,
EVEN_EXCESS = 1 << 20  # and it is at most this many bytes larger than if all messages were of that size
ENTRY_BYTES = 12  # overhead of a list for each message

SEARCHED_BYTES = 1 << 16  # of a message that are searched before other threads run


class Scan:
    """Read the waiting messages in pop order, in chunks, in constant memory.

    Each chunk is read together with the end of the previous one. The distance by which that end has moved is the number
    of messages popped in between. A message that waits throughout is read once, unless an equal one waits too.
    """

    def __init__(self, queue: RedisQueue, offset: int = 0) -> None:
        self.queue = queue
        self.position = offset  # of the next message, 0 being next to be popped
        self._last, self._last_before = list[bytes](), list[bytes]()
        self._size, self._average = FIRST_CHUNK, 0
        self._fitting = _read(queue, offset, 0, 0)[1]

    def read(self, limit: int | None = None) -> list[bytes]:
        """Return the next chunk, of up to `limit` messages; an empty list at the end of the queue."""
        wanted = max(1, min(self._size, self._fitting, self._size if limit is None else limit))
        before = self._last
        chunk, self.position, self._fitting = _read_after(self.queue, self.position, before, wanted, self._average)
        if chunk:
            self._average = max(1, sum(map(len, chunk)) // len(chunk))
            self._size = max(1, min(MAX_CHUNK, CHUNK_BYTES // self._average, self._size * 8))
            self._last, self._last_before = self._end_of(chunk), before
        return chunk

    def _end_of(self, messages: list[bytes]) -> list[bytes]:
        return messages[-min(100, max(1, self._size // 4)) :]

    def drop(self, chunk: list[bytes], removed: Set[int]) -> None:
        """Continue after the messages at these indexes of the last chunk were removed."""
        left = [message for index, message in enumerate(chunk) if index not in removed]
        self.position -= len(removed)
        self._last = self._end_of(self._last_before + left)


def iter_messages(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, in chunks, as `Scan` reads them."""
    scan = Scan(queue, offset)
    while (limit is None or limit > 0) and (chunk := scan.read(limit)):
        yield chunk
        limit = None if limit is None else limit - len(chunk)


def contains(message: bytes, text: bytes) -> bool:
    """Return whether a message contains a text, which is in lower case; ASCII letters match in either case."""
    if len(message) <= SEARCHED_BYTES:
        return text in message.lower()
    for start in range(0, len(message), SEARCHED_BYTES):
        if text in message[start : start + SEARCHED_BYTES + len(text) - 1].lower():
            return True
        time.sleep(0)
    return False


def _read(queue: RedisQueue, offset: int, limit: int, average: int) -> tuple[list[bytes], int]:
    """Return up to `limit` messages, and the number of messages after them that fit in the next chunk.

    Counting those takes longer than reading them, so it is skipped if the list is even: about as large as if all its
    messages had the `average` size of the last ones, in bytes. It is also skipped if that is unknown (0) or large.
    """
    window = (-offset - limit, -offset - 1) if limit else (1, 0)  # as RedisQueue.all; LRANGE 1 0 is empty
    with queue.client.pipeline(transaction=False) as pipeline:
        pipeline.lrange(queue.key, *window)
        pipeline.llen(queue.key)
        pipeline.memory_usage(queue.key, samples=0)
        messages, count, size = pipeline.execute(raise_on_error=False)
    for reply in (messages, count):
        if isinstance(reply, Exception):
            raise reply
    is_small = isinstance(size, int) and size <= EVEN_LIST_BYTES and average <= EVEN_AVERAGE
    if is_small and size - count * (average + ENTRY_BYTES) <= EVEN_EXCESS:
        fitting = MAX_CHUNK
    elif average == 0 or average > CHUNK_BYTES // 4:
        fitting = 1
    elif not getattr(queue, "runs_scripts", True):
        fitting = UNCOUNTED_CHUNK
    else:
        arguments = [offset + limit, MAX_UNEVEN_CHUNK, CHUNK_BYTES]
        fitting = int(COUNT_WITHIN.run_once(queue.client, [queue.key], arguments))
    return messages[::-1], fitting


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
            found, end = window[at + len(last) :][:wanted], start + at + len(last)
            if not found and at > 0:  # so many messages were put in front that the window ends with `last`
                return _read_after(queue, end, last, wanted, average)
            return found, end + len(found), fitting
        if start == 0:
            break
        start -= wanted
    for message in last[:-4:-1]:  # more messages were put in front than the window holds, or one of `last` was removed
        before = _count_before(queue, message)
        if before is not None:
            return _read_after(queue, before + 1, [message], wanted, average)
    # All messages read so far have left the queue, so none of those waiting was read.
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
