-- Reserve one message, if that is all there is to do: nothing is due, and the queue is not paused and has neither a
-- history nor settings. Most reservations end here; take.lua, which has the input and the output, makes the others.

if ARGV[1] == 'reserve' and ARGV[3] == '1' then
  local reserved, bodies, redeliveries, paused, settings = KEYS[2], KEYS[4], KEYS[5], KEYS[10], KEYS[15]
  local deadline, by = now + ARGV[4], ARGV[6]
  read_clock()
  if is_current(deadline) and call('EXISTS', paused, redeliveries, settings) == 0 then
    call('ZCARD', reserved) -- fails before the first write if a key has another type
    call('HLEN', bodies)
    local message = call('RPOP', KEYS[1])
    if message then
      local id = micros .. '-0001-' .. ARGV[5] .. '-1'
      call('ZADD', reserved, deadline, id)
      if by then call('HSET', bodies, id, message, id .. ':by', by) else call('HSET', bodies, id, message) end
      return {DONE, -1, 0, deadline, tonumber(ARGV[2]), id, 1, message}
    end
  end
end
