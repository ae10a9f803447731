-- The part of most scripts that names the keys of a queue. broker/script.py says which other parts a script has.
-- Redis runs the whole text at each call, so a part that defines what a frequent command does not need comes after it.
--
-- KEYS: the list, the keys in SCRIPT_KEYS of broker/keys.py, which has the map of keys, and for some commands more: those
--       that its file names, or all of ANSWER_KEYS if the request has an Idempotency-Key.
-- ARGV: the command, the deliveries after which a message is buried, and the arguments of the command: ARGV[3...].
-- Output: {DONE, ...}   the answer of the command
--         {AGAIN}       more messages are due than one call returns; call again
--         {CONFLICT}    the Idempotency-Key was used with another request
--
-- Redis does not roll a script back when a command in it fails. So a script checks the types of all keys that it writes
-- before its first write, and stores a message in its new place before it removes it from the old one.

local MAX_ARGUMENTS = 1000 -- to unpack at once; Lua fails near 8,000
local MAX_MOVED_BYTES = 2 * 1024 * 1024 -- a batch of messages that only change their place ends once it reaches this

local paused, failure_reasons, dead_reasons, counters = unpack(KEYS, 10)
local rate, settings, extra, extra_2, extra_3 = unpack(KEYS, 14)

local function whole(number) return string.format('%.0f', number) end

-- Fail if a key has another type than a command expects: check_type('LLEN', list, dead).
local function check_type(length_command, ...)
  for _, key in ipairs({...}) do call(length_command, key) end
end

-- Call a command with a key and any number of arguments: those of a list, from the first or a later one on. Return the
-- last reply; nil if there are no arguments.
local function call_many(name, key, arguments, first)
  local reply
  for i = first or 1, #arguments, MAX_ARGUMENTS do
    reply = call(name, key, unpack(arguments, i, math.min(i + MAX_ARGUMENTS - 1, #arguments)))
  end
  return reply
end
