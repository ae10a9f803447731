-- Settle reservations and delayed messages.
--
-- ack       Input:  ids; those acked within the last hour succeed too
--           Output: the ids whose lease has ended
-- ack_with  Input:  seconds to keep the result, the result, an id; extra key: where the result is stored
--           Output: the ids whose lease has ended
-- release   Input:  delay in milliseconds (-1: bury, -2: unstarted), the reason of the failure, seconds to keep it, ids;
--                   extra key, with one id: where the reason is stored if the message is buried
--           Output: the ids whose lease has ended, the number of messages buried, 1 if some are left for `sweep`
-- extend    Input:  milliseconds from now, ids
--           Output: the new deadline in milliseconds, the ids whose lease has ended
-- settle    Input:  seconds to keep results, then for each id: 'ack', 'release' or 'extend'; the id; the result, the
--                   reason or ''; the delay as above or the lease in milliseconds, 0 for an ack; and the index of the
--                   key where its result is stored, 0 for none. More keys: those
--           Output: the numbers of messages acked, released, buried and extended, the ids whose lease has ended, 1 if
--                   some are left for `sweep`
--
-- `settle` does what it can. Of the others, each changes nothing if the lease or delay of any id has ended.

local TRIM_INTERVAL = 1000 -- milliseconds between two looks at how many acked ids there are

-- Whether a reservation or delay has not ended. If it has, its message may not have been returned yet.
local function is_held(id)
  local due = call('ZSCORE', schedule_of(id), id)
  return due and tonumber(due) > now
end

-- Divide the ids from ARGV[first] on: those held, and those that are not. With `or_acked`, ids that were acked within
-- the last hour are in neither.
local function divide(first, or_acked)
  local held, expired = {}, {}
  for i = first, #ARGV do
    local id = ARGV[i]
    if is_held(id) then
      held[#held + 1] = id
    elseif not (or_acked and call('ZSCORE', acked, id)) then
      expired[#expired + 1] = id
    end
  end
  return held, expired
end

-- Ack ids that are held, and remember them.
local function ack(ids)
  if #ids == 0 then return end
  check_type('HLEN', bodies)
  local is_kept = call('PTTL', acked) >= ACKED_SECONDS * 1000
  local has_reasons, scores = has_failure_reasons(), {}
  for i, id in ipairs(ids) do scores[2 * i - 1], scores[2 * i] = now, id end
  call_many('ZADD', acked, scores)
  for _, id in ipairs(has_reasons and ids or {}) do
    remove_failure_reasons({call('HGET', bodies, body_field(id)) or nil})
  end
  forget(ids)
  if is_kept then return end
  local number, before = call('ZCARD', acked), call('ZCOUNT', acked, '-inf', now)
  local oldest = before < number and before or 0 -- a score after `now` is from before the clock was set back, and older
  if number > MAX_ACKED then call('ZREMRANGEBYRANK', acked, oldest, oldest + number - MAX_ACKED - 1) end
  call('PEXPIRE', acked, ACKED_SECONDS * 1000 + TRIM_INTERVAL)
end

if command == 'ack' then
  local held, expired = divide(3, true)
  if #expired == 0 then ack(held) end
  table.insert(expired, 1, DONE)
  return expired
end

if command == 'ack_with' then
  local held, expired = divide(5, true)
  if #expired == 0 then
    ack(held)
    store_results(ARGV[3], {{extra, ARGV[4]}})
  end
  table.insert(expired, 1, DONE)
  return expired
end

-- Extend the lease or delay of an id that is held, and return its deadline. Call sync_clock before.
local function extend(id, lease)
  local deadline = now + lease
  call('ZADD', schedule_of(id), deadline, id)
  announce_due(deadline)
  return deadline
end

if command == 'extend' then
  sync_clock()
  local held, expired = divide(4)
  for _, id in ipairs(#expired == 0 and held or {}) do extend(id, ARGV[3]) end
  table.insert(expired, 1, now + ARGV[3])
  table.insert(expired, 1, DONE)
  return expired
end

local ending, failures = {}, {} -- ids that are released now, and why

-- Release an id that is held, with a delay of -1 to bury it, or of -2 if its work was not started. Return whether it is
-- buried. Call end_released after the last. A reservation that is released with a delay gets another id. Releasing a
-- delayed message records no failure.
local function release(id, delay, reason)
  local bury = delay == -1
  local is_buried = bury or (delay ~= -2 and is_last_delivery(id))
  local failure = (bury or not is_delayed(id)) and (delay == -2 and UNSTARTED or new_failure(reason, bury))
  if is_buried or delay <= 0 then
    ending[#ending + 1], failures[id] = id, failure or nil
    return is_buried
  end
  if failure then call('HSET', bodies, failure_field(id), failure) end
  call('ZADD', delayed, now + delay, body_field(id) .. '-d')
  if not is_delayed(id) then call('ZREM', reserved, id) end
  announce_due(now + delay)
  return false
end

-- Put back the messages that were released without a delay. If they are too many for one call, the rest become due at
-- once, and the result is 1.
local function end_released()
  if not return_messages(ending, failures) then return 0 end
  for _, id in ipairs(ending) do
    if call('ZSCORE', schedule_of(id), id) then
      if failures[id] then call('HSET', bodies, failure_field(id), failures[id]) end
      call('ZADD', schedule_of(id), now, id)
    end
  end
  announce_due(now)
  return 1
end

if return_due(due_ids()) then return {AGAIN} end
read_max_deliveries()
check_types_to_return()

if command == 'release' then
  local held, expired = divide(6)
  local buried = 0
  if #expired > 0 then return {DONE, expired, 0, 0} end
  for _, id in ipairs(held) do
    if release(id, tonumber(ARGV[3]), ARGV[4]) then
      buried = buried + 1
      if extra then store_results(ARGV[5], {{extra, ARGV[4], 'failed'}}) end
    end
  end
  return {DONE, expired, buried, end_released()}
end

if command == 'settle' then
  local held, stale, is_seen, to_ack, buried, results = {ack = {}, release = {}, extend = {}}, {}, {}, {}, 0, {}
  for i = 4, #ARGV, 5 do
    local kind, id, text, time_left, key = unpack(ARGV, i, i + 4)
    local is_alive = not is_seen[id] and is_held(id)
    is_seen[id] = true
    if is_alive or (kind == 'ack' and call('ZSCORE', acked, id)) then
      table.insert(held[kind], {id = id, text = text, time_left = tonumber(time_left), key = KEYS[tonumber(key)]})
      if is_alive and kind == 'ack' then to_ack[#to_ack + 1] = id end
    else
      stale[#stale + 1] = id
    end
  end
  ack(to_ack)
  for _, one in ipairs(held.ack) do
    if one.key then results[#results + 1] = {one.key, one.text} end
  end
  for _, one in ipairs(held.extend) do extend(one.id, one.time_left) end
  for _, one in ipairs(held.release) do
    if release(one.id, one.time_left, one.text) then
      buried = buried + 1
      if one.key then results[#results + 1] = {one.key, one.text, 'failed'} end
    end
  end
  store_results(ARGV[3], results)
  return {DONE, #held.ack, #held.release, buried, #held.extend, stale, end_released()}
end
