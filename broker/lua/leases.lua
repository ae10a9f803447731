-- Comes after shared.lua in most scripts: reservations and delays, and the return of messages that are due.
--
-- An id is '<microseconds>-<number>-<random>-<deliveries>', so ids sort by age. `deliveries` includes this one; it is 0
-- for a message that was pushed with a delay. The deadline of a reservation is in `reserved`. The id of a delayed
-- message ends in '-d', and its deadline is in `delayed`. The message is in `bodies`, under the id without '-d'.

local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte
local MAX_MOVED_BYTES = 2 * 1024 * 1024 -- a batch of messages that only change their place ends once it reaches this
local MAX_DUE = 10000 -- due messages that one call looks at; if there are more, dead letters may change their order
local MAX_MOVES = 1000 -- due messages that one call moves
local MAX_STALE_REASONS = 1000 -- reasons of dead letters that other clients removed
local COUNTERS_SECONDS = 24 * 3600 -- how long the totals for /metrics outlive the messages of a queue

local function is_delayed(id) return string.sub(id, -2) == '-d' end
local function schedule_of(id) return is_delayed(id) and delayed or reserved end
local function body_field(id) return is_delayed(id) and string.sub(id, 1, -3) or id end
local function failure_field(id) return body_field(id) .. ':failure' end
local function deliveries_of(id) return tonumber(string.match(body_field(id), '%d+$') or 0) end

-- A failure is '<when>:<reason>', with '!' in front if the message is to be buried. Without one the lease has expired.
local function record_failure(id, reason, bury)
  call('HSET', bodies, failure_field(id), (bury and '!' or '') .. whole(now) .. ':' .. reason)
end

local function is_paused() return call('EXISTS', paused) == 1 end

local function is_last_delivery(id) return not is_delayed(id) and deliveries_of(id) >= max_deliveries end

local function should_bury(id)
  return is_last_delivery(id) or string.sub(call('HGET', bodies, failure_field(id)) or '', 1, 1) == '!'
end

-- Count an event for /metrics. Only scripts see when a lease expires, and all processes together count it once.
local function increment(counter)
  call('HINCRBY', counters, counter, 1)
  call('EXPIRE', counters, COUNTERS_SECONDS)
end

-- Record why a message died, and all its deliveries, if it had died before and was moved back. Reasons that other
-- clients left behind are removed all at once when they are many.
local function record_failure_reason(message, deliveries, failed, reason)
  local are_many = call('HLEN', dead_reasons) > 2 * call('LLEN', dead) + MAX_STALE_REASONS
  if are_many then redis.pcall('UNLINK', dead_reasons) end
  local digest = digest_of(message)
  local before = string.match(take_failure_reason(digest) or '0', '^%d+')
  add_failure_reason(dead_reasons, digest, deliveries + before .. ':' .. whole(failed) .. ':' .. reason)
end

-- Check the types of the keys that return_messages writes; `reserved` and `delayed` have been read by then.
local function check_types_to_return()
  check_type('LLEN', list, dead, redeliveries)
  check_type('HLEN', bodies, dead_reasons, counters)
end

-- End reservations and delays. Messages that must be buried become dead letters, the oldest first. Those that were
-- never delivered go to the back of the list, in the order of `ids`; all others to the front, the oldest foremost.
-- Return whether some are left because MAX_MOVES or MAX_MOVED_BYTES was reached.
local function return_messages(ids)
  local moves, bytes = 0, 0
  local function move(id, push, key)
    local message, failure = unpack(call('HMGET', bodies, body_field(id), failure_field(id)))
    if message then
      call(push, key, message)
      local when, reason = string.match(failure or '', '^!?(%d+):(.*)$')
      local failed, deliveries = tonumber(when or now), deliveries_of(id)
      if key == dead then
        record_failure_reason(message, deliveries, failed, reason or 'lease expired')
        increment('buried')
      elseif deliveries > 0 then
        push_entry(message, deliveries, failed, reason or 'lease expired')
      end
      if not failure and not is_delayed(id) then increment('expired') end
      moves, bytes = moves + 1, bytes + #message
    end
    call('ZREM', schedule_of(id), id)
    call('HDEL', bodies, body_field(id), failure_field(id))
    return moves >= MAX_MOVES or bytes >= MAX_MOVED_BYTES
  end
  local delivered, returning = {}, {}
  for _, id in ipairs(ids) do
    if deliveries_of(id) > 0 or should_bury(id) then
      delivered[#delivered + 1] = id
    elseif move(id, 'LPUSH', list) then
      return true
    end
  end
  table.sort(delivered)
  for _, id in ipairs(delivered) do
    if not should_bury(id) then
      returning[#returning + 1] = id
    elseif move(id, 'LPUSH', dead) then
      return true
    end
  end
  if #returning == 0 then return false end
  local is_full = false
  while #returning > 0 and not is_full do is_full = move(table.remove(returning), 'RPUSH', list) end
  trim_redeliveries()
  return #returning > 0
end

-- Return the messages whose lease or delay has ended. Return whether there are more.
local function return_due()
  sync_clock()
  local due = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, MAX_DUE)
  local delays = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, MAX_MOVES)
  if #due + #delays == 0 then return false end
  for _, id in ipairs(delays) do due[#due + 1] = id end
  check_types_to_return()
  return return_messages(due)
end

-- Milliseconds until the next lease or delay ends; -1 if there is none.
local function until_next_due()
  local next_due = math.huge
  for _, schedule in ipairs({reserved, delayed}) do
    local first = call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
    if #first > 0 then next_due = math.min(next_due, tonumber(first[2])) end
  end
  return next_due == math.huge and -1 or math.max(1, next_due - now)
end
