-- Take the oldest messages: for good or for a lease. Due messages return first.
--
-- pop      Input:  number, digest of an Idempotency-Key, fingerprint of its request; extra keys: those of answers
--          Output: milliseconds until more may come (-1: unknown), messages, 1 if this answer was saved, 1 if paused
-- reserve  Input:  number, lease in milliseconds, a random text that makes ids unguessable
--          Output: milliseconds until one is due (-1: unknown), {id, deliveries, message}..., deadline, 1 if paused;
--                  with messages, the deliveries after which one is buried
--
-- A batch ends once it reaches MAX_BATCH_BYTES.

if return_due(due_ids()) then return {AGAIN} end

local saved = command == 'pop' and saved_answer(ARGV[4], ARGV[5])
if saved then return saved[1] == DONE and {DONE, -1, saved[2], 1, 0} or saved end
if call('EXISTS', paused) == 1 then return {DONE, until_next_due(), {}, 0, 1} end

-- Read first what changes with the messages: that checks the types too.
local entries, has_reasons = front_entries(number), command ~= 'reserve' and has_failure_reasons()
local messages = take(number, 'RPOP', list)
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
