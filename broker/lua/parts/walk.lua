-- Reading the waiting messages, and what is known of them.

local MAX_WALK_BYTES = 1024 * 1024 -- of messages that one call shows
local STEP_DISTANCE = 4000 -- messages from the front for each message that a walk reads at once

-- Call visit(message) for the waiting messages from a position on, in pop order, until `limit` messages or MAX_WALK_BYTES
-- were read. It reads one at a time near the front, as the next may be large, and several at a time far from it, where
-- each LRANGE is slow.
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
