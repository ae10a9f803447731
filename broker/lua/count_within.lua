-- Count the messages that can be read at once: from an offset on, as many as fit in a number of bytes. It reads a few
-- at a time, more while they are small, so it never holds a thousand large ones.
--
-- KEYS:   list
-- Input:  offset, number of messages, bytes
-- Output: the number of messages within these bytes

local offset, limit, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count, bytes, size = 0, 0, 16
while count < limit do
  local step = math.min(size, limit - count)
  local stop = -offset - count - 1
  local messages = redis.call('LRANGE', KEYS[1], stop - step + 1, stop)
  for i = #messages, 1, -1 do
    bytes = bytes + #messages[i]
    if bytes > budget then return count end
    count = count + 1
  end
  if #messages < step then break end -- all the others fit
  size = bytes < 256 * count and 64 or 16
end
return limit
