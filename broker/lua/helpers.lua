-- What all scripts share; `Script` in reliable.py puts it in front of each.
--
-- Scripts are not rolled back, so the types of all keys are checked before the first write, and a message is written
-- to its new place before it is removed from the old one. Time is Redis's own.
--
-- KEYS: those below, and for some commands an extra one (names.py has the map).
-- ARGV: the command, the deliveries after which a message is buried, then the command's own arguments.
-- Answer: {DONE, ...} with what the command says; {AGAIN}: more messages are due than one call returns, so call again;
-- {CONFLICT}: the Idempotency-Key was used with another request.

local DONE, AGAIN, CONFLICT = 0, 1, 2
local MAX_ARGUMENTS = 1000 -- Lua's unpack breaks near 8,000
local ANSWER_SECONDS = 24 * 3600 -- how long an answer is kept for its Idempotency-Key
local MAX_RETURNED, RETURNED_SECONDS = 100000, 3600 -- how many returned messages are known, and how long
local MAX_RETURNED_LOOK = 100 -- entries of returned messages among which a message is looked for
local DIGEST_LENGTH = 20 -- hexadecimal digits of a message's digest
local MAX_STALE_CAUSES = 1000 -- causes of dead letters that raw clients removed
local COUNTERS_SECONDS = 30 * 24 * 3600 -- how long what was counted for /metrics is kept after the last change

local list, reserved, delayed, bodies, returned, dead, acked, waiters = unpack(KEYS)
local clock, paused, causes, dead_causes, counters, extra = unpack(KEYS, 9)
local command, max_deliveries = ARGV[1], tonumber(ARGV[2])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

-- A key of the wrong type fails here, before the first write.
call('LLEN', list)
call('LLEN', dead)
call('HLEN', bodies)
call('LLEN', returned)
call('ZCARD', acked)
call('HLEN', counters)
call('ZCARD', delayed)
call('HLEN', causes)
call('HLEN', dead_causes)

local function whole(number) return string.format('%.0f', number) end

-- Tell all processes something; nothing depends on it, and the Redis user may not be allowed to.
local function tell(kind, what) redis.pcall('PUBLISH', string.gsub(clock, 'clock$', 'notices'), kind .. ' ' .. what) end

-- Note when a lease or a delay begins or changes, for follow_clock, and tell the timers of all processes if it ends
-- before everything that they know of. The key lasts as long as the longest of them.
local function note_due(due)
  local announced = tonumber(string.match(call('GET', clock) or '', ':(%d+)$') or 0)
  if announced <= now or due < announced then
    tell('due', whole(math.max(0, due - now)))
    announced = due
  end
  local lifetime = math.max(due - now, call('PTTL', clock), 1000)
  call('SET', clock, whole(now) .. ':' .. whole(announced), 'PX', whole(lifetime))
end

-- The list holds nothing but raw messages, so what is known of a returned message stands beside it. Returned messages
-- always go to the front, so `returned` is a stack that describes the front of the list, the newest on top (right):
-- '<digest>:<deliveries>:<when>:<failed>:<reason>' for each message that came back or was put in front, with the time
-- of its last failure. It never holds a text.
local function digest_of(message) return string.sub(redis.sha1hex(message), 1, DIGEST_LENGTH) end

local function describe(message, deliveries, failed, reason)
  local failure = failed and ':' .. whole(failed) .. ':' .. reason or ''
  call('RPUSH', returned, digest_of(message) .. ':' .. deliveries .. ':' .. whole(now) .. failure)
end

-- Call this after `describe`: the oldest entries end after an hour, and where there are too many.
local function trim_returned()
  call('LTRIM', returned, -MAX_RETURNED, -1)
  call('PEXPIRE', returned, RETURNED_SECONDS * 1000)
  for _ = 1, MAX_RETURNED_LOOK do
    local oldest = call('LINDEX', returned, 0)
    if not oldest or tonumber(string.match(oldest, '^%x*:%d+:(%d+)')) > now - RETURNED_SECONDS * 1000 then return end
    call('LPOP', returned)
  end
end

-- Put messages in front, the last of them foremost. They are described only where others below are.
local function push_front(messages)
  local describes = call('EXISTS', returned) == 1
  for _, message in ipairs(messages) do
    call('RPUSH', list, message)
    if describes then describe(message, 0) end
  end
  if describes then trim_returned() end
end

-- The entry's number of the n-th entry from `top` down that has a digest; nil where there is none near the top.
local function find_entry(entries, top, digest, n)
  for at = top, math.max(1, top - MAX_RETURNED_LOOK + 1), -1 do
    if string.sub(entries[at], 1, DIGEST_LENGTH) == digest then
      n = n - 1
      if n == 0 then return at end
    end
  end
end

-- Why dead letters died is a hash beside their list: digest -> '<number>:<deliveries>:<when>:<reason>', where equal ones
-- share the latest. It is forgotten with the last of them, and as a whole once raw clients have removed many.
local function note_cause(message, deliveries, failed, reason)
  if call('HLEN', dead_causes) > 2 * call('LLEN', dead) + MAX_STALE_CAUSES then call('DEL', dead_causes) end
  local digest = digest_of(message)
  local number = tonumber(string.match(call('HGET', dead_causes, digest) or '0', '^%d+')) + 1
  call('HSET', dead_causes, digest, number .. ':' .. deliveries .. ':' .. whole(failed) .. ':' .. reason)
end

-- Forget why messages died that have left this queue for good.
local function forget_causes(messages)
  if #messages == 0 or call('EXISTS', causes) == 0 then return end
  for _, message in ipairs(messages) do
    local digest = digest_of(message)
    local number, rest = string.match(call('HGET', causes, digest) or '', '^(%d+)(:.*)$')
    if number == '1' then
      call('HDEL', causes, digest)
    elseif number then
      call('HSET', causes, digest, (number - 1) .. rest)
    end
  end
end

-- The entries of messages that stand one after the other, the first of them at the top of `entries` or below: a list of
-- their numbers, without those that have none; the number of the last; whether one has none. Entries above a message's
-- own belong to messages that raw clients removed. A message without an entry never came back, so all that did have left
-- before it, and nothing is known of those behind it.
local function match_entries(entries, messages)
  local found, top = {}, #entries
  for i, message in ipairs(messages) do
    if top == 0 then break end
    found[i] = find_entry(entries, top, digest_of(message), 1)
    if not found[i] then return found, 0, true end
    top = found[i] - 1
  end
  return found, top, false
end

-- What is known of messages that wait one after the other from an offset on: a list of {deliveries, when it failed last
-- (milliseconds, 0: never), why, 1 where it died}.
local function details_of(messages, offset)
  local has_causes = call('EXISTS', causes) == 1
  local entries = call('LRANGE', returned, -offset - #messages - MAX_RETURNED_LOOK, -offset - 1)
  local details, found = {}, match_entries(entries, messages)
  for i, message in ipairs(messages) do
    local died = has_causes and call('HGET', causes, digest_of(message))
    local known = died or (found[i] and entries[found[i]]) or ''
    local deliveries, rest = string.match(known, '^%x*:(%d+):(.*)$')
    local failed, reason = string.match(rest or '', died and '^(%d+):(.*)$' or '^%d+:(%d+):(.*)$')
    details[i] = {tonumber(deliveries or 0), tonumber(failed or 0), reason or '', died and 1 or 0}
  end
  return details
end

-- Forget messages that left the front of the list, in that order; return how often each was delivered before.
local function forget_all(messages)
  local deliveries = {}
  local entries = call('LRANGE', returned, -#messages - MAX_RETURNED_LOOK, -1)
  local found, top, is_new = match_entries(entries, messages)
  for i = 1, #messages do deliveries[i] = found[i] and tonumber(string.match(entries[found[i]], ':(%d+):')) or 0 end
  if is_new or (#entries > 0 and call('EXISTS', list) == 0) then
    call('DEL', returned)
  elseif top < #entries then
    call('LTRIM', returned, 0, top - #entries - 1)
  end
  return deliveries
end

-- The entry of the message at a position, and its place in `returned`; nil where there is none. Of equal messages it is
-- the n-th from the front.
local function entry_at(position, message)
  if position >= MAX_RETURNED_LOOK then return nil end
  local n = #call('LPOS', list, message, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position + 1)
  local entries = call('LRANGE', returned, -MAX_RETURNED_LOOK, -1)
  local at = find_entry(entries, #entries, digest_of(message), n)
  if at then return entries[at], at - #entries - 1 end
end

-- Forget the message at a position before it is removed.
local function forget_at(position, message)
  local _, place = entry_at(position, message)
  if not place then return end
  call('LSET', returned, place, '')
  call('LREM', returned, -1, '')
end

-- Put a value into a list behind the one at an index from the left: to its left. Equal ones cannot be told apart by
-- LINSERT, so that one is marked meanwhile.
local function insert_behind(key, index, value, mark)
  local ahead = call('LINDEX', key, index)
  call('LSET', key, index, mark)
  call('LINSERT', key, 'BEFORE', mark, value)
  call('LSET', key, index < 0 and index or index + 1, ahead)
end

-- The answer that is kept for an Idempotency-Key, whose request has a fingerprint; nil where there is none.
local function kept_answer(fingerprint)
  local kept = extra and call('LRANGE', extra, 0, -1) or {}
  if #kept == 0 then return nil end
  if table.remove(kept, 1) ~= fingerprint then return {CONFLICT} end
  return {DONE, kept}
end

local function keep_answer(fingerprint, ...)
  call('RPUSH', extra, fingerprint, ...)
  call('EXPIRE', extra, ANSWER_SECONDS)
end

-- Keep the result of a job, and tell those who wait for it.
local function store_result(key, seconds, result)
  call('DEL', key)
  call('RPUSH', key, whole(now), result)
  call('EXPIRE', key, seconds)
  tell('result', key)
end

-- Look at the waiting messages from a position on, next to be popped first, until `visit(message, position)` returns
-- true, or so many messages or MAX_LOOK_BYTES were looked at. Few are read at once, some more while they are small, so
-- that it never holds many large ones. Return the position after the last that was looked at.
local MAX_LOOK_BYTES = 1024 * 1024
local function look(position, limit, visit)
  local bytes, looked = 0, 0
  while looked < limit and bytes < MAX_LOOK_BYTES do
    local average = bytes / math.max(looked, 1)
    local size = looked == 0 and 4 or (average < 256 and 64) or (average < 16384 and 16) or 1
    local step = math.min(size, limit - looked)
    local found = call('LRANGE', list, -position - step, -position - 1)
    for i = #found, 1, -1 do
      looked, bytes = looked + 1, bytes + #found[i]
      position = position + 1
      if visit(found[i], position - 1) then return position end
    end
    if #found < step then break end
  end
  return position
end
