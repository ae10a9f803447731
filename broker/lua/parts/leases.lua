-- The end of leases and delays: messages that are due return to the list or become dead letters.

local MAX_MOVED_BYTES = 2 * 1024 * 1024 -- a batch of messages that only change their place ends once it reaches this
local MAX_STALE_REASONS = 1000 -- reasons of dead letters that other clients removed
local COUNTERS_SECONDS = 24 * 3600 -- how long the totals for /metrics outlive the messages of a queue

local function deliveries_of(id) return tonumber(string.match(id, '^[^-]*-[^-]*-[^-]*-(%d+)') or 0) end

-- A failure is '<when>:<reason>', with '!' in front if the message is to be buried. Without one the lease has expired.
-- UNSTARTED in its place: the message was returned before any work on it, so this delivery does not count.
local UNSTARTED = '~'
local function new_failure(reason, bury) return (bury and '!' or '') .. whole(now) .. ':' .. reason end

-- The setting of a queue replaces MAX_DELIVERIES. Read it before messages return.
local function read_max_deliveries()
  max_deliveries = tonumber(call('HGET', settings, 'max_deliveries')) or max_deliveries
end

local function is_last_delivery(id) return not is_delayed(id) and deliveries_of(id) >= max_deliveries end

-- Count events for /metrics. Only scripts see when a lease expires, and all processes together count it once.
local function increment(counter, number)
  if number == 0 then return end
  call('HINCRBY', counters, counter, number)
  call('EXPIRE', counters, COUNTERS_SECONDS)
end

-- Remove the reasons that other clients left behind, all at once when they are many.
local function trim_failure_reasons()
  local are_many = call('HLEN', dead_reasons) > 2 * call('LLEN', dead) + MAX_STALE_REASONS
  if are_many then redis.pcall('UNLINK', dead_reasons) end
end

-- Record why a message died, and all its deliveries, if it had died before and was moved back.
local function record_failure_reason(message, deliveries, failed, reason)
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
-- `failures` has those that are not recorded yet: id -> failure.
-- Return whether some are left because MAX_MOVES or MAX_MOVED_BYTES was reached.
local function return_messages(ids, failures)
  local moves, bytes, buried, expired = 0, 0, 0, 0
  local function failure_of(id) return failures[id] or call('HGET', bodies, failure_field(id)) end
  local function should_bury(id)
    local failure = failure_of(id)
    return failure ~= UNSTARTED and (is_last_delivery(id) or string.sub(failure or '', 1, 1) == '!')
  end
  local function move(id, push, key)
    local message, failure = call('HGET', bodies, body_field(id)), failure_of(id)
    if message then
      call(push, key, message)
      local when, reason = string.match(failure or '', '^!?(%d+):(.*)$')
      local failed, deliveries = tonumber(when or now), deliveries_of(id)
      if key == dead then
        if buried == 0 then trim_failure_reasons() end
        record_failure_reason(message, deliveries, failed, reason or 'lease expired')
        buried = buried + 1
      elseif failure == UNSTARTED then
        push_entry(message, deliveries - 1)
      elseif deliveries > 0 then
        push_entry(message, deliveries, failed, reason or 'lease expired')
      end
      if not failure and not is_delayed(id) then expired = expired + 1 end
      moves, bytes = moves + 1, bytes + #message
    end
    forget(id)
    return moves >= MAX_MOVES or bytes >= MAX_MOVED_BYTES
  end
  local function move_all()
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
  local are_left = move_all()
  increment('buried', buried)
  increment('expired', expired)
  return are_left
end

-- Return the messages that due_ids found. Return whether there are more.
local function return_due(due)
  if #due == 0 then return false end
  read_max_deliveries()
  check_types_to_return()
  return return_messages(due, {})
end
