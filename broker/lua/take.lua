-- Take the oldest messages: for good or for a lease. Due messages return first.
--
-- pop      Input:  number, digest of an Idempotency-Key, fingerprint of its request; extra keys: those of answers
--          Output: milliseconds until more may come (-1: unknown), messages, 1 if this answer was saved, 1 if paused
-- reserve  Input:  number, lease in milliseconds, a random text that makes ids unguessable
--          Output: milliseconds until one is due (-1: unknown), {id, deliveries, message}..., deadline, 1 if paused
--
-- A batch ends once it reaches MAX_BATCH_BYTES.

if return_due() then return {AGAIN} end

local number = tonumber(ARGV[3])
local saved = command == 'pop' and saved_answer(ARGV[4], ARGV[5])
if saved then return saved[1] == DONE and {DONE, -1, saved[2], 1, 0} or saved end
if is_paused() then return {DONE, until_next_due(), {}, 0, 1} end

-- Read first what changes with the messages: that checks the types too.
local entries = front_entries(number)
local has_reasons = command ~= 'reserve' and has_failure_reasons()

if command == 'reserve' then check_type('HLEN', bodies) end
local messages, bytes = {}, 0
while #messages < number and bytes < MAX_BATCH_BYTES do
  local message = call('RPOP', list)
  if not message then break end
  messages[#messages + 1], bytes = message, bytes + #message
end
local deliveries = remove_entries(entries, messages)
if #messages == 0 then return {DONE, until_next_due(), {}, 0, 0} end

if command == 'pop' then
  if has_reasons then remove_failure_reasons(messages) end
  if extra then save_answer(ARGV[4], ARGV[5], unpack(messages)) end
  return {DONE, -1, messages, 0, 0}
end

local deadline, records = now + ARGV[4], {}
for i, message in ipairs(messages) do
  local delivery = deliveries[i] + 1
  local id = string.format('%016.0f-%04d-%s-%d', time[1] * 1000000 + time[2], i, ARGV[5], delivery)
  call('ZADD', reserved, deadline, id)
  call('HSET', bodies, id, message)
  records[i] = {id, delivery, message}
end
announce_due(deadline)
return {DONE, -1, records, deadline, 0}
