-- What all scripts share; `Script` in reliable.py puts it in front of each.
--
-- Scripts are not rolled back, so the types of all keys are checked before the first write, and a message is written
-- to its new place before it is removed from the old one. Time is Redis's own.
--
-- KEYS: list, reserved, bodies, returned, dead, acked, waiters, clock, counters, and for some commands an extra one (names.py).
-- ARGV: the command, the deliveries after which a message is buried, then the command's own arguments.
-- Answer: {DONE, ...} with what the command says; {AGAIN}: more leases have expired than one call returns, so call
-- again; {CONFLICT}: the Idempotency-Key was used with another request.

local DONE, AGAIN, CONFLICT = 0, 1, 2
local MAX_ARGUMENTS = 1000 -- Lua's unpack breaks near 8,000
local ANSWER_SECONDS = 24 * 3600 -- how long an answer is kept for its Idempotency-Key
local MAX_RETURNED, RETURNED_SECONDS = 100000, 3600 -- how many returned messages are known, and how long
local MAX_RETURNED_LOOK = 100 -- entries of returned messages among which a message is looked for
local DIGEST_LENGTH = 20 -- hexadecimal digits of a message's digest

local list, reserved, bodies, returned, dead, acked, waiters, clock, counters, extra = unpack(KEYS)
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

-- The list holds nothing but raw messages, so what is known of a returned message stands beside it. Returned messages
-- always go to the front, so `returned` is a stack that describes the front of the list, the newest on top (right):
-- '<digest>:<deliveries>:<when>' for each message that came back or was put in front. It never holds a text.
local function digest_of(message) return string.sub(redis.sha1hex(message), 1, DIGEST_LENGTH) end

local function describe(message, deliveries)
  call('RPUSH', returned, digest_of(message) .. ':' .. deliveries .. ':' .. string.format('%.0f', now))
end

-- Call this after `describe`: the oldest entries end after an hour, and where there are too many.
local function trim_returned()
  call('LTRIM', returned, -MAX_RETURNED, -1)
  call('PEXPIRE', returned, RETURNED_SECONDS * 1000)
  for _ = 1, MAX_RETURNED_LOOK do
    local oldest = call('LINDEX', returned, 0)
    if not oldest or tonumber(string.match(oldest, ':(%d+)$')) > now - RETURNED_SECONDS * 1000 then return end
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

-- Forget messages that left the front of the list, in that order; return how often each was delivered before.
-- Entries above a message's own belong to messages that raw clients removed. A message without an entry never came
-- back, so all that did have left before it, and nothing is known any more.
local function forget_all(messages)
  local deliveries = {}
  local entries = call('LRANGE', returned, -#messages - MAX_RETURNED_LOOK, -1)
  local top, all_left = #entries, #entries > 0 and call('EXISTS', list) == 0
  for i, message in ipairs(messages) do
    local at = top > 0 and find_entry(entries, top, digest_of(message), 1)
    deliveries[i] = at and tonumber(string.match(entries[at], ':(%d+):')) or 0
    all_left = all_left or (top > 0 and not at)
    top = at and at - 1 or 0
  end
  if all_left then
    call('DEL', returned)
  elseif top < #entries then
    call('LTRIM', returned, 0, top - #entries - 1)
  end
  return deliveries
end

-- Forget the message at a position before it is removed: of equal messages it is the n-th from the front.
local function forget_at(position, message)
  if position >= MAX_RETURNED_LOOK then return end
  local n = #call('LPOS', list, message, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position + 1)
  local entries = call('LRANGE', returned, -MAX_RETURNED_LOOK, -1)
  local at = find_entry(entries, #entries, digest_of(message), n)
  if not at then return end
  call('LSET', returned, at - #entries - 1, '')
  call('LREM', returned, -1, '')
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
