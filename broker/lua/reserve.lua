-- The first part of take.lua, with all that a reservation needs if nothing is due and the queue is not paused and has
-- neither a history nor settings. Most reservations end here.

-- Take messages by a command that takes one.
local function take(number, ...)
  local messages, bytes = {}, 0
  for i = 1, number do
    local message = bytes < MAX_BATCH_BYTES and call(...)
    if not message then break end
    messages[i], bytes = message, bytes + #message
  end
  return messages
end

-- Begin the reservations of messages that were taken, and return the answer. `deliveries` has the number of earlier
-- ones of each; none is 0. Call announce_due afterwards.
local function reserve(messages, deadline, deliveries)
  local moment, records = string.format('%016.0f', time[1] * 1000000 + time[2]), {}
  for i, message in ipairs(messages) do
    local delivery = (deliveries[i] or 0) + 1
    local id = string.format('%s-%04d-%s-%d', moment, i, ARGV[5], delivery)
    call('ZADD', reserved, deadline, id)
    call('HSET', bodies, id, message, unpack(ARGV[6] and {id .. ':by', ARGV[6]} or {}))
    records[i] = {id, delivery, message}
  end
  return {DONE, -1, records, deadline, 0, max_deliveries}
end

local number, deadline = tonumber(ARGV[3]), command == 'reserve' and now + ARGV[4]
if deadline then
  read_clock()
  call('ZCARD', reserved) -- like check_type, but sooner
  call('HLEN', bodies)
  if is_current(deadline) and call('EXISTS', paused, redeliveries, settings) == 0 then
    local messages = take(number, 'RPOP', list)
    if #messages > 0 then return reserve(messages, deadline, {}) end
  end
end
