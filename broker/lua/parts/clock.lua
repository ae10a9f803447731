-- The clock of a queue, and what is due by it.

local MAX_DUE = 10000 -- due messages that one call looks at; if there are more, dead letters may change their order
local MAX_MOVES = 1000 -- due messages that one call moves

-- Publish a notice to all processes. Nothing depends on it, and the Redis user may have no permission.
local function publish(kind, value)
  redis.pcall('PUBLISH', string.sub(clock, 1, -#'clock' - 1) .. 'notices', kind .. ' ' .. value)
end

-- When the next lease or delay ends; math.huge if there is none.
local function find_next_due()
  local found = math.huge
  for _, schedule in ipairs({reserved, delayed}) do
    local first = call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
    if #first > 0 then found = math.min(found, tonumber(first[2])) end
  end
  return found
end

-- Milliseconds until the next lease or delay ends; -1 if there is none.
local function until_next_due()
  local found = find_next_due()
  return found == math.huge and -1 or math.max(1, found - now)
end

-- Record that a lease or delay began or changed, and notify the sweepers if it ends before everything they know of.
-- Call sync_clock before. The key lives as long as the longest lease or delay, and is seldom written more than ten times
-- a second.
local function announce_due(due)
  if is_current(due) then return end
  if next_due <= now or due < next_due then
    next_due = math.min(due, next_due <= now and find_next_due() or due)
    publish('due', whole(math.max(0, next_due - now)))
  end
  last_due = math.max(due + CLOCK_INTERVAL, last_due)
  local value = whole(now) .. ':' .. whole(next_due) .. ':' .. whole(last_due)
  call('SET', clock, value, 'PX', whole(math.max(last_due - now, 1000)))
  last_begun = now
end

-- If the clock of the server was set back, move all deadlines back with it, or leases would last longer by as much.
-- They still last longer this once, by the time since the last lease or delay began.
local function sync_clock()
  read_clock()
  local set_back = last_begun - now
  if set_back < MIN_CLOCK_STEP then return end
  check_type('ZCARD', reserved, delayed)
  for _, schedule in ipairs({reserved, delayed}) do
    local ends = call('ZRANGE', schedule, 0, -1, 'WITHSCORES')
    for i = 1, #ends, 2 do call('ZADD', schedule, ends[i + 1] - set_back, ends[i]) end
  end
  next_due, last_due = 0, math.max(last_due - set_back, now)
  announce_due(last_due)
end

-- The ids whose lease or delay has ended.
local function due_ids()
  sync_clock()
  local due = call('ZREVRANGEBYSCORE', reserved, now, '-inf', 'LIMIT', 0, MAX_DUE)
  for _, id in ipairs(call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, MAX_MOVES)) do due[#due + 1] = id end
  return due
end
