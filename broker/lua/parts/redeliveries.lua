-- The history of messages that came back.
--
-- The list holds nothing but messages, so the history of a message that came back is kept beside it. A message always
-- comes back to the front, so `redeliveries` is a stack that describes the front of the list; its top is the right end.
-- An entry is '<digest>:<deliveries>:<when>:<failed>:<reason>', without the last two if the message never failed.

local MAX_REDELIVERIES, REDELIVERY_SECONDS = 100000, 3600 -- entries, and how long one is kept
local MAX_ENTRIES_SEARCHED = 100 -- entries to search for that of a message

-- The entry of a message that is put to the front. Call trim_redeliveries after the last was pushed.
local now_text = whole(now)
local function new_entry(message, deliveries, failed, reason)
  local failure = failed and ':' .. failed .. ':' .. reason or ''
  return digest_of(message) .. ':' .. deliveries .. ':' .. now_text .. failure
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

-- Match `number` consecutive messages with their entries, by digest. The entry of the first is on top, except for entries
-- of messages that other clients removed. A message without an entry never came back, and neither did those behind it,
-- unless some of the messages may have left (`can_miss`).
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
