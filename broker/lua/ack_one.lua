-- Ack one reservation, if that is all there is to do: it is held, no message has a failure reason, and the acked ids are
-- trimmed. Most acks end here; ack.lua does the others.

local ACKED_SECONDS = 3600 -- how long acked ids are remembered

if ARGV[1] == 'ack' and #ARGV == 3 then
  local reserved, bodies, acked, failure_reasons, id = KEYS[2], KEYS[4], KEYS[7], KEYS[11], ARGV[3]
  local due = call('ZSCORE', reserved, id)
  local is_held = due and tonumber(due) > now
  if is_held and call('PTTL', acked) >= ACKED_SECONDS * 1000 and call('EXISTS', failure_reasons) == 0 then
    call('HLEN', bodies) -- fails before the first write if it has another type, as does the first write for `acked`
    call('ZADD', acked, now, id)
    call('HDEL', bodies, id, id .. ':failure', id .. ':by')
    call('ZREM', reserved, id)
    return {DONE}
  end
end
