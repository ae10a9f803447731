-- Ack one reservation, if that is all there is to do: it is held, no message has a failure reason, and the acked ids need
-- not be trimmed. Most acks end here; settle.lua, which has the input and the output, makes the others.

local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- acked ids that are remembered, and how long

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
