-- Pushes that need more than one command, and results. They store new data, so a full server rejects them.
--
-- push, push_front, push_later
--               Input:  digest of an Idempotency-Key, fingerprint of its request, delay in milliseconds, a random text
--                       that makes ids unguessable, messages; extra keys: those of answers
--               Output: length of the queue, first and third part of the ids of delayed messages, 1 if this answer was
--                       saved
-- store_result  Input:  seconds to keep it, result; extra key: where it is stored
--
-- `push` adds messages to the back, `push_front` to the front, the last of them foremost, and `push_later` to the back
-- when the delay has ended. To put popped messages back, `push_front` also exists as a script that a full server runs.

local FIRST = 7 -- in ARGV

if command == 'store_result' then
  store_results(ARGV[3], {{extra, ARGV[4]}})
  return {DONE}
end

local idempotency_key, fingerprint, due, random = ARGV[3], ARGV[4], now + ARGV[5], ARGV[6]
local saved = saved_answer(idempotency_key, fingerprint)
if saved then return saved[1] == DONE and {DONE, tonumber(saved[2][1]), saved[2][2], saved[2][3], 1} or saved end

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
