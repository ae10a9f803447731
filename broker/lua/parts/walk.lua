-- Reading the waiting messages, and what is known of them.

local MAX_WALK_BYTES = 1024 * 1024 -- of messages that one call shows
local MAX_END = 4096 -- bytes at each end of a message that its summary covers

-- What stands for a message where a mistake does no harm: its size, and a digest of its ends, as it may be large.
local function summary_of(message)
  return #message .. ':' .. digest_of(string.sub(message, 1, MAX_END) .. string.sub(message, -MAX_END))
end

-- Call visit(message, position) for the waiting messages from a position on, in pop order, until it returns true, or
-- `limit` messages or `max_bytes` were read. It reads a few at once, more while they are small, so it never holds
-- many large ones. `first` is the first one, if it was read before. Return the position after the last one visited.
local function walk(position, limit, max_bytes, visit, first)
  local bytes, visited = 0, 0
  while visited < limit and bytes < max_bytes do
    local average = bytes / math.max(visited, 1)
    local size = visited == 0 and 1 or (average < 256 and 64) or (average < 16384 and 16) or 1
    local step = math.min(size, limit - visited)
    local messages = first and {first} or call('LRANGE', list, -position - step, -position - 1)
    first = nil
    for i = #messages, 1, -1 do
      visited, bytes = visited + 1, bytes + #messages[i]
      position = position + 1
      if visit(messages[i], position - 1) then return position end
    end
    if #messages < step then break end
  end
  return position
end

-- The history of consecutive messages from an offset on: a list of {deliveries, when it failed last
-- in milliseconds (0: never), the reason, 1 if it died}.
local function details_of(messages, offset)
  local has_reasons = has_failure_reasons()
  local entries = call('LRANGE', redeliveries, -offset - #messages - MAX_ENTRIES_SEARCHED, -offset - 1)
  local details, found = {}, match_entries(entries, messages)
  for i, message in ipairs(messages) do
    local died = has_reasons and call('HGET', failure_reasons, digest_of(message))
    local record = died or (found[i] and entries[found[i]]) or ''
    local deliveries, rest = string.match(record, '^%x*:(%d+):(.*)$')
    local failed, reason = string.match(rest or '', died and '^(%d+):(.*)$' or '^%d+:(%d+):(.*)$')
    details[i] = {tonumber(deliveries or 0), tonumber(failed or 0), reason or '', died and 1 or 0}
  end
  return details
end
