#!lua flags=allow-oom
-- Every command of ReliableQueue but the push with an Idempotency-Key (push_once.lua). A call is whole or nothing.
--
-- Scripts are not rolled back, so the types of all keys are checked before the first write, and a message is written
-- to its new place before it is removed from the old one. Time is Redis's own. `allow-oom`: these commands are what
-- empties a server whose memory is full.
--
-- KEYS: list, reserved, bodies, attempts, dead, acked, waiters, and for some commands an extra one (names.py).
-- ARGV: the command, the deliveries after which a message is buried, then the command's own arguments.
-- Answer: {DONE, ...} with what the command says below; {AGAIN}: more leases have expired than one call returns, so
-- call again; {CONFLICT}: the Idempotency-Key was used with another request.

local DONE, AGAIN, CONFLICT = 0, 1, 2
local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte
local MAX_EXPIRED = 1000 -- leases that one call returns at most
local ANSWER_SECONDS = 24 * 3600 -- how long an answer is kept for its Idempotency-Key
local UNDO_SECONDS = 3600 -- how long a cleared queue can be restored
local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- how many acked ids are remembered, and how long
local WAITERS_SECONDS = 60

local list, reserved, bodies, attempts, dead, acked, waiters, extra = unpack(KEYS)
local command, max_deliveries = ARGV[1], tonumber(ARGV[2])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

-- A key of the wrong type fails here, before the first write.
call('LLEN', list)
call('LLEN', dead)
call('HLEN', bodies)
call('HLEN', attempts)
call('ZCARD', acked)

-- The list holds nothing but raw messages, so a message that came back is known by its text. Each text has runs of
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

-- Forget one copy of a message that left the list; return how often it was delivered.
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

-- Forget messages that left the list. An empty list holds no returned message: those that raw clients took are
-- forgotten then.
local function forget_all(messages)
  if call('EXISTS', attempts) == 0 then return end
  for _, message in ipairs(messages) do forget(message) end
  if call('EXISTS', list) == 0 then call('DEL', attempts) end
end

-- Take the oldest messages with a Redis command that takes one, up to a number of messages and MAX_BATCH_BYTES.
local function pop_up_to(number, ...)
  local found, bytes = {}, 0
  for i = 1, tonumber(number) do
    local message = bytes < MAX_BATCH_BYTES and call(...)
    if not message then break end
    found[i], bytes = message, bytes + #message
  end
  return found
end

-- End reservations: messages go to the front of the queue, the oldest foremost, or to the dead letters, the oldest
-- first. Return how many were buried.
local function release_all(ids)
  table.sort(ids)
  local buried = {}
  for i = #ids, 1, -1 do
    local record = call('HGET', bodies, ids[i]) or '0:'
    local colon = string.find(record, ':', 1, true)
    local deliveries, message = tonumber(string.sub(record, 1, colon - 1)), string.sub(record, colon + 1)
    if deliveries >= max_deliveries then
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

-- Return the messages of expired leases, the newest batch first, so that the oldest message ends foremost.
-- Return whether there may be more.
local function requeue_expired()
  local expired = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, MAX_EXPIRED)
  if #expired > 0 then release_all(expired) end
  return #expired == MAX_EXPIRED
end

-- Milliseconds until the next lease ends, -1 without one.
local function until_next_expiry()
  local first = call('ZRANGE', reserved, 0, 0, 'WITHSCORES')
  if #first == 0 then return -1 end
  return math.max(1, tonumber(first[2]) - now)
end

-- The ids, of those from ARGV[3] on, that are not held; with `or_acked` an id that was acked lately is known too.
local function stale_ids(or_acked)
  local stale = {}
  for i = 3, #ARGV do
    local known = call('ZSCORE', reserved, ARGV[i]) or (or_acked and call('ZSCORE', acked, ARGV[i]))
    if not known then stale[#stale + 1] = ARGV[i] end
  end
  return stale
end

if requeue_expired() then return {AGAIN} end

-- ARGV[3]: how many. KEYS[8], ARGV[4]: where the answer to an Idempotency-Key is kept, and the request's fingerprint.
-- Answer: milliseconds until more may come (-1: unknown), messages.
if command == 'pop' then
  if extra then
    local kept = call('LRANGE', extra, 0, -1)
    if #kept > 0 and kept[1] ~= ARGV[4] then return {CONFLICT} end
    if #kept > 0 then
      table.remove(kept, 1)
      return {DONE, -1, kept}
    end
  end
  local found = pop_up_to(ARGV[3], 'RPOP', list)
  forget_all(found)
  if #found == 0 then return {DONE, until_next_expiry(), found} end
  if extra then
    call('RPUSH', extra, ARGV[4], unpack(found))
    call('EXPIRE', extra, ANSWER_SECONDS)
  end
  return {DONE, -1, found}
end

-- ARGV[3]: how many. ARGV[4]: lease, milliseconds. ARGV[5]: a random text that makes the ids unguessable.
-- Answer: milliseconds until more may come (-1: unknown), a list of {id, deliveries, message}, their deadline.
-- An id starts with the time in microseconds and a number, so ids sort in the order of reservation.
if command == 'reserve' then
  local deadline = now + ARGV[4]
  local found = {}
  for i, message in ipairs(pop_up_to(ARGV[3], 'RPOP', list)) do
    local id = string.format('%016.0f-%04d-', time[1] * 1000000 + time[2], i) .. ARGV[5]
    local deliveries = forget(message) + 1
    call('ZADD', reserved, deadline, id)
    call('HSET', bodies, id, deliveries .. ':' .. message)
    found[i] = {id, deliveries, message}
  end
  forget_all({})
  if #found == 0 then return {DONE, until_next_expiry(), found, 0} end
  return {DONE, -1, found, deadline}
end

-- ARGV[3...]: ids; all are known or none is touched. Answer: the stale ones.
if command == 'ack' then
  local stale = stale_ids(true)
  if #stale > 0 then return {DONE, stale} end
  for i = 3, #ARGV do
    if call('ZREM', reserved, ARGV[i]) == 1 then
      call('HDEL', bodies, ARGV[i])
      call('ZADD', acked, now, ARGV[i])
    end
  end
  call('ZREMRANGEBYRANK', acked, 0, -1 - MAX_ACKED)
  call('EXPIRE', acked, ACKED_SECONDS)
  return {DONE, stale}
end

-- ARGV[3...]: ids, each once; all are held or none is touched. Answer: the stale ones, how many were buried.
if command == 'release' then
  local stale = stale_ids(false)
  if #stale > 0 then return {DONE, stale, 0} end
  local ids = {}
  for i = 3, #ARGV do ids[i - 2] = ARGV[i] end
  return {DONE, stale, release_all(ids)}
end

-- ARGV[3]: lease from now, milliseconds. ARGV[4]: id. Answer: 1 where it is held, its new deadline.
if command == 'extend' then
  if not call('ZSCORE', reserved, ARGV[4]) then return {DONE, 0, 0} end
  call('ZADD', reserved, now + ARGV[3], ARGV[4])
  return {DONE, 1, now + ARGV[3]}
end

-- ARGV[3]: position. ARGV[4]: message. ARGV[5]: a random text to mark the place; a list has no removal by position.
-- Answer: how many were removed.
if command == 'remove' then
  local index = -1 - tonumber(ARGV[3])
  if call('LINDEX', list, index) ~= ARGV[4] then return {DONE, 0} end
  call('LSET', list, index, ARGV[5])
  call('LREM', list, -1, ARGV[5])
  forget_all({ARGV[4]})
  return {DONE, 1}
end

-- ARGV[3...]: messages that were popped, the last of them to be popped next. Unlike a push this works when memory is
-- full.
if command == 'requeue' then
  for i = 3, #ARGV do call('RPUSH', list, ARGV[i]) end
  return {DONE}
end

-- KEYS[8]: where the list is kept. A cleared message counts its deliveries anew when it is restored.
-- Answer: how many messages were cleared.
if command == 'clear' then
  local count = call('LLEN', list)
  if count == 0 then return {DONE, 0} end
  call('RENAME', list, extra)
  call('EXPIRE', extra, UNDO_SECONDS)
  call('DEL', attempts)
  return {DONE, count}
end

-- KEYS[8]: the kept list, which is older than what waits now, so its messages go to the front. The shorter list moves.
-- Answer: how many messages were restored, -1 where nothing is kept.
if command == 'restore' then
  local kept, waiting = call('LLEN', extra), call('LLEN', list)
  if kept == 0 then return {DONE, -1} end
  if waiting > kept then
    for _ = 1, kept do call('LMOVE', extra, list, 'LEFT', 'RIGHT') end
  else
    for _ = 1, waiting do call('LMOVE', list, extra, 'RIGHT', 'LEFT') end
    call('RENAME', extra, list)
    call('PERSIST', list)
  end
  return {DONE, kept}
end

-- KEYS[8]: the list to move to. ARGV[3]: how many. Answer: how many were moved.
if command == 'move' then
  local moved = pop_up_to(ARGV[3], 'LMOVE', list, extra, 'RIGHT', 'LEFT')
  forget_all(moved)
  return {DONE, #moved}
end

-- ARGV[3]: how many messages to show after ARGV[4] others. ARGV[5]: bytes to show of each.
-- Answer: waiting, reserved, dead, waiters, a list of {first bytes, size}, the last to be popped first.
if command == 'state' then
  local waiting_clients = 0
  local reports = call('HGETALL', waiters)
  for i = 2, #reports, 2 do
    local number, valid_until = string.match(reports[i], '^(%d+):(%d+)$')
    if tonumber(valid_until) > now then waiting_clients = waiting_clients + number end
  end
  local heads, number, offset = {}, tonumber(ARGV[3]), tonumber(ARGV[4])
  if number > 0 then
    for i, message in ipairs(call('LRANGE', list, -offset - number, -offset - 1)) do
      heads[i] = {string.sub(message, 1, ARGV[5]), #message}
    end
  end
  return {DONE, call('LLEN', list), call('ZCARD', reserved), call('LLEN', dead), waiting_clients, heads}
end

-- ARGV[3]: a process. ARGV[4]: how many clients wait there. ARGV[5]: milliseconds for which this holds.
if command == 'report_waiters' then
  if ARGV[4] == '0' then
    call('HDEL', waiters, ARGV[3])
  else
    call('HSET', waiters, ARGV[3], ARGV[4] .. ':' .. string.format('%.0f', now + ARGV[5]))
    call('EXPIRE', waiters, WAITERS_SECONDS)
  end
  return {DONE}
end

return redis.error_reply('ERR unknown queue command ' .. command)
