-- The first part of most scripts: the keys of a queue. broker/script.py says which other parts a script has.
-- Redis runs the whole text at each call, so a part that defines what a frequent command does not need comes after it.
--
-- KEYS: the list, the keys in SCRIPT_KEYS of broker/keys.py, which has the map of keys, and for some commands one more,
--       or all of ANSWER_KEYS if the request has an Idempotency-Key.
-- ARGV: the command, the deliveries after which a message is buried, and the arguments of the command: ARGV[3...].
-- Output: {DONE, ...}   the answer of the command
--         {AGAIN}       more messages are due than one call returns; call again
--         {CONFLICT}    the Idempotency-Key was used with another request
--
-- Redis does not roll a script back when a command in it fails. So a script checks the types of all keys that it writes
-- before its first write, and stores a message in its new place before it removes it from the old one.

local DONE, AGAIN, CONFLICT = 0, 1, 2
local MAX_BATCH_BYTES = 16 * 1024 * 1024 -- a batch ends once it reaches this: a thousand messages can be a gigabyte
local MAX_MOVED_BYTES = 2 * 1024 * 1024 -- a batch of messages that only change their place ends once it reaches this
local MIN_CLOCK_STEP = 1000 -- milliseconds; smaller corrections of a clock are normal
local CLOCK_INTERVAL = 100 -- milliseconds between two writes of the clock

local list, reserved, delayed, bodies, redeliveries, dead, acked, waiters = unpack(KEYS)
local clock, paused, failure_reasons, dead_reasons, counters = unpack(KEYS, 9)
local rate, settings, extra, extra_2, extra_3 = unpack(KEYS, 14)
local command, max_deliveries = ARGV[1], tonumber(ARGV[2])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

local function whole(number) return string.format('%.0f', number) end

-- Fail if a key has another type than a command expects: check_type('LLEN', list, dead).
local function check_type(length_command, ...)
  for _, key in ipairs({...}) do call(length_command, key) end
end

-- From the clock, milliseconds: when a lease or delay last began, before when none ends, and when the last one ends.
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
