-- A push that needs more than one LPUSH: once for an Idempotency-Key, or to the front. Without allow-oom: a full server
-- refuses it as it refuses any other push.
--
-- KEYS[10]: where the answer to an Idempotency-Key is kept. ARGV[3]: the request's fingerprint. ARGV[4...]: messages.
-- `push` adds them to the back, `push_front` in front, the last of them foremost.
-- Answer: the queue's length after that push; then 1 where this is the answer that was kept.

local kept = kept_answer(ARGV[3])
if kept then return kept[1] == DONE and {DONE, tonumber(kept[2][1]), 1} or kept end
for i = 4, #ARGV, MAX_ARGUMENTS do
  local messages = {unpack(ARGV, i, math.min(i + MAX_ARGUMENTS - 1, #ARGV))}
  if command == 'push' then
    call('LPUSH', list, unpack(messages))
  else
    push_front(messages)
  end
end
local count = call('LLEN', list)
if extra then keep_answer(ARGV[3], count) end
return {DONE, count}
