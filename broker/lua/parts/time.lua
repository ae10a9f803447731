-- The first part of most scripts: what even the shortest of their commands need. The others go on with shared.lua.

local DONE, AGAIN, CONFLICT = 0, 1, 2 -- shared.lua says what they mean
local MIN_CLOCK_STEP = 1000 -- milliseconds; smaller corrections of a clock are normal
local CLOCK_INTERVAL = 100 -- milliseconds between two writes of the clock

local list, reserved, delayed, bodies, redeliveries, dead, acked, waiters = unpack(KEYS)
local clock, command, max_deliveries = KEYS[9], ARGV[1], tonumber(ARGV[2])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds
local micros = time[1] .. string.rep('0', 6 - #time[2]) .. time[2] -- the same in microseconds, as text

-- From the clock, milliseconds: when a lease or delay last began, a time before which none ends, and the end of the last.
local last_begun, next_due, last_due

local function read_clock()
  local begun, soonest, last = string.match(call('GET', clock) or '', '^(%d+):(%d+):(%d+)$')
  last_begun, next_due, last_due = tonumber(begun or 0), tonumber(soonest or 0), tonumber(last or 0)
end

-- Whether the clock says that nothing is due, and need not be written if a lease or delay begins that ends at `due`.
-- Call read_clock first.
local function is_current(due)
  local age = now - last_begun
  return now < next_due and next_due <= due and due <= last_due and age < CLOCK_INTERVAL and age > -MIN_CLOCK_STEP
end
