-- How many messages may be read at once. It looks at few at a time, at some more while they are small, so that it never
-- holds a thousand large ones.
--
-- KEYS: list. ARGV: an offset, a number of messages, bytes. Answer: how many of the messages from there have up to so many
-- bytes together.
local offset, limit, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count, bytes, size = 0, 0, 16
while count < limit do
  local step = math.min(size, limit - count)
  local stop = -offset - count - 1
  local found = redis.call('LRANGE', KEYS[1], stop - step + 1, stop)
  for i = #found, 1, -1 do
    bytes = bytes + #found[i]
    if bytes > budget then return count end
    count = count + 1
  end
  if #found < step then break end -- the rest is small
  size = bytes < 256 * count and 64 or 16
end
return limit
