-- Every command of ReliableQueue but push. A call is whole or nothing. It runs when memory is full (`allow-oom`):
-- these commands are what empties a full server.

local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte
local MAX_EXPIRED = 10000 -- expired leases that one call looks at; beyond it the order of dead letters is not kept
local MAX_MOVES = 1000 -- messages of expired leases that one call moves
local UNDO_SECONDS = 3600 -- how long a cleared queue can be restored
local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- how many acked ids are remembered, and how long
local WAITERS_SECONDS = 60
local MAX_LEASE_SECONDS = 43200
local COUNTERS_SECONDS = 30 * 24 * 3600 -- how long what was counted is kept after the last change
local MIN_CLOCK_STEP = 1000 -- milliseconds; smaller corrections of a clock are normal

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

-- How often the message of a reservation was delivered, this time included: its id ends in that.
local function deliveries_of(id) return tonumber(string.match(id, '^%d+%-%d+%-%x+%-(%d+)$')) end

-- The message of a reservation. Version 0.1 kept it as '<deliveries>:<message>', under an id without deliveries.
local function message_of(id)
  local body = call('HGET', bodies, id)
  if body and not deliveries_of(id) then return string.match(body, '^%d+:(.*)$') end
  return body
end

-- Count an event for /metrics: only scripts see when a lease ends by itself, and all processes must count it once.
local function count(event)
  call('HINCRBY', counters, event, 1)
  call('EXPIRE', counters, COUNTERS_SECONDS)
end

-- End reservations: messages go to the dead letters, the oldest first, or to the front of the queue, the oldest
-- foremost. `event` is counted for each, where there is one. Return whether some are left because MAX_MOVES or
-- MAX_BATCH_BYTES were reached.
local function release_all(ids, event)
  table.sort(ids)
  local moves, bytes = 0, 0
  local function move(id, command, key)
    local message = message_of(id)
    if message then
      call(command, key, message)
      if key == list then describe(message, deliveries_of(id) or 1) end
      if key == dead then count('buried') end
      if event then count(event) end
      moves, bytes = moves + 1, bytes + #message
    end
    call('ZREM', reserved, id)
    call('HDEL', bodies, id)
    return moves >= MAX_MOVES or bytes >= MAX_BATCH_BYTES
  end
  local returning = {}
  for i, id in ipairs(ids) do
    if (deliveries_of(id) or 1) < max_deliveries then
      returning[#returning + 1] = id
    elseif move(id, 'LPUSH', dead) then
      return i < #ids or #returning > 0
    end
  end
  local full = false
  while #returning > 0 and not full do full = move(table.remove(returning), 'RPUSH', list) end
  trim_returned()
  return #returning > 0
end

-- Return the messages of expired leases, and count `event` for each. Return whether there may be more.
local function requeue_expired(event)
  local expired = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, MAX_EXPIRED)
  if #expired == 0 then return false end
  return release_all(expired, event) or #expired == MAX_EXPIRED
end

-- If the clock of Redis was set back, bring the ends of all leases back as well: a lease must not last for as long as
-- the clock was wrong. What passed since the last reserve or extend is added once.
local function follow_clock()
  local last = tonumber(call('GET', clock) or 0)
  if last - now < MIN_CLOCK_STEP then return end
  local leases = call('ZRANGE', reserved, 0, -1, 'WITHSCORES')
  for i = 1, #leases, 2 do call('ZADD', reserved, leases[i + 1] - (last - now), leases[i]) end
  call('SET', clock, now)
end

-- Note the time of a lease that begins or is extended, for follow_clock.
local function note_clock() call('SET', clock, string.format('%.0f', now), 'EX', MAX_LEASE_SECONDS) end

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

follow_clock()
if requeue_expired('expired') then return {AGAIN} end

-- ARGV[3]: how many. KEYS[10], ARGV[4]: where the answer to an Idempotency-Key is kept, and the request's fingerprint.
-- Answer: milliseconds until more may come (-1: unknown), messages; then 1 where this is the answer that was kept.
if command == 'pop' then
  local kept = kept_answer(ARGV[4])
  if kept then return kept[1] == DONE and {DONE, -1, kept[2], 1} or kept end
  local found = pop_up_to(ARGV[3], 'RPOP', list)
  forget_all(found)
  if #found == 0 then return {DONE, until_next_expiry(), found} end
  if extra then keep_answer(ARGV[4], unpack(found)) end
  return {DONE, -1, found}
end

-- ARGV[3]: how many. ARGV[4]: lease, milliseconds. ARGV[5]: a random text that makes the ids unguessable.
-- Answer: milliseconds until more may come (-1: unknown), a list of {id, deliveries, message}, their deadline.
-- An id starts with the time in microseconds and a number, so ids sort in the order of reservation.
if command == 'reserve' then
  local deadline = now + ARGV[4]
  local found = pop_up_to(ARGV[3], 'RPOP', list)
  local deliveries = forget_all(found)
  for i, message in ipairs(found) do
    local id = string.format('%016.0f-%04d-%s-%d', time[1] * 1000000 + time[2], i, ARGV[5], deliveries[i] + 1)
    call('ZADD', reserved, deadline, id)
    call('HSET', bodies, id, message)
    found[i] = {id, deliveries[i] + 1, message}
  end
  if #found == 0 then return {DONE, until_next_expiry(), found, 0} end
  note_clock()
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

-- ARGV[3...]: ids, each once; all are held or none is touched. Their leases end now. Answer: the stale ones, how many
-- are buried, 1 where MAX_BATCH_BYTES left some for `sweep`.
if command == 'release' then
  local stale, buried = stale_ids(false), 0
  if #stale > 0 then return {DONE, stale, 0, 0} end
  for i = 3, #ARGV do
    call('ZADD', reserved, now, ARGV[i])
    if (deliveries_of(ARGV[i]) or 1) >= max_deliveries then buried = buried + 1 end
  end
  return {DONE, stale, buried, requeue_expired() and 1 or 0}
end

-- Return the messages of expired leases, as every command does first.
if command == 'sweep' then return {DONE} end

-- ARGV[3]: lease from now, milliseconds. ARGV[4]: id. Answer: 1 where it is held, its new deadline.
if command == 'extend' then
  if not call('ZSCORE', reserved, ARGV[4]) then return {DONE, 0, 0} end
  call('ZADD', reserved, now + ARGV[3], ARGV[4])
  note_clock()
  return {DONE, 1, now + ARGV[3]}
end

-- ARGV[3]: position. ARGV[4]: message. ARGV[5]: a random text to mark the place; a list has no removal by position.
-- Answer: how many were removed.
if command == 'remove' then
  local index = -1 - tonumber(ARGV[3])
  if call('LINDEX', list, index) ~= ARGV[4] then return {DONE, 0} end
  forget_at(tonumber(ARGV[3]), ARGV[4])
  call('LSET', list, index, ARGV[5])
  call('LREM', list, -1, ARGV[5])
  return {DONE, 1}
end

-- ARGV[3...]: messages that were popped, the last of them to be popped next. Unlike a push this works when memory is
-- full.
if command == 'requeue' then
  push_front({unpack(ARGV, 3)})
  return {DONE}
end

-- KEYS[10]: where the list is kept. A cleared message counts its deliveries anew when it is restored.
-- Answer: how many messages were cleared.
if command == 'clear' then
  local count = call('LLEN', list)
  if count == 0 then return {DONE, 0} end
  call('RENAME', list, extra)
  call('EXPIRE', extra, UNDO_SECONDS)
  call('DEL', returned)
  return {DONE, count}
end

-- KEYS[10]: the kept list, which is older than what waits now, so its messages go to the front. The shorter list moves.
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
  call('DEL', returned)
  return {DONE, kept}
end

-- KEYS[10]: the list to move to. ARGV[3]: how many. Answer: how many were moved.
if command == 'move' then
  local moved = pop_up_to(ARGV[3], 'LMOVE', list, extra, 'RIGHT', 'LEFT')
  forget_all(moved)
  return {DONE, #moved}
end

-- ARGV[3]: how many messages to show after ARGV[4] others. ARGV[5]: bytes to show of each.
-- Answer: waiting, reserved, dead, waiters, a list of {first bytes, size}, the last to be popped first, milliseconds
-- until this changes by itself: a lease ends, or a report of waiters (-1: it does not).
if command == 'state' then
  local waiting_clients, next_change = 0, until_next_expiry()
  local reports = call('HGETALL', waiters)
  for i = 2, #reports, 2 do
    local number, valid_until = string.match(reports[i], '^(%d+):(%d+)$')
    local left = tonumber(valid_until) - now
    if left > 0 then
      waiting_clients = waiting_clients + number
      if next_change < 0 or left < next_change then next_change = left end
    end
  end
  local heads, number, offset = {}, tonumber(ARGV[3]), tonumber(ARGV[4])
  if number > 0 then
    for i, message in ipairs(call('LRANGE', list, -offset - number, -offset - 1)) do
      heads[i] = {string.sub(message, 1, ARGV[5]), #message}
    end
  end
  return {DONE, call('LLEN', list), call('ZCARD', reserved), call('LLEN', dead), waiting_clients, heads, next_change}
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
