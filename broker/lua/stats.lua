-- What /metrics shows of a queue beside its counts. It runs when memory is full (`allow-oom`): then it is asked most.
--
-- Equal messages look like one message that stays, unless fewer wait than before. What is kept of the next message is a
-- digest of its ends, for it may be large.
-- Answer: how many leases have run out, how many messages were buried, milliseconds for which the same message has been
-- next, as far as that was asked (0: the queue is empty).

local MAX_END = 4096 -- bytes of each end of a message that are compared

local seen = call('HMGET', counters, 'expired', 'buried', 'next', 'next_count', 'next_since')
local expired, buried = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
local message, count = call('LINDEX', list, -1), call('LLEN', list)
if not message then
  if seen[3] then call('HDEL', counters, 'next', 'next_count', 'next_since') end
  return {DONE, expired, buried, 0}
end
local mark = #message .. ':' .. digest_of(string.sub(message, 1, MAX_END) .. string.sub(message, -MAX_END))
local stays = seen[3] == mark and count >= tonumber(seen[4])
local since = stays and tonumber(seen[5]) or now
if not stays or count ~= tonumber(seen[4]) then
  call('HSET', counters, 'next', mark, 'next_count', count, 'next_since', whole(since))
end
if call('TTL', counters) < COUNTERS_SECONDS / 2 then call('EXPIRE', counters, COUNTERS_SECONDS) end -- a look seldom writes
return {DONE, expired, buried, math.max(0, now - since)}
