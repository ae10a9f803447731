-- Pushes that need more than one command, and results. They store new data, so a full server rejects them.
--
-- push, push_front, push_later
--               Input:  digest of an Idempotency-Key, fingerprint of its request, delay in milliseconds, a random text
--                       that makes ids unguessable, messages; extra keys: those of answers
--               Output: length of the queue, first and third part of the ids of delayed messages, 1 if this answer was
--                       saved
-- import        Input:  as of push, with delay 0; {what is known of a message, the message}..., in pop order
--               Output: as of push
-- store_result  Input:  seconds to keep it, result; extra key: where it is stored
--
-- `push` adds messages to the back, `push_front` to the front, the last of them foremost, and `push_later` to the back
-- when the delay has ended. To put popped messages back, `push_front` also exists as a script that a full server runs.
-- `import` puts each message into the state that it had in another queue. What is known of one is
-- '<state>:<deliveries>:<when it failed>:<when it died>:<deadline>:<reason>', where a time is 0 if it is not known.

local FIRST = 7 -- in ARGV

if command == 'store_result' then
  store_results(ARGV[3], {{extra, ARGV[4]}})
  return {DONE}
end

local idempotency_key, fingerprint, due, random = ARGV[3], ARGV[4], now + ARGV[5], ARGV[6]
local saved = saved_answer(idempotency_key, fingerprint)
if saved then return saved[1] == DONE and {DONE, tonumber(saved[2][1]), saved[2][2], saved[2][3], 1} or saved end

local MAX_COVERED = 100 -- waiting messages without a history behind which imported ones keep theirs

-- Let each waiting message have an entry, so that those of messages behind it are found. Return whether each has one.
local function cover_waiting()
  local waiting = call('LLEN', list)
  if waiting == 0 then call('DEL', redeliveries) end -- other clients took the messages
  local missing = waiting - call('LLEN', redeliveries)
  if missing > MAX_COVERED then return false end
  for index = missing - 1, 0, -1 do call('LPUSH', redeliveries, new_entry(call('LINDEX', list, index), 0)) end
  return true
end

-- Store the history of imported messages that wait: {message, deliveries, when it failed, reason}... in pop order.
local function import_entries(waiting)
  local last = #waiting
  while last > 0 and waiting[last][2] == 0 and waiting[last][3] == 0 do last = last - 1 end
  if last == 0 or not cover_waiting() then return end
  local entries = {}
  for i = 1, last do
    local message, deliveries, failed, reason = unpack(waiting[i])
    entries[i] = new_entry(message, deliveries, failed > 0 and whole(failed), reason)
  end
  call_many('LPUSH', redeliveries, entries)
  trim_redeliveries()
end

-- Store a message that returns at a deadline.
local function import_delayed(number, message, deliveries, failed, deadline, reason)
  local id = string.format('%s-%06d-%s-%d', micros, number, random, deliveries)
  call('HSET', bodies, id, message)
  if failed > 0 then call('HSET', bodies, id .. ':failure', whole(failed) .. ':' .. reason) end
  call('ZADD', delayed, deadline, id .. '-d')
end

if command == 'import' then
  check_type('LLEN', list, redeliveries, dead)
  check_type('HLEN', bodies, failure_reasons, dead_reasons)
  check_type('ZCARD', delayed)
  sync_clock()
  local messages, waiting, dead_letters, soonest, latest = {}, {}, {}, math.huge, 0
  for i = FIRST, #ARGV, 2 do
    local message, state, deliveries, failed, died, deadline, reason =
      ARGV[i + 1], string.match(ARGV[i], '^(%a+):(%d+):(%d+):(%d+):(%d+):(.*)$')
    deliveries, failed, deadline = tonumber(deliveries), tonumber(failed), tonumber(deadline)
    if died ~= '0' then
      local reasons, digest = state == 'dead' and dead_reasons or failure_reasons, digest_of(message)
      add_failure_reason(reasons, digest, deliveries .. ':' .. died .. ':' .. reason)
      if string.sub(reasons, -21) ~= ':dead:failure_reasons' then call('EXPIRE', reasons, REASON_SECONDS) end
    end
    if state == 'dead' then
      dead_letters[#dead_letters + 1] = message
    elseif state == 'delayed' then
      import_delayed((i - FIRST) / 2 + 1, message, deliveries, failed, deadline, reason)
      soonest, latest = math.min(soonest, deadline), math.max(latest, deadline)
    else
      messages[#messages + 1] = message
      waiting[#waiting + 1] = {message, died == '0' and deliveries or 0, failed, reason}
    end
  end
  import_entries(waiting)
  call_many('LPUSH', dead, dead_letters)
  call_many('LPUSH', list, messages)
  if latest > 0 then
    announce_due(soonest)
    announce_due(latest)
  end
  local count = call('LLEN', list)
  if extra then save_answer(idempotency_key, fingerprint, count, micros, random) end
  return {DONE, count, micros, random, 0}
end

local count
-- A message in front needs an entry only if one behind it has one.
local has_entries = command == 'push_front' and call('LLEN', redeliveries) > 0
if command == 'push_later' then
  count = call('LLEN', list)
  check_type('ZCARD', delayed)
  sync_clock()
end
if command == 'push' then
  count = call_many('LPUSH', list, ARGV, FIRST)
elseif command == 'push_front' then
  count = call_many('RPUSH', list, ARGV, FIRST)
end
for i = FIRST, has_entries and #ARGV or 0 do call('RPUSH', redeliveries, new_entry(ARGV[i], 0)) end
for i = FIRST, command == 'push_later' and #ARGV or 0 do
  local id = string.format('%s-%06d-%s-0', micros, i - FIRST + 1, random)
  call('HSET', bodies, id, ARGV[i])
  call('ZADD', delayed, due, id .. '-d')
end
if has_entries then trim_redeliveries() end
if command == 'push_later' then announce_due(due) end
count = count or call('LLEN', list)
if extra then save_answer(idempotency_key, fingerprint, count, micros, random) end
return {DONE, count, micros, random, 0}
