"""Walking a queue that moves meanwhile."""

import hashlib
from collections.abc import Iterator

from redis.exceptions import NoScriptError

from RedisQueue import RedisQueue

CHUNK_BYTES = 1 << 18  # read from Redis at once; a larger message comes alone
FIRST_CHUNK = 16  # messages in the first chunk
MAX_CHUNK = 1000  # messages in a chunk

# ARGV: an offset, a number of messages, bytes. Answers how many of the messages from there may be read for those bytes.
# It looks at few at a time, so that it never holds a thousand large ones.
_COUNT_FITTING = """
local offset, limit, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count, bytes = 0, 0
while count < limit do
  local step = math.min(16, limit - count)
  local stop = -offset - count - 1
  local found = redis.call('LRANGE', KEYS[1], stop - step + 1, stop)
  for i = #found, 1, -1 do
    bytes = bytes + #found[i]
    if bytes > budget then return count end
    count = count + 1
  end
  if #found < step then break end  -- the rest is small
end
return limit
"""
_COUNT_FITTING_SHA = hashlib.sha1(_COUNT_FITTING.encode()).hexdigest()


def iter_messages(queue: RedisQueue, offset: int = 0, limit: int | None = None) -> Iterator[list[bytes]]:
    """Yield the waiting messages in pop order, in chunks, in constant memory.

    Others may push and pop meanwhile: each chunk is read together with the end of the one before, and how far that end
    has moved tells how many messages were popped. A message that waits throughout is seen once, unless an equal one
    waits too.
    """
    position, last, size = offset, list[bytes](), FIRST_CHUNK
    fitting = _count_fitting(queue, offset)
    while limit is None or limit > 0:
        wanted = max(1, min(size, fitting, size if limit is None else limit))
        chunk, position, fitting = _after(queue, position, last, wanted)
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
    return int(queue.client.eval(_COUNT_FITTING, 1, queue.key, offset, MAX_CHUNK, CHUNK_BYTES))


def _read(queue: RedisQueue, offset: int, limit: int) -> tuple[list[bytes], int]:
    """Return up to `limit` messages, and how many of those after them fit in the next chunk."""
    with queue.client.pipeline(transaction=False) as pipeline:
        pipeline.lrange(queue.key, -offset - limit, -offset - 1)  # as RedisQueue.all
        pipeline.evalsha(_COUNT_FITTING_SHA, 1, queue.key, offset + limit, MAX_CHUNK, CHUNK_BYTES)
        messages, fitting = pipeline.execute(raise_on_error=False)
    if isinstance(fitting, NoScriptError):  # it did not run
        fitting = _count_fitting(queue, offset + limit)
    for answer in (messages, fitting):
        if isinstance(answer, Exception):
            raise answer
    return messages[::-1], fitting


def _after(queue: RedisQueue, position: int, last: list[bytes], wanted: int) -> tuple[list[bytes], int, int]:
    """Return up to `wanted` messages that follow `last`, which ended before `position`.

    Also return the position after them, and how many of those that follow fit in the next chunk.
    """
    start = position - len(last)
    while True:
        window, fitting = _read(queue, max(0, start), len(last) + wanted - min(0, start))
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
            return _after(queue, before + 1, [message], wanted)
    window, fitting = _read(queue, 0, wanted)  # all that was read has left the queue, so nothing that waits was read
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
