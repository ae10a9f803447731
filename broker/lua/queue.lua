-- Every command of ReliableQueue but push. A call is whole or nothing. It runs when memory is full (`allow-oom`):
-- these commands are what empties a full server.

local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte
local MAX_EXPIRED = 10000 -- expired leases that one call looks at; beyond it the order of dead letters is not kept
local MAX_MOVES = 1000 -- messages of expired leases that one call moves
local UNDO_SECONDS = 3600 -- how long a cleared queue can be restored
local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- how many acked ids are remembered, and how long
local WAITERS_SECONDS = 60
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

-- An id is '<microseconds>-<number>-<random>-<deliveries>', of a delayed message with '-d' behind it: how often it was
-- delivered, this time included; 0 if never.
local function is_delayed(id) return string.sub(id, -2) == '-d' end
local function place_of(id) return is_delayed(id) and delayed or reserved end
local function field_of(id) return is_delayed(id) and string.sub(id, 1, -3) or id end
local function failure_field(id) return field_of(id) .. ':failure' end
local function deliveries_of(id) return tonumber(string.match(field_of(id), '^%d+%-%d+%-%x+%-(%d+)$')) end

-- The message of an id. Version 0.1 kept it as '<deliveries>:<message>', under an id without deliveries.
local function message_of(id)
  local body = call('HGET', bodies, field_of(id))
  if body and not deliveries_of(id) then return string.match(body, '^%d+:(.*)$') end
  return body
end

-- Why a message comes back: when it failed, the reason, whether it is to be buried, and whether that was noted. Without
-- a note its lease ended.
local function note_failure(id, reason, bury)
  call('HSET', bodies, failure_field(id), (bury and '!' or '') .. whole(now) .. ':' .. reason)
end
local function failure_of(id)
  local bury, when, reason = string.match(call('HGET', bodies, failure_field(id)) or '', '^(!?)(%d+):(.*)$')
  return tonumber(when or now), reason or 'lease expired', bury == '!', when ~= nil
end

local function drop(id)
  call('ZREM', place_of(id), id)
  call('HDEL', bodies, field_of(id), failure_field(id))
end

local function is_buried(id)
  local _, _, bury = failure_of(id)
  return bury or (not is_delayed(id) and (deliveries_of(id) or 1) >= max_deliveries)
end

-- Count an event for /metrics: only scripts see when a lease ends by itself, and all processes must count it once.
local function count(event)
  call('HINCRBY', counters, event, 1)
  call('EXPIRE', counters, COUNTERS_SECONDS)
end

-- End reservations: messages go to the dead letters, the oldest first, or to the front of the queue, the oldest
-- foremost; those that were never delivered to its back, in the order given. Return whether some are left because
-- MAX_MOVES or MAX_BATCH_BYTES were reached.
local function release_all(ids)
  local moves, bytes = 0, 0
  local function move(id, command, key)
    local message = message_of(id)
    if message then
      call(command, key, message)
      local failed, reason, _, is_noted = failure_of(id)
      local deliveries = deliveries_of(id) or 1
      if key == dead then
        note_cause(message, deliveries, failed, reason)
        count('buried')
      elseif deliveries > 0 then
        describe(message, deliveries, failed, reason)
      end
      if not is_noted and not is_delayed(id) then count('expired') end
      moves, bytes = moves + 1, bytes + #message
    end
    drop(id)
    return moves >= MAX_MOVES or bytes >= MAX_BATCH_BYTES
  end
  local returning, others = {}, {}
  for _, id in ipairs(ids) do
    local is_new = deliveries_of(id) == 0 and not is_buried(id)
    if not is_new then
      others[#others + 1] = id
    elseif move(id, 'LPUSH', list) then
      return true
    end
  end
  table.sort(others)
  for _, id in ipairs(others) do
    if not is_buried(id) then
      returning[#returning + 1] = id
    elseif move(id, 'LPUSH', dead) then
      return true
    end
  end
  local full = false
  while #returning > 0 and not full do full = move(table.remove(returning), 'RPUSH', list) end
  trim_returned()
  return #returning > 0
end

-- Return the messages whose lease or delay is over. Return whether there may be more.
local function requeue_due()
  local due = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, MAX_EXPIRED)
  local delays = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, MAX_MOVES)
  if #due + #delays == 0 then return false end
  local are_more = #due == MAX_EXPIRED or #delays == MAX_MOVES
  for _, id in ipairs(delays) do due[#due + 1] = id end
  return release_all(due) or are_more
end

-- If the clock of Redis was set back, bring the ends of all leases and delays back as well: they must not last for as
-- long as the clock was wrong. What passed since the last one began or was extended is added once.
local function follow_clock()
  local last = tonumber(string.match(call('GET', clock) or '', '^%d+') or 0)
  if last - now < MIN_CLOCK_STEP then return end
  local latest = now
  for _, place in ipairs({reserved, delayed}) do
    local ends = call('ZRANGE', place, 0, -1, 'WITHSCORES')
    for i = 1, #ends, 2 do
      local due = ends[i + 1] - (last - now)
      call('ZADD', place, due, ends[i])
      latest = math.max(latest, due)
    end
  end
  call('DEL', clock)
  note_due(latest)
end

-- Milliseconds until the next lease or delay ends, -1 without one.
local function until_next_due()
  local next_due = math.huge
  for _, place in ipairs({reserved, delayed}) do
    local first = call('ZRANGE', place, 0, 0, 'WITHSCORES')
    if #first > 0 then next_due = math.min(next_due, tonumber(first[2])) end
  end
  return next_due == math.huge and -1 or math.max(1, next_due - now)
end

-- The ids, of those from ARGV[first] on, that are not held; with `or_acked` an id that was acked lately is known too.
local function stale_ids(first, or_acked)
  local stale = {}
  for i = first, #ARGV do
    local known = call('ZSCORE', place_of(ARGV[i]), ARGV[i]) or (or_acked and call('ZSCORE', acked, ARGV[i]))
    if not known then stale[#stale + 1] = ARGV[i] end
  end
  return stale
end

-- Keep a message that is about to be removed, with the one ahead of it, and why it failed or died.
local function keep_removed(position, message)
  call('HSET', extra, 'message', message, 'position', position)
  local known = {
    ahead = position > 0 and call('LINDEX', list, -position),
    entry = entry_at(position, message),
    cause = call('HGET', causes, digest_of(message)),
  }
  for field, value in pairs(known) do
    if value then call('HSET', extra, field, value) end
  end
  call('EXPIRE', extra, UNDO_SECONDS)
end

-- Put a removed message behind the one that was ahead of it. If that one has left, so have all that were: then in front.
local function return_removed(mark)
  local message, position, ahead, entry, cause = unpack(call('HMGET', extra, 'message', 'position', 'ahead', 'entry', 'cause'))
  local found = ahead and call('LPOS', list, ahead, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position) or {}
  if #found > 0 then
    local index = found[#found]
    local _, place = entry_at(call('LLEN', list) - 1 - index, ahead)
    if place then insert_behind(returned, place, entry or digest_of(message) .. ':0:' .. whole(now), mark) end
    insert_behind(list, index, message, mark)
  else
    call('RPUSH', list, message)
    if entry then
      call('RPUSH', returned, entry)
    elseif call('EXISTS', returned) == 1 then
      describe(message, 0)
    end
    trim_returned()
  end
  if cause then
    local number = tonumber(string.match(call('HGET', causes, digest_of(message)) or '0', '^%d+')) + 1
    call('HSET', causes, digest_of(message), (string.gsub(cause, '^%d+', number)))
  end
  call('DEL', extra)
end

local function is_paused() return call('EXISTS', paused) == 1 end

follow_clock()
if requeue_due() then return {AGAIN} end

-- ARGV[3]: how many. ARGV[4]: the request's fingerprint, with an Idempotency-Key, whose answer is kept in the extra key.
-- Answer: milliseconds until more may come (-1: unknown), messages, 1 where this is the answer that was kept, 1 where the
-- queue is paused.
if command == 'pop' then
  local kept = kept_answer(ARGV[4])
  if kept then return kept[1] == DONE and {DONE, -1, kept[2], 1, 0} or kept end
  if is_paused() then return {DONE, until_next_due(), {}, 0, 1} end
  local found = pop_up_to(ARGV[3], 'RPOP', list)
  forget_all(found)
  forget_causes(found)
  if #found == 0 then return {DONE, until_next_due(), found, 0, 0} end
  if extra then keep_answer(ARGV[4], unpack(found)) end
  return {DONE, -1, found, 0, 0}
end

-- ARGV[3]: how many. ARGV[4]: lease, milliseconds. ARGV[5]: a random text that makes the ids unguessable.
-- Answer: milliseconds until more may come (-1: unknown), a list of {id, deliveries, message}, their deadline, 1 where
-- the queue is paused.
-- An id starts with the time in microseconds and a number, so ids sort in the order of reservation.
if command == 'reserve' then
  if is_paused() then return {DONE, until_next_due(), {}, 0, 1} end
  local deadline = now + ARGV[4]
  local found = pop_up_to(ARGV[3], 'RPOP', list)
  local deliveries = forget_all(found)
  for i, message in ipairs(found) do
    local id = string.format('%016.0f-%04d-%s-%d', time[1] * 1000000 + time[2], i, ARGV[5], deliveries[i] + 1)
    call('ZADD', reserved, deadline, id)
    call('HSET', bodies, id, message)
    found[i] = {id, deliveries[i] + 1, message}
  end
  if #found == 0 then return {DONE, until_next_due(), found, 0, 0} end
  note_due(deadline)
  return {DONE, -1, found, deadline, 0}
end

-- ARGV[3...]: ids; all are known or none is touched. Answer: the stale ones.
-- `ack_with` also keeps the result of a job, in the extra key. ARGV[3]: seconds to keep it. ARGV[4]: the result.
-- ARGV[5]: an id.
if command == 'ack' or command == 'ack_with' then
  local first = command == 'ack' and 3 or 5
  local stale = stale_ids(first, true)
  if #stale > 0 then return {DONE, stale} end
  local is_known = call('EXISTS', causes) == 1
  for i = first, #ARGV do
    if call('ZREM', place_of(ARGV[i]), ARGV[i]) == 1 then
      if is_known then forget_causes({message_of(ARGV[i])}) end
      drop(ARGV[i])
      call('ZADD', acked, now, ARGV[i])
    end
  end
  call('ZREMRANGEBYRANK', acked, 0, -1 - MAX_ACKED)
  call('EXPIRE', acked, ACKED_SECONDS)
  if command == 'ack_with' then store_result(extra, ARGV[3], ARGV[4]) end
  return {DONE, stale}
end

-- ARGV[3]: a delay, milliseconds. ARGV[4]: 1 to bury. ARGV[5]: why they failed. ARGV[6...]: ids, each once; all are held
-- or none is touched. With a delay they come back then, under other ids; else their leases end now. A delayed message
-- that is released has not failed again.
-- Answer: the stale ones, how many are buried, 1 where MAX_BATCH_BYTES left some for `sweep`.
if command == 'release' then
  local stale, buried, due = stale_ids(6, false), 0, now + ARGV[3]
  local bury = ARGV[4] == '1'
  if #stale > 0 then return {DONE, stale, 0, 0} end
  for i = 6, #ARGV do
    local id = ARGV[i]
    if bury or not is_delayed(id) then note_failure(id, ARGV[5], bury) end
    if is_buried(id) then
      call('ZADD', place_of(id), now, id)
      buried = buried + 1
    elseif is_delayed(id) or due == now then
      call('ZADD', place_of(id), due, id)
    else
      call('ZADD', delayed, due, id .. '-d')
      call('ZREM', reserved, id)
    end
  end
  if due > now then note_due(due) end
  return {DONE, stale, buried, requeue_due() and 1 or 0}
end

-- Return the messages that are due, as every command does first. Answer: milliseconds until the next one is (-1: none).
if command == 'sweep' then return {DONE, until_next_due()} end

-- ARGV[3]: lease from now, milliseconds. ARGV[4]: id. Answer: 1 where it is held, its new deadline.
if command == 'extend' then
  if not call('ZSCORE', place_of(ARGV[4]), ARGV[4]) then return {DONE, 0, 0} end
  call('ZADD', place_of(ARGV[4]), now + ARGV[3], ARGV[4])
  note_due(now + ARGV[3])
  return {DONE, 1, now + ARGV[3]}
end

-- ARGV[3]: what to list, reserved or delayed, the soonest first. ARGV[4]: how many to skip. ARGV[5]: the last id that was
-- read before, if any, and ARGV[6]: its end, milliseconds: then the list goes on behind it. ARGV[7]: how many.
-- ARGV[8]: bytes to show of each. It ends once it has MAX_LOOK_BYTES of messages.
-- Answer: a list of {id, its end, first bytes, size, deliveries, when it failed last (0: never), why}, how many there are.
if command == 'held' then
  local place = ARGV[3] == 'delayed' and delayed or reserved
  local start = tonumber(ARGV[4])
  if ARGV[5] ~= '' then
    start = call('ZRANK', place, ARGV[5])
    start = start and start + 1 or call('ZCOUNT', place, '-inf', '(' .. ARGV[6])
  end
  local number, bytes, found = tonumber(ARGV[7]), 0, {}
  local ids = number > 0 and call('ZRANGE', place, start, start + number - 1, 'WITHSCORES') or {}
  for i = 1, #ids, 2 do
    local id = ids[i]
    local message = message_of(id) or ''
    local when, reason = string.match(call('HGET', bodies, failure_field(id)) or '', '^!?(%d+):(.*)$')
    bytes = bytes + #message
    local head = string.sub(message, 1, ARGV[8])
    found[#found + 1] = {id, tonumber(ids[i + 1]), head, #message, deliveries_of(id) or 1, tonumber(when or 0), reason or ''}
    if bytes >= MAX_LOOK_BYTES then break end
  end
  return {DONE, found, call('ZCARD', place)}
end

-- ARGV[3]: position. ARGV[4]: message. ARGV[5]: a random text to mark the place; a list has no removal by position.
-- KEYS: for `remove` to be undone the extra one keeps what is removed, and what is known of it; for `move_one` it is the
-- list that the message is first pushed to. Answer: how many were removed.
if command == 'remove' or command == 'move_one' then
  local index = -1 - tonumber(ARGV[3])
  if call('LINDEX', list, index) ~= ARGV[4] then return {DONE, 0} end
  if command == 'move_one' then
    call('LPUSH', extra, ARGV[4])
  elseif extra then
    keep_removed(tonumber(ARGV[3]), ARGV[4])
  end
  forget_at(tonumber(ARGV[3]), ARGV[4])
  forget_causes({ARGV[4]})
  call('LSET', list, index, ARGV[5])
  call('LREM', list, -1, ARGV[5])
  return {DONE, 1}
end

-- ARGV[3]: a random text to mark the place. KEYS and the answer are those of `restore`.
if command == 'restore' and call('TYPE', extra).ok == 'hash' then
  return_removed(ARGV[3])
  return {DONE, 1}
end

-- ARGV[3...]: messages that were popped, the last of them to be popped next. Unlike a push this works when memory is
-- full.
if command == 'requeue' then
  push_front({unpack(ARGV, 3)})
  return {DONE}
end

-- KEYS: the extra one is where the list is kept. A cleared message counts its deliveries anew when it is restored.
-- Answer: how many messages were cleared.
if command == 'clear' then
  local count = call('LLEN', list)
  if count == 0 then return {DONE, 0} end
  call('RENAME', list, extra)
  call('EXPIRE', extra, UNDO_SECONDS)
  call('DEL', returned, causes)
  return {DONE, count}
end

-- KEYS: the extra one is the kept list, which is older than what waits now, so its messages go to the front. The shorter list moves.
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

-- KEYS: the extra one is the list to move to. ARGV[3]: how many. Answer: how many were moved.
if command == 'move' then
  local moved = pop_up_to(ARGV[3], 'LMOVE', list, extra, 'RIGHT', 'LEFT')
  forget_all(moved)
  forget_causes(moved)
  return {DONE, #moved}
end

-- ARGV[3]: how many messages to show after ARGV[4] others. ARGV[5]: bytes to show of each.
-- Answer: waiting, reserved, delayed, dead, waiters, 1 where it is paused, a list of {first bytes, size}, the last to be
-- popped first, milliseconds until this changes by itself: a lease or delay ends, or a report of waiters (-1: it does
-- not).
if command == 'state' then
  local waiting_clients, next_change = 0, until_next_due()
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
  local counts = {call('LLEN', list), call('ZCARD', reserved), call('ZCARD', delayed), call('LLEN', dead)}
  return {DONE, counts, waiting_clients, is_paused() and 1 or 0, heads, next_change}
end

-- ARGV[3]: how many messages to show after ARGV[4] others. ARGV[5]: bytes to show of each. It ends once it has looked at
-- MAX_LOOK_BYTES. Answer: a list of {first bytes, size, {deliveries, when it failed, why, 1 where it died}}, next to be
-- popped first.
if command == 'details' then
  local messages, found = {}, {}
  look(tonumber(ARGV[4]), tonumber(ARGV[3]), function(message) messages[#messages + 1] = message end)
  for i, details in ipairs(details_of(messages, tonumber(ARGV[4]))) do
    found[i] = {string.sub(messages[i], 1, ARGV[5]), #messages[i], details}
  end
  return {DONE, found}
end

-- Give nothing out any more, or again. KEYS: the extra one is a list that those who wait on a paused queue wait for.
if command == 'pause' then
  call('DEL', extra)
  call('SET', paused, 1)
  return {DONE}
end
if command == 'resume' then
  if call('DEL', paused) == 1 then
    call('RPUSH', extra, '1')
    call('EXPIRE', extra, WAITERS_SECONDS)
  end
  return {DONE}
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
