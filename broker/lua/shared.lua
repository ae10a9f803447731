-- The first part of most scripts: a queue's keys, its clock, and the history of its messages.
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
local MAX_ARGUMENTS = 1000 -- to unpack at once; Lua fails near 8,000
local ANSWER_SECONDS = 24 * 3600 -- how long the answer to an Idempotency-Key is saved at least
local ANSWER_KEY_SECONDS = 6 * 3600 -- for which one of the keys takes the new answers
local MAX_REDELIVERIES, REDELIVERY_SECONDS = 100000, 3600 -- entries, and how long one is kept
local MAX_ENTRIES_SEARCHED = 100 -- entries to search for that of a message
local DIGEST_LENGTH = 20 -- hexadecimal digits
local ANSWER_KEYS = 7 -- of which five hold the last 24 hours
local MIN_CLOCK_STEP = 1000 -- milliseconds; smaller corrections of a clock are normal
local MAX_WALK_BYTES = 1024 * 1024 -- of messages that one call shows
local SAMPLES, SAMPLE_BYTES = 16, 4096 -- of a large message that its digest covers
local STEP_DISTANCE = 4000 -- messages from the front for each message that a walk reads at once

local list, reserved, delayed, bodies, redeliveries, dead, acked, waiters = unpack(KEYS)
local clock, paused, failure_reasons, dead_reasons, counters, extra, extra_2, extra_3 = unpack(KEYS, 9)
local command, max_deliveries = ARGV[1], tonumber(ARGV[2])
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds

local function whole(number) return string.format('%.0f', number) end

-- Fail if a key has another type than a command expects: check_type('LLEN', list, dead).
local function check_type(length_command, ...)
  for _, key in ipairs({...}) do call(length_command, key) end
end

-- Publish a notice to all processes. Nothing depends on it, and the Redis user may have no permission.
local function publish(kind, value)
  redis.pcall('PUBLISH', string.gsub(clock, 'clock$', 'notices'), kind .. ' ' .. value)
end

-- == The clock

local next_announced -- the soonest end of a lease or delay that the sweepers were notified of, milliseconds

-- Record that a lease or delay begins or changes, and notify the sweepers if it ends before everything they know of.
-- Call sync_clock first. The key lives as long as the longest lease or delay.
local function announce_due(due)
  if next_announced <= now or due < next_announced then
    publish('due', whole(math.max(0, due - now)))
    next_announced = due
  end
  local lifetime = math.max(due - now, call('PTTL', clock), 1000)
  call('SET', clock, whole(now) .. ':' .. whole(next_announced), 'PX', whole(lifetime))
end

-- If the clock of the server was set back, move all deadlines back with it, or leases would last longer by as much.
-- They still last longer this once, by the time since the last lease or delay began.
local function sync_clock()
  local last, announced = string.match(call('GET', clock) or '', '^(%d+):(%d+)$')
  local set_back = tonumber(last or 0) - now
  next_announced = tonumber(announced or 0)
  if set_back < MIN_CLOCK_STEP then return end
  check_type('ZCARD', reserved, delayed)
  local latest = now
  for _, schedule in ipairs({reserved, delayed}) do
    local ends = call('ZRANGE', schedule, 0, -1, 'WITHSCORES')
    for i = 1, #ends, 2 do
      local due = ends[i + 1] - set_back
      call('ZADD', schedule, due, ends[i])
      latest = math.max(latest, due)
    end
  end
  call('DEL', clock)
  next_announced = 0
  announce_due(latest)
end

-- == Redeliveries
--
-- The list holds nothing but messages, so the history of a message that came back is kept beside it. A message always
-- comes back to the front, so `redeliveries` is a stack that describes the front of the list; its top is the right end.
-- An entry is '<digest>:<deliveries>:<when>:<failed>:<reason>', without the last two if the message never failed.

-- A digest of a message; of a large one, of its size and of samples of it, as a digest of all takes milliseconds. So it
-- says nothing for sure: where a message is removed, the whole text is compared. `message_digest` in keys.py is the same.
local function digest_of(message)
  local text, size = message, #message
  if size > SAMPLES * SAMPLE_BYTES then
    text = size .. ':'
    for i = 0, SAMPLES - 1 do
      local first = math.floor(i * (size - SAMPLE_BYTES) / (SAMPLES - 1))
      text = text .. string.sub(message, first + 1, first + SAMPLE_BYTES)
    end
  end
  return string.sub(redis.sha1hex(text), 1, DIGEST_LENGTH)
end

local function new_entry(message, deliveries) return digest_of(message) .. ':' .. deliveries .. ':' .. whole(now) end

-- Push the entry of a message that was put to the front. Call trim_redeliveries after the last.
local function push_entry(message, deliveries, failed, reason)
  local failure = failed and ':' .. whole(failed) .. ':' .. reason or ''
  call('RPUSH', redeliveries, new_entry(message, deliveries) .. failure)
end

-- Remove some of the entries that are too old or too many.
local function trim_redeliveries()
  call('LTRIM', redeliveries, -MAX_REDELIVERIES, -1)
  call('PEXPIRE', redeliveries, REDELIVERY_SECONDS * 1000)
  for _ = 1, MAX_ENTRIES_SEARCHED do
    local oldest = call('LINDEX', redeliveries, 0)
    local is_old = oldest and tonumber(string.match(oldest, '^%x*:%d+:(%d+)')) <= now - REDELIVERY_SECONDS * 1000
    if not is_old then return end
    call('LPOP', redeliveries)
  end
end

-- The position in `entries` of the n-th entry with a digest, from `top` down; nil if there is none near the top.
local function find_entry(entries, top, digest, n)
  for at = top, math.max(1, top - MAX_ENTRIES_SEARCHED + 1), -1 do
    if string.sub(entries[at], 1, DIGEST_LENGTH) == digest then
      n = n - 1
      if n == 0 then return at end
    end
  end
end

-- Match a number of consecutive messages, each by its digest, with their entries; that of the first is at the top of
-- `entries`, or below entries of messages that other clients removed. A message without an entry has never come back, so
-- neither have those behind it, unless some of the messages can have left (`can_miss`).
-- Return the positions of the entries, the last of them, and whether some message has none.
local function match_entries(entries, number, digest_at, can_miss)
  local found, top = {}, #entries
  for i = 1, number do
    if top == 0 then break end
    found[i] = find_entry(entries, top, digest_at(i), 1)
    if not (found[i] or can_miss) then return found, 0, true end
    top = found[i] and found[i] - 1 or top
  end
  return found, top, false
end

-- The entries that can belong to the first `number` messages. Read them before these messages are taken.
local function front_entries(number) return call('LRANGE', redeliveries, -number - MAX_ENTRIES_SEARCHED, -1) end

-- Remove the entries of messages that were taken from the front. Return the number of earlier deliveries of each.
local function remove_entries(entries, messages)
  local deliveries = {}
  local found, top, is_new = match_entries(entries, #messages, function(i) return digest_of(messages[i]) end)
  for i = 1, #messages do deliveries[i] = found[i] and tonumber(string.match(entries[found[i]], ':(%d+)')) or 0 end
  if is_new or (#entries > 0 and call('EXISTS', list) == 0) then
    call('DEL', redeliveries)
  elseif top < #entries then
    call('LTRIM', redeliveries, 0, top - #entries - 1)
  end
  return deliveries
end

-- The entry of the message at a position and its index in `redeliveries`; nil if there is none. The n-th of equal
-- messages has the n-th entry.
local function entry_at(position, message)
  if position >= MAX_ENTRIES_SEARCHED then return nil end
  local n = #call('LPOS', list, message, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position + 1)
  local entries = front_entries(0)
  local at = find_entry(entries, #entries, digest_of(message), n)
  if at then return entries[at], at - #entries - 1 end
end

-- Remove the entry at an index, counted from the right (negative).
local function remove_entry(index)
  call('LSET', redeliveries, index, '')
  call('LREM', redeliveries, -1, '')
end

-- == Failure reasons
--
-- Why dead letters died is a hash beside their list: digest -> '<number>:<deliveries>:<when>:<reason>'. Equal dead
-- letters share the latest reason; it is removed with the last of them. If they are moved, it goes with them.

local function has_failure_reasons() return call('HLEN', failure_reasons) > 0 end

-- Remove the reason of one dead letter that has left this queue. Return '<deliveries>:<when>:<reason>', nil if there is
-- none, or the key has another type.
local function take_failure_reason(digest)
  local record = redis.pcall('HGET', failure_reasons, digest)
  local number, reason = string.match(type(record) == 'string' and record or '', '^(%d+):(.*)$')
  if number == '1' then
    call('HDEL', failure_reasons, digest)
  elseif number then
    call('HSET', failure_reasons, digest, (number - 1) .. ':' .. reason)
  end
  return reason
end

local function add_failure_reason(reasons, digest, reason)
  local number = tonumber(string.match(call('HGET', reasons, digest) or '0', '^%d+')) + 1
  call('HSET', reasons, digest, number .. ':' .. reason)
end

-- Remove the reasons of dead letters that have left this queue for good.
local function remove_failure_reasons(messages)
  for _, message in ipairs(messages) do take_failure_reason(digest_of(message)) end
end

-- The history of a message: {deliveries, when it failed last, the reason, when it died}; times are milliseconds, 0 for
-- never. The arguments are its digest, and its deliveries and last failure since it joined this queue. A failure without
-- a reason does not hide the one for which the message died.
local function history_of(digest, deliveries, failed, reason)
  local record = call('HGET', failure_reasons, digest) or ''
  local before, died, why = string.match(record, '^%d+:(%d+):(%d+):(.*)$')
  if not before then return {deliveries, failed, reason, 0} end
  if reason == '' then failed, reason = 0, why end
  return {deliveries + before, failed, reason, tonumber(died)}
end

-- == Answers and results

-- Answers are saved in a ring of hashes, one for each six hours: a key for each answer would hide the queues in a scan.
-- The key of the hash for the answers of now, or of some turns ago.
local function answer_key(turns_ago)
  local turn = math.floor(now / 1000 / ANSWER_KEY_SECONDS) - turns_ago
  return KEYS[#KEYS - turn % ANSWER_KEYS]
end

-- The answer saved for the Idempotency-Key of a request with this fingerprint, or {CONFLICT}; nil if there is none. The
-- next turn is searched too, in case the clock was set back.
local function saved_answer(idempotency_key, fingerprint)
  if not extra then return nil end
  for turns_ago = -1, ANSWER_KEYS - 3 do
    local saved = call('HGET', answer_key(turns_ago), idempotency_key)
    if saved then
      local answer = cmsgpack.unpack(saved)
      return table.remove(answer, 1) == fingerprint and {DONE, answer} or {CONFLICT}
    end
  end
end

local function save_answer(idempotency_key, fingerprint, ...)
  call('HSET', answer_key(0), idempotency_key, cmsgpack.pack({fingerprint, ...}))
  call('EXPIRE', answer_key(0), ANSWER_SECONDS + ANSWER_KEY_SECONDS)
  redis.pcall('UNLINK', answer_key(-2)) -- the oldest: if it expired, Redis would free it all at once
end

-- Store the result of a job in the extra key, and notify the clients that wait for it.
local function store_result(seconds, result)
  call('DEL', extra)
  call('RPUSH', extra, whole(now), result)
  call('EXPIRE', extra, seconds)
  publish('result', extra)
end

-- == Walks

-- Call visit(message) for the waiting messages from a position on, in pop order, until `limit` messages or MAX_WALK_BYTES
-- were read. It reads one at a time, as the next one may be large, and some at once far from the front, where it takes
-- long to get there.
local function walk(position, limit, visit)
  local bytes, visited = 0, 0
  while visited < limit and bytes < MAX_WALK_BYTES do
    local step = math.min(1 + math.floor(position / STEP_DISTANCE), limit - visited)
    local messages = call('LRANGE', list, -position - step, -position - 1)
    for i = #messages, 1, -1 do
      visit(messages[i])
      visited, bytes = visited + 1, bytes + #messages[i]
    end
    if #messages < step then break end
    position = position + step
  end
end

-- The history of consecutive messages from an offset on, by their digests, each as in history_of.
local function details_of(digests, offset, can_miss)
  local has_reasons = has_failure_reasons()
  local entries = call('LRANGE', redeliveries, -offset - #digests - MAX_ENTRIES_SEARCHED, -offset - 1)
  local details, found = {}, match_entries(entries, #digests, function(i) return digests[i] end, can_miss)
  for i, digest in ipairs(digests) do
    local deliveries, rest = string.match(found[i] and entries[found[i]] or '', '^%x*:(%d+):%d+(.*)$')
    local failed, reason = string.match(rest or '', '^:(%d+):(.*)$')
    local known = {tonumber(deliveries or 0), tonumber(failed or 0), reason or '', 0}
    details[i] = has_reasons and history_of(digest, unpack(known)) or known
  end
  return details
end
