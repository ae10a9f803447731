-- Reserve messages, if that is all there is to do: nothing is due, and the queue is not paused and has neither a history
-- nor settings. Most calls return here. take.lua describes the input and the output, and does the rest.

local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte

if command == 'reserve' then
  local paused, settings, deadline, random, by = KEYS[10], KEYS[15], now + ARGV[4], ARGV[5], ARGV[6]
  read_clock()
  if is_current(deadline) and call('EXISTS', paused, redeliveries, settings) == 0 then
    call('ZCARD', reserved) -- like check_type, but sooner
    call('HLEN', bodies)
    local answer, bytes = {DONE, -1, 0, deadline, max_deliveries}, 0
    for i = 1, tonumber(ARGV[3]) do
      local message, last = bytes < MAX_BATCH_BYTES and call('RPOP', list), #answer
      if not message then break end
      local id = micros .. (i == 1 and '-0001-' or string.format('-%04d-', i)) .. random .. '-1' -- most take one
      call('ZADD', reserved, deadline, id)
      if by then call('HSET', bodies, id, message, id .. ':by', by) else call('HSET', bodies, id, message) end
      answer[last + 1], answer[last + 2], answer[last + 3], bytes = id, 1, message, bytes + #message
    end
    if #answer > 5 then return answer end
  end
end
