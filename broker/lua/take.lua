-- Take the oldest messages: for good or for a lease. Due messages return first.
--
-- pop      Input:  number, digest of an Idempotency-Key, fingerprint of its request; extra keys: those of answers
--          Output: milliseconds until more may come (-1: unknown), HELD, 1 if this answer was saved, messages
-- reserve  Input:  number, lease in milliseconds, a random text that makes ids unguessable, who reserves (or none)
--          Output: milliseconds until more may come (-1: unknown), HELD, deadline; with messages, the deliveries after
--                  which one is buried, and for each its id, deliveries and text
--
-- HELD is why nothing was taken: -1 if the queue is paused; milliseconds after which to try again if its limits are
-- reached; 0 otherwise. A batch ends once it reaches MAX_BATCH_BYTES.

local number = tonumber(ARGV[3])
if return_due(due_ids()) then return {AGAIN} end

local saved = command == 'pop' and saved_answer(ARGV[4], ARGV[5])
if saved then return saved[1] == DONE and {DONE, -1, 0, 1, unpack(saved[2])} or saved end
if call('EXISTS', paused, settings) > 0 then
  if call('EXISTS', paused) == 1 then return {DONE, until_next_due(), -1, 0} end
  local next_allowed, retry
  number, next_allowed, retry = limit(number)
  if number == 0 and call('LLEN', list) > 0 then return {DONE, next_allowed, retry, 0} end
end

-- Read first what changes with the messages: that checks the types too.
if command == 'reserve' then check_type('HLEN', bodies) end
local entries, has_reasons = front_entries(number), command == 'pop' and has_failure_reasons()
local messages, bytes = {}, 0
while #messages < number and bytes < MAX_BATCH_BYTES do
  local message = call('RPOP', list)
  if not message then break end
  messages[#messages + 1], bytes = message, bytes + #message
end
spend(#messages)
local deliveries = remove_entries(entries, messages)
if has_reasons then remove_failure_reasons(messages) end
if #messages == 0 then return {DONE, until_next_due(), 0, 0} end
if command == 'pop' then
  if extra then save_answer(ARGV[4], ARGV[5], unpack(messages)) end
  return {DONE, -1, 0, 0, unpack(messages)}
end

local deadline = now + ARGV[4]
local answer = {DONE, -1, 0, deadline, max_deliveries}
for i, message in ipairs(messages) do
  local delivery = deliveries[i] + 1
  local id = string.format('%s-%04d-%s-%d', micros, i, ARGV[5], delivery)
  call('ZADD', reserved, deadline, id)
  call('HSET', bodies, id, message, unpack(ARGV[6] and {id .. ':by', ARGV[6]} or {}))
  for _, value in ipairs({id, delivery, message}) do answer[#answer + 1] = value end
end
announce_due(deadline)
return answer
