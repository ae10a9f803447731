-- Count the messages that can be read at once: from an offset on, as many as fit in a number of bytes. It reads one at
-- a time near the front, as the next may be large, and several at a time far from it, where each LRANGE is slow.
--
-- KEYS:   list
-- Input:  offset, number of messages, bytes
-- Output: the number of messages within these bytes

local STEP_DISTANCE = 4000 -- messages from the front for each message that is read at once

local offset, limit, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local step = 1 + math.floor(offset / STEP_DISTANCE)
local count, bytes = 0, 0
while count < limit do
  local stop = -offset - count - 1
  local messages = redis.call('LRANGE', KEYS[1], stop - step + 1, stop)
  for i = #messages, 1, -1 do
    bytes = bytes + #messages[i]
    if bytes > budget then return count end
    count = count + 1
  end
  if #messages < step then break end -- all the others fit
end
return limit
