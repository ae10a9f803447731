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

if command == 'ack_with' then
  local held, expired = divide(5, true)
  if #expired > 0 then return {DONE, expired} end
  ack(held)
  store_result(ARGV[3], ARGV[4])
  return {DONE, expired}
end

if command == 'extend' then
  sync_clock()
  if not is_held(ARGV[4]) then return {DONE, 0} end
  local deadline = now + ARGV[3]
  call('ZADD', schedule_of(ARGV[4]), deadline, ARGV[4])
  announce_due(deadline)
  return {DONE, deadline}
end

-- A reservation that is released with a delay gets another id. Releasing a delayed message records no failure.
if command == 'release' then
  if return_due(due_ids()) then return {AGAIN} end
  local held, expired = divide(6)
  if #expired > 0 then return {DONE, expired, 0, 0} end
  read_max_deliveries()
  check_types_to_return()
  local due, bury, reason = now + ARGV[3], ARGV[4] == '1', ARGV[5]
  local ending, buried = {}, 0
  for _, id in ipairs(held) do
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
  table.sort(ending)
  local are_left = return_messages(ending)
  if due > now or are_left then announce_due(due) end
  return {DONE, expired, buried, are_left and 1 or 0}
end

return redis.error_reply('ERR unknown command ' .. command)
