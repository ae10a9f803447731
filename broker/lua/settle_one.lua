-- Ack or extend one reservation, if that is all there is to do. Most calls return here. settle.lua describes the input
-- and the output, and does the rest.

local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- acked ids that are remembered, and how long

-- Ack: it is held, no message has a failure reason, and the acked ids need not be trimmed.
if command == 'ack' and #ARGV == 3 then
  local id, failure_reasons = ARGV[3], KEYS[11]
  local due = call('ZSCORE', reserved, id)
  local is_held = due and tonumber(due) > now
  if is_held and call('PTTL', acked) >= ACKED_SECONDS * 1000 and call('EXISTS', failure_reasons) == 0 then
    call('HLEN', bodies) -- like check_type, but sooner; the first write checks `acked`
    call('ZADD', acked, now, id)
    call('HDEL', bodies, id, id .. ':failure', id .. ':by')
    call('ZREM', reserved, id)
    return {DONE}
  end
end

-- Extend: nothing is due, so it is held if it is there.
if command == 'extend' and #ARGV == 4 then
  local id, deadline = ARGV[4], now + ARGV[3]
  read_clock()
  if is_current(deadline) and call('ZSCORE', reserved, id) then
    call('ZADD', reserved, deadline, id)
    return {DONE, deadline}
  end
end
