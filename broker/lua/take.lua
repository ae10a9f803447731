-- Take the oldest messages: for good or for a lease. Due messages return first.
--
-- pop      Input:  number, digest of an Idempotency-Key, fingerprint of its request; extra keys: those of answers
--          Output: milliseconds until more may come (-1: unknown), messages, 1 if this answer was saved, HELD
-- reserve  Input:  number, lease in milliseconds, a random text that makes ids unguessable, who reserves (or none)
--          Output: milliseconds until more may come (-1: unknown), {id, deliveries, message}..., deadline, HELD; with
--                  messages, the deliveries after which one is buried
--
-- HELD is why nothing was taken: -1 if the queue is paused; milliseconds after which to try again if its limits are
-- reached; 0 otherwise. A batch ends once it reaches MAX_BATCH_BYTES.

if return_due(due_ids()) then return {AGAIN} end

local saved = command == 'pop' and saved_answer(ARGV[4], ARGV[5])
if saved then return saved[1] == DONE and {DONE, -1, saved[2], 1, 0} or saved end
if call('EXISTS', paused, settings) > 0 then
  if call('EXISTS', paused) == 1 then return {DONE, until_next_due(), {}, 0, -1} end
  local next_allowed, retry
  number, next_allowed, retry = limit(number)
  if number == 0 and call('LLEN', list) > 0 then return {DONE, next_allowed, {}, 0, retry} end
end

-- Read first what changes with the messages: that checks the types too.
local entries, has_reasons = front_entries(number), command ~= 'reserve' and has_failure_reasons()
local messages = take(number, 'RPOP', list)
spend(#messages)
local deliveries = remove_entries(entries, messages)
if has_reasons then remove_failure_reasons(messages) end
if #messages == 0 then return {DONE, until_next_due(), {}, 0, 0} end
if command == 'reserve' then
  local answer = reserve(messages, deadline, deliveries)
  announce_due(deadline)
  return answer
end
if extra then save_answer(ARGV[4], ARGV[5], unpack(messages)) end
return {DONE, -1, messages, 0, 0}
