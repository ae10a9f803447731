-- Show a queue without taking anything. Due messages return first, so that what is shown is right.
--
-- state           Input:  number of messages, offset, bytes of each
--                 Output: {waiting, reserved, delayed, dead, clients that wait, 1 if paused}, {first bytes, size}... in
--                         pop order, milliseconds until a count changes by itself (-1: never), and with the message
--                         that is next {its size and ends, milliseconds since it was put in front (-1: it was not),
--                         its deliveries, messages that were put in front}
-- details         Input:  as of state
--                 Output: {first bytes, size, {deliveries, when it failed, reason, when it died}}... in pop order
-- details_of      Input:  number of messages in front that may have left since, {position, digest}... in pop order
--                 Output: {deliveries, when it failed, reason, when it died}...
-- in_flight       Input:  'reserved' or 'delayed', offset, id and deadline of the last message read before (or ''),
--                         number, bytes of each; with an id the list continues behind that message
--                 Output: {id, deadline, first bytes, size, {deliveries, when it failed, reason, when it died}, by}...
-- consumers       Input:  id and deadline of the last reservation read before (or '')
--                 Output: {by, number of the next 1,000 reservations, milliseconds since the oldest of them was made}...,
--                         id and deadline of the last of them (none if there are no more), and in the first call
--                         '<number of clients of a process that wait>[ <by> <number of them>]...'...
-- stats           Output: leases expired, messages buried
-- sweep           Output: milliseconds until the next lease or delay ends (-1: there is none)
-- report_waiters  Input:  a process, the number of its clients that wait, milliseconds for which that is valid,
--                         ' <by> <number>' for each of their names

local WAITERS_SECONDS = 60
local MAX_RESERVATIONS = 1000 -- that one call looks at; Lua fails to unpack near 8,000
local SUMMARY_END = 500 -- bytes at each end of a message that stand for it

if command == 'report_waiters' then
  if ARGV[4] == '0' then
    call('HDEL', waiters, ARGV[3])
  else
    call('HSET', waiters, ARGV[3], ARGV[4] .. ':' .. whole(now + ARGV[5]) .. ARGV[6])
    call('EXPIRE', waiters, WAITERS_SECONDS)
  end
  return {DONE}
end

if return_due(due_ids()) then return {AGAIN} end

if command == 'sweep' then return {DONE, until_next_due()} end

-- Call visit(clients, names, milliseconds left) for each report of waiting clients that is valid.
local function each_report(visit)
  for _, report in ipairs(call('HVALS', waiters)) do
    local clients, valid_until, names = string.match(report, '^(%d+):(%d+)(.*)$')
    local left = tonumber(valid_until) - now
    -- A longer time means that the clock was set back; the process will report again.
    if left > 0 and left <= WAITERS_SECONDS * 1000 then visit(clients, names, left) end
  end
end

-- The rank in a schedule that follows the last message read, even if that one has left.
local function rank_after(schedule, last_id, deadline)
  local rank = call('ZRANK', schedule, last_id)
  return rank and rank + 1 or call('ZCOUNT', schedule, '-inf', '(' .. deadline)
end

if command == 'state' then
  local number, offset = tonumber(ARGV[3]), tonumber(ARGV[4])
  local waiting_clients, next_change = 0, until_next_due()
  each_report(function(clients, _, left)
    waiting_clients = waiting_clients + clients
    if next_change < 0 or left < next_change then next_change = left end
  end)
  local heads, next_message = {}, nil
  walk(offset, number, function(message)
    if offset == 0 and #heads == 0 then next_message = message end
    heads[#heads + 1] = {string.sub(message, 1, ARGV[5]), #message}
  end)
  local counts = {call('LLEN', list), call('ZCARD', reserved), call('ZCARD', delayed), call('LLEN', dead)}
  counts[5], counts[6] = waiting_clients, call('EXISTS', paused)
  if not next_message then return {DONE, counts, heads, next_change} end
  local summary = #next_message .. string.sub(next_message, 1, SUMMARY_END) .. string.sub(next_message, -SUMMARY_END)
  local entries = front_entries(1)
  local found = match_entries(entries, 1, function() return digest_of(next_message) end)[1]
  if not found then return {DONE, counts, heads, next_change, {summary, -1, 0, 0}} end
  local deliveries, since = string.match(entries[found], '^%x*:(%d+):(%d+)')
  return {DONE, counts, heads, next_change, {summary, now - since, tonumber(deliveries), call('LLEN', redeliveries)}}
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
  if last_id ~= '' then start = rank_after(schedule, last_id, ARGV[6]) end
  local bytes, shown, has_reasons = 0, {}, has_failure_reasons()
  local ids = number > 0 and call('ZRANGE', schedule, start, start + number - 1, 'WITHSCORES') or {}
  for i = 1, #ids, 2 do
    local id = ids[i]
    local message, failure, by = unpack(call('HMGET', bodies, body_field(id), failure_field(id), by_field(id)))
    local failed, reason = string.match(failure or '', '^!?(%d+):(.*)$')
    message = message or ''
    bytes = bytes + #message
    local head = string.sub(message, 1, ARGV[8])
    local history = {0, tonumber(failed or 0), reason or '', 0}
    if has_reasons then history = history_of(digest_of(message), unpack(history)) end
    history[1] = deliveries_of(id) -- since it joined this queue, for it counts towards a burial
    shown[#shown + 1] = {id, tonumber(ids[i + 1]), head, #message, history, by or ''}
    if bytes >= MAX_WALK_BYTES then break end
  end
  return {DONE, shown}
end

if command == 'consumers' then
  local reports, is_first = {}, ARGV[3] == ''
  if is_first then each_report(function(clients, names) reports[#reports + 1] = clients .. names end) end
  local start = is_first and 0 or rank_after(reserved, ARGV[3], ARGV[4])
  local ids = call('ZRANGE', reserved, start, start + MAX_RESERVATIONS - 1, 'WITHSCORES')
  local fields, records, held = {}, {}, {}
  for i = 1, #ids, 2 do fields[#fields + 1] = by_field(ids[i]) end
  for i, by in ipairs(#fields > 0 and call('HMGET', bodies, unpack(fields)) or {}) do
    local reserved_at = math.floor(tonumber(string.match(ids[2 * i - 1], '^%d+') or 0) / 1000)
    local record = records[by] or {by or '', 0, 0}
    if not records[by] then held[#held + 1], records[by] = record, record end
    record[2], record[3] = record[2] + 1, math.max(record[3], now - reserved_at)
  end
  local last = #fields == MAX_RESERVATIONS and {ids[#ids - 1], ids[#ids]} or {}
  return {DONE, held, last, reports}
end

if command == 'stats' then
  local expired, buried = unpack(call('HMGET', counters, 'expired', 'buried'))
  local is_empty = call('EXISTS', list, reserved, delayed, dead) == 0
  if not is_empty and call('TTL', counters) < COUNTERS_SECONDS / 2 then call('EXPIRE', counters, COUNTERS_SECONDS) end
  return {DONE, tonumber(expired or 0), tonumber(buried or 0)}
end
