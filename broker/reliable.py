"""A RedisQueue whose messages can be reserved, acked, returned, buried, moved and taken back.

Every act is one script, so it happens whole or not at all. The scripts go by the clock of Redis, declare all
their keys, which lie in one Cluster slot, and (but for a push) run when the server's memory is full, since they
are what empties it. They need Redis 7.0 or Valkey. A script that gives messages back writes each to its new place
before it removes it from the old one: scripts are not rolled back. The map of keys is in RedisQueue.py.
"""

import functools
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, OutOfMemoryError

from RedisQueue import RedisQueue, keys_of

ANSWER_KEPT = 24 * 3600  # seconds an answer is kept for its Idempotency-Key
UNDO_KEPT = 3600  # seconds a cleared queue can be restored
AT_ONCE = 1000  # messages one script call handles at most; Lua's unpack breaks near 8,000
TAKEN_BYTES = 16 << 20  # after so many one script call takes no further message: a thousand can be a gigabyte
FULL = 0.25  # seconds between two looks while Redis is full: then BLMOVE is refused, taking is not

# Every script starts with this. KEYS: see `_keys`. ARGV[1]: deliveries after which a message is buried.
PRELUDE = (
    f"""#!lua flags=allow-oom
local taken_bytes = {TAKEN_BYTES}
"""
    + """
local list, reserved, bodies, attempts, dead, acked, waiters, extra = unpack(KEYS)
local most = tonumber(ARGV[1])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A key of a wrong type fails here, before the first write: scripts are not rolled back.
call('LLEN', list)
call('LLEN', dead)
call('HLEN', bodies)
call('HLEN', attempts)
call('ZCARD', acked)

-- The list holds nothing but raw messages, so what came back is known by its text. For a text there are runs of
-- copies with equal deliveries, '<deliveries>*<copies>,...'; the copies nearest the front come last.
local function last_run(message)
  local runs = call('HGET', attempts, message)
  if not runs then return '', 0, 0 end
  local rest, deliveries, copies = string.match(runs, '^(.-)(%d+)%*(%d+)$')
  return rest, tonumber(deliveries), tonumber(copies)
end

local function remember(message, deliveries)
  local rest, last, copies = last_run(message)
  if last ~= deliveries then
    if copies > 0 then rest = rest .. last .. '*' .. copies .. ',' end
    copies = 0
  end
  call('HSET', attempts, message, rest .. deliveries .. '*' .. (copies + 1))
end

local function forget(message)
  local rest, last, copies = last_run(message)
  if copies > 1 then
    call('HSET', attempts, message, rest .. last .. '*' .. (copies - 1))
  elseif rest ~= '' then
    call('HSET', attempts, message, string.sub(rest, 1, -2))
  elseif copies == 1 then
    call('HDEL', attempts, message)
  end
  return last
end

-- Take the oldest messages by a command that takes one, up to a number, and none after so many bytes.
local function take(number, ...)
  local found, bytes = {}, 0
  for i = 1, tonumber(number) do
    local message = bytes < taken_bytes and call(...)
    if not message then break end
    found[i], bytes = message, bytes + #message
  end
  return found
end

-- Messages left the list. Once none waits, none that came back waits: what raw clients took is forgotten here.
local function left(messages)
  if call('EXISTS', attempts) == 0 then return end
  for _, message in ipairs(messages) do forget(message) end
  if call('EXISTS', list) == 0 then call('DEL', attempts) end
end

-- End reservations: to the front of the queue, the oldest foremost, or to the dead letters, the oldest first.
local function give_back(ids)
  table.sort(ids)
  local buried = {}
  for i = #ids, 1, -1 do
    local record = call('HGET', bodies, ids[i]) or '0:'
    local colon = string.find(record, ':', 1, true)
    local deliveries, message = tonumber(string.sub(record, 1, colon - 1)), string.sub(record, colon + 1)
    if deliveries >= most then
      table.insert(buried, 1, {ids[i], message})
    else
      if deliveries > 0 then
        call('RPUSH', list, message)
        remember(message, deliveries)
      end
      call('ZREM', reserved, ids[i])
      call('HDEL', bodies, ids[i])
    end
  end
  for _, pair in ipairs(buried) do
    call('LPUSH', dead, pair[2])
    call('ZREM', reserved, pair[1])
    call('HDEL', bodies, pair[1])
  end
  return #buried
end

-- Give back what has run out, the newest batch first, so that the oldest message ends foremost.
-- Returns 1 where there may be more.
local function sweep()
  local due = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, 1000)
  if #due > 0 then give_back(due) end
  return #due == 1000
end

-- Milliseconds until the next lease ends, -1 without one.
local function until_due()
  local first = call('ZRANGE', reserved, 0, 0, 'WITHSCORES')
  if #first == 0 then return -1 end
  return math.max(1, tonumber(first[2]) - now)
end

if sweep() then return {1} end
"""
)

# ARGV[2]: how many. ARGV[3]: with KEYS[8], the answer kept for an Idempotency-Key: the request's fingerprint.
POP = (
    PRELUDE
    + f"""
if extra then
  local kept = call('LRANGE', extra, 0, -1)
  if #kept > 0 and kept[1] ~= ARGV[3] then return {{2}} end
  if #kept > 0 then
    table.remove(kept, 1)
    return {{0, -1, kept}}
  end
end
local found = take(ARGV[2], 'RPOP', list)
left(found)
if #found == 0 then return {{0, until_due(), found}} end
if extra then
  call('RPUSH', extra, ARGV[3], unpack(found))
  call('EXPIRE', extra, {ANSWER_KEPT})
end
return {{0, -1, found}}
"""
)

# ARGV[2]: how many. ARGV[3]: lease, milliseconds. ARGV[4]: a random text that makes the ids unguessable.
# An id starts with the time in microseconds and a number, so ids sort in the order of reservation.
RESERVE = (
    PRELUDE
    + """
local deadline = now + ARGV[3]
local found = {}
for i, message in ipairs(take(ARGV[2], 'RPOP', list)) do
  local id = string.format('%016.0f-%04d-', time[1] * 1000000 + time[2], i) .. ARGV[4]
  local deliveries = forget(message) + 1
  call('ZADD', reserved, deadline, id)
  call('HSET', bodies, id, deliveries .. ':' .. message)
  found[i] = {id, deliveries, message}
end
left({})
if #found == 0 then return {0, until_due(), found} end
return {0, -1, found, deadline}
"""
)

# ARGV[2...]: ids, all of them known or none is touched.
ACK = (
    PRELUDE
    + """
local stale = {}
for i = 2, #ARGV do
  if not call('ZSCORE', reserved, ARGV[i]) and not call('ZSCORE', acked, ARGV[i]) then stale[#stale + 1] = ARGV[i] end
end
if #stale > 0 then return {0, stale} end
for i = 2, #ARGV do
  if call('ZREM', reserved, ARGV[i]) == 1 then
    call('HDEL', bodies, ARGV[i])
    call('ZADD', acked, now, ARGV[i])
  end
end
call('ZREMRANGEBYRANK', acked, 0, -10001)
call('EXPIRE', acked, 3600)
return {0, stale}
"""
)

# ARGV[2...]: ids, as for ACK.
RELEASE = (
    PRELUDE
    + """
local stale, ids = {}, {}
for i = 2, #ARGV do
  if call('ZSCORE', reserved, ARGV[i]) then ids[#ids + 1] = ARGV[i] else stale[#stale + 1] = ARGV[i] end
end
if #stale > 0 then return {0, stale, 0} end
return {0, stale, give_back(ids)}
"""
)

# ARGV[2]: id. ARGV[3]: lease from now, milliseconds.
EXTEND = (
    PRELUDE
    + """
if not call('ZSCORE', reserved, ARGV[2]) then return {0, {ARGV[2]}} end
call('ZADD', reserved, now + ARGV[3], ARGV[2])
return {0, {}, now + ARGV[3]}
"""
)

# ARGV[2]: position. ARGV[3]: message. ARGV[4]: a random text to mark the place; a list has no removal by position.
REMOVE = (
    PRELUDE
    + """
local index = -1 - tonumber(ARGV[2])
if call('LINDEX', list, index) ~= ARGV[3] then return {0, 0} end
call('LSET', list, index, ARGV[4])
call('LREM', list, -1, ARGV[4])
left({ARGV[3]})
return {0, 1}
"""
)

# ARGV[2...]: messages, the last of them to be popped next. Unlike a push this works when memory is full.
PUT_BACK = (
    PRELUDE
    + """
for i = 2, #ARGV do call('RPUSH', list, ARGV[i]) end
return {0}
"""
)

# KEYS[8]: where the list is kept. A cleared message counts its deliveries anew when it is restored.
CLEAR = (
    PRELUDE
    + f"""
local count = call('LLEN', list)
if count == 0 then return {{0, 0}} end
call('RENAME', list, extra)
call('EXPIRE', extra, {UNDO_KEPT})
call('DEL', attempts)
return {{0, count}}
"""
)

# KEYS[8]: the kept list, which is older than what waits now, so its messages go to the front. The shorter list moves.
RESTORE = (
    PRELUDE
    + """
local kept, waiting = call('LLEN', extra), call('LLEN', list)
if kept == 0 then return {0, -1} end
if waiting > kept then
  for _ = 1, kept do call('LMOVE', extra, list, 'LEFT', 'RIGHT') end
else
  for _ = 1, waiting do call('LMOVE', list, extra, 'RIGHT', 'LEFT') end
  call('RENAME', extra, list)
  call('PERSIST', list)
end
return {0, kept}
"""
)

# KEYS[8]: the list to move to. ARGV[2]: how many.
MOVE = (
    PRELUDE
    + """
local moved = take(ARGV[2], 'LMOVE', list, extra, 'RIGHT', 'LEFT')
left(moved)
return {0, #moved}
"""
)

# ARGV[2]: messages to show from `ARGV[3]` on. ARGV[4]: bytes to show of each.
STATE = (
    PRELUDE
    + """
local waiting = 0
local each = call('HGETALL', waiters)
for i = 2, #each, 2 do
  local number, valid = string.match(each[i], '^(%d+):(%d+)$')
  if tonumber(valid) > now then waiting = waiting + number end
end
local shown, count, offset = {}, tonumber(ARGV[2]), tonumber(ARGV[3])
if count > 0 then
  for i, message in ipairs(call('LRANGE', list, -offset - count, -offset - 1)) do
    shown[i] = {string.sub(message, 1, ARGV[4]), #message}
  end
end
return {0, call('LLEN', list), call('ZCARD', reserved), call('LLEN', dead), waiting, shown}
"""
)

# ARGV[2]: a process. ARGV[3]: how many clients wait there. ARGV[4]: milliseconds for which this holds.
WAITERS = (
    PRELUDE
    + """
if ARGV[3] == '0' then
  call('HDEL', waiters, ARGV[2])
else
  call('HSET', waiters, ARGV[2], ARGV[3] .. ':' .. string.format('%.0f', now + ARGV[4]))
  call('EXPIRE', waiters, 60)
end
return {0}
"""
)

# Push once for an Idempotency-Key. KEYS: list, kept answer. ARGV: fingerprint, LPUSH or RPUSH, messages.
# No allow-oom: a full server refuses this push as it refuses any other.
PUSH_ONCE = f"""#!lua
local kept = redis.call('LRANGE', KEYS[2], 0, -1)
if #kept > 0 and kept[1] ~= ARGV[1] then return {{2}} end
if #kept > 0 then return {{0, tonumber(kept[2])}} end
local count = 0
for i = 3, #ARGV, {AT_ONCE} do
  count = redis.call(ARGV[2], KEYS[1], unpack(ARGV, i, math.min(i + {AT_ONCE} - 1, #ARGV)))
end
redis.call('RPUSH', KEYS[2], ARGV[1], count)
redis.call('EXPIRE', KEYS[2], {ANSWER_KEPT})
return {{0, count}}
"""


class Stale(Exception):
    """These reservations are not held (any more), or this undo is not known, or the message is not there."""

    def __init__(self, ids: Sequence[str] = ()) -> None:
        super().__init__(", ".join(ids))
        self.ids = list(ids)


class Conflict(Exception):
    """The same Idempotency-Key came with another request."""


class Delivery(bytes):
    """A reserved message: its bytes, and what is known of this delivery."""

    id: str
    deliveries: int  # this one included
    deadline: float  # Unix time by the Redis clock, seconds


@dataclass
class State:
    """What a queue holds, and the first bytes and whole sizes of some waiting messages, next to be popped first."""

    count: int
    reserved: int
    dead: int
    waiters: int
    shown: list[tuple[bytes, int]]


@dataclass
class Taken:
    """What was taken, and for nothing: seconds until the next lease ends (None without one)."""

    messages: list[Any]
    due: float | None = None


class ReliableQueue(RedisQueue):
    """The verbs that need scripts. A message that was delivered `max_deliveries` times is buried, not returned."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:", max_deliveries: int = 5) -> None:
        super().__init__(client, name, prefix)
        self.max_deliveries = max_deliveries
        own = ("reserved", "bodies", "attempts", "dead", "acked", "waiters")
        self._keys = [self.key, *(self.meta + key for key in own)]

    def push_once(self, key: str, messages: Sequence[bytes], next: bool = False) -> int:
        """Push as `push` does, once for an idempotency key within 24 hours; return the length after that push.

        Raises:
            Conflict: the key was used with another request.
        """
        ordered = list(messages)[::-1] if next else messages
        fingerprint = _digest(b"push-next" if next else b"push", *messages)
        keys = [self.key, self._kept_answer(key)]
        answer = self._run(PUSH_ONCE, keys, [fingerprint, "RPUSH" if next else "LPUSH", *ordered])
        return int(_unless_conflict(answer)[0])

    def pop(self, max: int = 1) -> list[bytes]:
        """Take up to `max` messages, oldest first; [] from an empty queue."""
        return self.take(max).messages

    def take(self, max: int = 1, once: str | None = None) -> Taken:
        """Pop, and say when more may come. With an idempotency key, the same answer for 24 hours, if it had any.

        Fewer than `max` come once those taken have `TAKEN_BYTES`.

        Raises:
            Conflict: the key was used with another request.
        """
        if once is None:
            answer = self._swept(POP, max)
        else:
            answer = self._swept(POP, max, _digest(b"pop", str(max).encode()), extra=[self._kept_answer(once)])
        return Taken(answer[1], _seconds(answer[0]))

    def wait(self, seconds: float, client: Any = None) -> None:
        """Return when the queue holds something, or after `seconds`. Nothing is taken, so no lost reply loses anything.

        It blocks the connection that `client` gives, the queue's own if there is none.
        """
        started = time.monotonic()
        try:
            if (client or self.client).blmove(self.key, self.key, max(seconds, 0.01), "RIGHT", "RIGHT") is None:
                # A server that cannot block here answers at once; that must not become a busy loop.
                time.sleep(max(0.0, min(0.02, seconds) - (time.monotonic() - started)))
        except OutOfMemoryError:
            time.sleep(min(seconds, FULL))

    def reserve(self, lease: float = 30, max: int = 1) -> Taken:
        """Take up to `max` messages as `Delivery` for `lease` seconds; then they come back, or are buried.

        Fewer than `max` come once those taken have `TAKEN_BYTES`.
        """
        answer = self._swept(RESERVE, max, _ms(lease), secrets.token_hex(8))
        found = []
        for id, deliveries, message in answer[1]:
            delivery = Delivery(message)
            delivery.id, delivery.deliveries, delivery.deadline = id.decode(), deliveries, answer[2] / 1000
            found.append(delivery)
        return Taken(found, _seconds(answer[0]))

    def ack(self, *ids: str) -> int:
        """End reservations for good and return their number; those acked within the last hour count too.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        _unless_stale(self._swept(ACK, *ids)[0])
        return len(set(ids))

    def release(self, *ids: str) -> int:
        """Give messages back, to be popped next; return how many of them were buried instead.

        Raises:
            Stale: some are not held any more; then nothing was changed.
        """
        stale, buried = self._swept(RELEASE, *dict.fromkeys(ids))  # one named twice must not be buried twice
        _unless_stale(stale)
        return int(buried)

    def extend(self, id: str, lease: float) -> float:
        """Let a lease end `lease` seconds from now; return its new deadline (Unix time, seconds).

        Raises:
            Stale: it is not held any more.
        """
        answer = self._swept(EXTEND, id, _ms(lease))
        _unless_stale(answer[0])
        return float(answer[1] / 1000)

    def remove(self, position: int, message: bytes) -> None:
        """Remove the message at a position, 0 being next to be popped.

        Raises:
            Stale: this very message is not there.
        """
        if not self._swept(REMOVE, position, message, secrets.token_hex(16))[0]:
            raise Stale

    def put_back(self, *messages: bytes) -> None:
        """Undo a pop: the messages are popped next, in the same order."""
        self._swept(PUT_BACK, *reversed(messages))

    def clear(self) -> tuple[int, str | None]:
        """Take every waiting message away, for one hour; return how many, and what `restore` wants for them."""
        undo = secrets.token_hex(8)
        count = int(self._swept(CLEAR, extra=[self._cleared(undo)])[0])
        return count, undo if count else None

    def restore(self, undo: str) -> int:
        """Put back what `clear` took, before everything that was pushed since; return how many.

        Raises:
            Stale: that was put back before, or more than an hour ago.
        """
        count = int(self._swept(RESTORE, extra=[self._cleared(undo)])[0])
        if count < 0:
            raise Stale
        return count

    def move(self, to: str, max: int) -> int:
        """Move up to `max` messages to the queue `to`, oldest first, and return how many.

        At most 1,000 a call, and no further one after `TAKEN_BYTES`; 0 only when none is left.
        """
        return int(self._swept(MOVE, min(max, AT_ONCE), extra=[keys_of(to, self.prefix)[0]])[0])

    def count(self) -> int:
        """Return how many messages wait."""
        return self.state().count

    def state(self, shown: int = 0, offset: int = 0, size: int = 0) -> State:
        """Return the counts, and the first `size` bytes of `shown` messages after `offset`."""
        count, reserved, dead, waiters, heads = self._swept(STATE, shown, offset, size)
        return State(count, reserved, dead, waiters, [(head, whole) for head, whole in heads[::-1]])

    def announce(self, process: str, waiting: int, valid: float) -> None:
        """Say how many clients of a process wait, which holds for `valid` seconds."""
        self._swept(WAITERS, process, waiting, _ms(valid))

    def _kept_answer(self, key: str) -> str:
        return self.meta + "once:" + _digest(key.encode())

    def _cleared(self, undo: str) -> str:
        return self.meta + "cleared:" + undo

    def _swept(self, script: str, *arguments: Any, extra: Sequence[str] = ()) -> list[Any]:
        """Run a script once all leases that have run out are given back, and return its answer."""
        while True:
            answer = self._run(script, [*self._keys, *extra], [self.max_deliveries, *arguments])
            if answer[0] != 1:
                return _unless_conflict(answer)

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        answer: list[Any]
        try:
            answer = self.client.evalsha(_sha(script), len(keys), *keys, *arguments)
        except NoScriptError:  # nothing was run, so this is no second time
            answer = self.client.eval(script, len(keys), *keys, *arguments)
        return answer


@functools.cache
def _sha(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def _digest(*parts: bytes) -> str:
    """Return a digest that tells any two lists of parts apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:32]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(ms: int) -> float | None:
    return None if ms < 0 else ms / 1000


def _unless_conflict(answer: list[Any]) -> list[Any]:
    if answer[0] == 2:
        raise Conflict
    return answer[1:]


def _unless_stale(stale: list[bytes]) -> None:
    if stale:
        raise Stale([id.decode(errors="replace") for id in stale])
