#!lua
-- Push once for an Idempotency-Key. Without allow-oom: a full server refuses this push as it refuses any other.
--
-- KEYS: list, kept answer. ARGV: the request's fingerprint, LPUSH or RPUSH, messages.
-- Answer: {DONE, the queue's length after that push}, or {CONFLICT}: the key was used with another request.

local DONE, CONFLICT = 0, 2
local MAX_ARGUMENTS = 1000 -- Lua's unpack breaks near 8,000
local ANSWER_SECONDS = 24 * 3600

local kept = redis.call('LRANGE', KEYS[2], 0, -1)
if #kept > 0 and kept[1] ~= ARGV[1] then return {CONFLICT} end
if #kept > 0 then return {DONE, tonumber(kept[2])} end
local count = 0
for i = 3, #ARGV, MAX_ARGUMENTS do
  count = redis.call(ARGV[2], KEYS[1], unpack(ARGV, i, math.min(i + MAX_ARGUMENTS - 1, #ARGV)))
end
redis.call('RPUSH', KEYS[2], ARGV[1], count)
redis.call('EXPIRE', KEYS[2], ANSWER_SECONDS)
return {DONE, count}
