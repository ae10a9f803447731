-- Settle reservations and delayed messages. If the lease or delay of any id has ended, nothing is changed.
--
-- ack       Input:  ids; those acked within the last hour succeed too
--           Output: the ids whose lease has ended
-- ack_with  Input:  seconds to keep the result, the result, an id; extra key: where the result is stored
--           Output: the ids whose lease has ended
-- release   Input:  delay in milliseconds, 1 to bury, the reason of the failure, ids without duplicates
--           Output: the ids whose lease has ended, the number of messages buried, 1 if some are left for `sweep`
-- extend    Input:  milliseconds from now, an id
--           Output: the new deadline in milliseconds; 0 if the lease has ended

local MAX_ACKED, ACKED_SECONDS = 10000, 3600 -- acked ids that are remembered, and how long

-- The ids from ARGV[first] on whose lease or delay has ended, though they may not have been returned yet.
local function expired_ids(first, or_acked)
  local expired = {}
  for i = first, #ARGV do
    local due = call('ZSCORE', schedule_of(ARGV[i]), ARGV[i])
    local is_alive = due and tonumber(due) > now
    if not is_alive and not (or_acked and call('ZSCORE', acked, ARGV[i])) then expired[#expired + 1] = ARGV[i] end
  end
  return expired
end

if command == 'ack' or command == 'ack_with' then
  local first = command == 'ack' and 3 or 5
  local expired = expired_ids(first, true)
  if #expired > 0 then return {DONE, expired} end
  check_type('HLEN', bodies)
  local last = tonumber(call('ZREVRANGE', acked, 0, 0, 'WITHSCORES')[2] or 0)
  local has_reasons = has_failure_reasons()
  local acked_at = last > now and last + 1 or now -- the last ones stay last if the clock was set back
  for i = first, #ARGV do
    local id = ARGV[i]
    if call('ZREM', schedule_of(id), id) == 1 then
      if has_reasons then remove_failure_reasons({call('HGET', bodies, body_field(id)) or nil}) end
      call('HDEL', bodies, body_field(id), failure_field(id))
      call('ZADD', acked, acked_at, id)
    end
  end
  call('ZREMRANGEBYRANK', acked, 0, -1 - MAX_ACKED)
  call('EXPIRE', acked, ACKED_SECONDS)
  if command == 'ack_with' then store_result(ARGV[3], ARGV[4]) end
  return {DONE, expired}
end

if command == 'extend' then
  sync_clock()
  if #expired_ids(4) > 0 then return {DONE, 0} end
  local deadline = now + ARGV[3]
  call('ZADD', schedule_of(ARGV[4]), deadline, ARGV[4])
  announce_due(deadline)
  return {DONE, deadline}
end

-- A reservation that is released with a delay gets another id. Releasing a delayed message records no failure.
if command == 'release' then
  if return_due() then return {AGAIN} end
  local expired = expired_ids(6)
  if #expired > 0 then return {DONE, expired, 0, 0} end
  read_max_deliveries()
  check_types_to_return()
  local due, bury, reason = now + ARGV[3], ARGV[4] == '1', ARGV[5]
  local ending, buried = {}, 0
  for i = 6, #ARGV do
    local id = ARGV[i]
    local is_buried = bury or is_last_delivery(id)
    if bury or not is_delayed(id) then record_failure(id, reason, bury) end
    if is_buried then buried = buried + 1 end
    if is_buried or due == now then
      call('ZADD', schedule_of(id), now, id) -- a sweep returns those that are left
      ending[#ending + 1] = id
    elseif is_delayed(id) then
      call('ZADD', delayed, due, id)
    else
      call('ZADD', delayed, due, id .. '-d')
      call('ZREM', reserved, id)
    end
  end
  if due > now then announce_due(due) end
  table.sort(ending)
  return {DONE, expired, buried, return_messages(ending) and 1 or 0}
end

return redis.error_reply('ERR unknown command ' .. command)
