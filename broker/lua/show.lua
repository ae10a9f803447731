-- Show a queue without taking anything. Due messages return first, so that what is shown is right.
--
-- state           Input:  number of messages, offset, bytes of each
--                 Output: {waiting, reserved, delayed, dead, clients that wait, 1 if paused}, {first bytes, size}... in
--                         pop order, milliseconds until a count changes by itself (-1: never)
-- details         Input:  as of state
--                 Output: {first bytes, size, {deliveries, when it failed, reason, when it died}}... in pop order
-- details_of      Input:  number of messages in front that may have left since, {position, digest}... in pop order
--                 Output: {deliveries, when it failed, reason, when it died}...
-- in_flight       Input:  'reserved' or 'delayed', offset, id and deadline of the last message read before (or ''),
--                         number, bytes of each; with an id the list continues behind that message
--                 Output: {id, deadline, first bytes, size, {deliveries, when it failed, reason, when it died}}...
-- stats           Output: leases expired, messages buried, milliseconds for which the same message has been next
-- sweep           Output: milliseconds until the next lease or delay ends (-1: there is none)
-- report_waiters  Input:  a process, the number of its clients that wait, milliseconds for which that is valid

local WAITERS_SECONDS = 60

if command == 'report_waiters' then
  if ARGV[4] == '0' then
    call('HDEL', waiters, ARGV[3])
  else
    call('HSET', waiters, ARGV[3], ARGV[4] .. ':' .. whole(now + ARGV[5]))
    call('EXPIRE', waiters, WAITERS_SECONDS)
  end
  return {DONE}
end

if return_due(due_ids()) then return {AGAIN} end

if command == 'sweep' then return {DONE, until_next_due()} end

if command == 'state' then
  local number, offset = tonumber(ARGV[3]), tonumber(ARGV[4])
  local waiting_clients, next_change = 0, until_next_due()
  local reports = call('HGETALL', waiters)
  for i = 2, #reports, 2 do
    local clients, valid_until = string.match(reports[i], '^(%d+):(%d+)$')
    local left = tonumber(valid_until) - now
    if left > 0 and left <= WAITERS_SECONDS * 1000 then -- more if the clock was set back: the process reports again
      waiting_clients = waiting_clients + clients
      if next_change < 0 or left < next_change then next_change = left end
    end
  end
  local heads = {}
  walk(offset, number, function(message) heads[#heads + 1] = {string.sub(message, 1, ARGV[5]), #message} end)
  local counts = {call('LLEN', list), call('ZCARD', reserved), call('ZCARD', delayed), call('LLEN', dead)}
  counts[5], counts[6] = waiting_clients, call('EXISTS', paused)
  return {DONE, counts, heads, next_change}
end

if command == 'details' then
  local digests, shown = {}, {}
  walk(tonumber(ARGV[4]), tonumber(ARGV[3]), function(message)
    digests[#digests + 1] = digest_of(message)
    shown[#shown + 1] = {string.sub(message, 1, ARGV[5]), #message}
  end)
  for i, details in ipairs(details_of(digests, tonumber(ARGV[4]))) do shown[i][3] = details end
  return {DONE, shown}
end

if command == 'details_of' then
  local shown, i = {}, 4
  while i <= #ARGV do -- consecutive messages together, since their entries are read at once
    local first, digests = tonumber(ARGV[i]), {}
    repeat
      digests[#digests + 1] = ARGV[i + 1]
      i = i + 2
    until tonumber(ARGV[i] or -1) ~= first + #digests
    local offset = math.max(0, first - ARGV[3])
    for _, details in ipairs(details_of(digests, offset, true)) do shown[#shown + 1] = details end
  end
  return {DONE, shown}
end

if command == 'in_flight' then
  local schedule = ARGV[3] == 'delayed' and delayed or reserved
  local start, last_id, number = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[7])
  if last_id ~= '' then
    local rank = call('ZRANK', schedule, last_id)
    start = rank and rank + 1 or call('ZCOUNT', schedule, '-inf', '(' .. ARGV[6])
  end
  local bytes, shown, has_reasons = 0, {}, has_failure_reasons()
  local ids = number > 0 and call('ZRANGE', schedule, start, start + number - 1, 'WITHSCORES') or {}
  for i = 1, #ids, 2 do
    local id = ids[i]
    local message, failure = unpack(call('HMGET', bodies, body_field(id), failure_field(id)))
    local failed, reason = string.match(failure or '', '^!?(%d+):(.*)$')
    message = message or ''
    bytes = bytes + #message
    local head = string.sub(message, 1, ARGV[8])
    local history = {0, tonumber(failed or 0), reason or '', 0}
    if has_reasons then history = history_of(digest_of(message), unpack(history)) end
    history[1] = deliveries_of(id) -- since it joined this queue, for it counts towards a burial
    shown[#shown + 1] = {id, tonumber(ids[i + 1]), head, #message, history}
    if bytes >= MAX_WALK_BYTES then break end
  end
  return {DONE, shown}
end

-- Equal messages look like one that stays, unless fewer wait than before. A call that finds nothing new writes nothing.
if command == 'stats' then
  local seen = call('HMGET', counters, 'expired', 'buried', 'head', 'head_count', 'head_since')
  local expired, buried = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
  local message, count, since = call('LINDEX', list, -1), call('LLEN', list), now
  if message then
    local head = #message .. ':' .. digest_of(message)
    local stays = seen[3] == head and count >= tonumber(seen[4]) and tonumber(seen[5]) <= now
    since = stays and tonumber(seen[5]) or now
    if not stays or count ~= tonumber(seen[4]) then
      call('HSET', counters, 'head', head, 'head_count', count, 'head_since', whole(since))
    end
  elseif seen[3] then
    call('HDEL', counters, 'head', 'head_count', 'head_since')
  end
  local is_empty = not message and call('EXISTS', reserved, delayed, dead) == 0
  if not is_empty and call('TTL', counters) < COUNTERS_SECONDS / 2 then call('EXPIRE', counters, COUNTERS_SECONDS) end
  return {DONE, expired, buried, now - since}
end

return redis.error_reply('ERR unknown command ' .. command)
