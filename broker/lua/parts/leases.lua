-- Reservations and delays: their ids, what is kept of them, and their end: messages that are due return to the list or
-- become dead letters.
--
-- An id is '<microseconds>-<number>-<random>-<deliveries>', so ids sort by age. `deliveries` includes this one; it is 0
-- for a message that was pushed with a delay. The deadline of a reservation is in `reserved`. The id of a delayed
-- message ends in '-d', and its deadline is in `delayed`. The message is in `bodies`, under the id without '-d'.

local MAX_STALE_REASONS = 1000 -- reasons of dead letters that other clients removed
local COUNTERS_SECONDS = 24 * 3600 -- how long the totals for /metrics outlive the messages of a queue

local function is_delayed(id) return string.sub(id, -2) == '-d' end
local function schedule_of(id) return is_delayed(id) and delayed or reserved end
local function body_field(id) return is_delayed(id) and string.sub(id, 1, -3) or id end
local function failure_field(id) return body_field(id) .. ':failure' end
local function by_field(id) return body_field(id) .. ':by' end

-- Remove everything that is kept of reservations and delays.
local function forget(ids)
  local fields, held = {}, {[reserved] = {}, [delayed] = {}}
  for _, id in ipairs(ids) do
    local field, same = body_field(id), held[schedule_of(id)]
    fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = field, field .. ':failure', field .. ':by'
    same[#same + 1] = id
  end
  call_many('HDEL', bodies, fields)
  for _, schedule in ipairs({reserved, delayed}) do call_many('ZREM', schedule, held[schedule]) end
end

local known_deliveries = {} -- as many calls ask for those of the same ids
local function deliveries_of(id)
  local known = known_deliveries[id] or tonumber(string.match(id, '^[^-]*-[^-]*-[^-]*-(%d+)') or 0)
  known_deliveries[id] = known
  return known
end

-- A failure is '<when>:<reason>', with '!' in front if the message is to be buried. Without one the lease has expired.
-- UNSTARTED in its place: the message was returned before any work on it, so this delivery does not count.
local UNSTARTED = '~'
local function new_failure(reason, bury) return (bury and '!' or '') .. now_text .. ':' .. reason end

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

-- Record why messages died, and all their deliveries, if they had died before and were moved back. Each letter is
-- {message, deliveries, when it failed, reason}.
local function record_failure_reasons(letters)
  if #letters == 0 then return end
  local has_reasons, digests, numbers, records = call('EXISTS', failure_reasons) == 1, {}, {}, {}
  for i, letter in ipairs(letters) do digests[i] = digest_of(letter[1]) end
  for i, record in ipairs(call('HMGET', dead_reasons, unpack(digests))) do
    local digest, _, deliveries, failed, reason = digests[i], unpack(letters[i])
    local before = string.match(has_reasons and take_failure_reason(digest) or '0', '^%d+')
    numbers[digest] = (numbers[digest] or tonumber(string.match(record or '0', '^%d+'))) + 1
    records[2 * i - 1] = digest
    records[2 * i] = numbers[digest] .. ':' .. deliveries + before .. ':' .. failed .. ':' .. reason
  end
  call_many('HSET', dead_reasons, records)
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
  local moved, bytes, expired = {}, 0, 0
  local back, buried, front, letters, entries = {}, {}, {}, {}, {}
  local function failure_of(id) return failures[id] or call('HGET', bodies, failure_field(id)) end
  local function should_bury(id)
    local failure = failure_of(id)
    return failure ~= UNSTARTED and (is_last_delivery(id) or string.sub(failure or '', 1, 1) == '!')
  end
  -- Add a message to those that move to a place, unless this call moves enough; return whether it does.
  local function move(id, messages)
    if #moved >= MAX_MOVES or bytes >= MAX_MOVED_BYTES then return true end
    local message, failure = call('HGET', bodies, body_field(id)), failure_of(id)
    moved[#moved + 1] = id
    if not message then return false end
    messages[#messages + 1], bytes = message, bytes + #message
    local when, reason = string.match(failure or '', '^!?(%d+):(.*)$')
    local failed, deliveries = when or now_text, deliveries_of(id)
    if messages == buried then
      letters[#letters + 1] = {message, deliveries, failed, reason or 'lease expired'}
    elseif failure == UNSTARTED then
      entries[#entries + 1] = new_entry(message, deliveries - 1)
    elseif deliveries > 0 then
      entries[#entries + 1] = new_entry(message, deliveries, failed, reason or 'lease expired')
    end
    if not failure and not is_delayed(id) then expired = expired + 1 end
    return false
  end
  local function move_all()
    local delivered, returning = {}, {}
    for _, id in ipairs(ids) do
      if deliveries_of(id) > 0 or should_bury(id) then
        delivered[#delivered + 1] = id
      elseif move(id, back) then
        return true
      end
    end
    table.sort(delivered)
    for _, id in ipairs(delivered) do
      if not should_bury(id) then
        returning[#returning + 1] = id
      elseif move(id, buried) then
        return true
      end
    end
    while #returning > 0 and not move(returning[#returning], front) do table.remove(returning) end
    return #returning > 0
  end
  local are_left = move_all()
  call_many('LPUSH', list, back)
  if #buried > 0 then trim_failure_reasons() end
  call_many('LPUSH', dead, buried)
  call_many('RPUSH', list, front)
  record_failure_reasons(letters)
  if call_many('RPUSH', redeliveries, entries) then trim_redeliveries() end
  forget(moved)
  increment('buried', #buried)
  increment('expired', expired)
  return are_left
end

-- Put back the messages that due_ids found. The result says whether there may be more.
local function return_due(due)
  if #due == 0 then return false end
  read_max_deliveries()
  check_types_to_return()
  return return_messages(due, {}) or #due >= MAX_MOVES
end
