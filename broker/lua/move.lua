-- Move the oldest messages to another queue, or moved ones back. Due messages return first.
--
-- move       Input:  number
--            Output: the number of messages moved
-- move_back  Input:  number of messages at the back to skip, a random text to mark places; one more extra key behind
--                    the others: the redeliveries of the queue that they came from
--            Output: the number of messages moved, the number to skip next, 1 at the end, 1 if the move is known
--
-- `move_back` looks for messages that equal those that were moved and wait here, from the back to the front, and puts
-- them to the front of where they came from, so that they are in their order again. One that was moved from a position
-- goes back behind the message that was ahead of it, unless that has left or has been redelivered.

local MAX_MOVED, MAX_CARRIED_BYTES = 500, 1024 * 1024 -- in one call, which takes some milliseconds
local MAX_COMPARED = 250 -- messages that one call compares with those that were moved

if return_due(due_ids()) then return {AGAIN} end

if command == 'move' then
  local number = math.min(ARGV[3], has_failure_reasons() and MAX_WITH_REASONS or MAX_MOVED)
  check_types_to_carry()
  local entries = front_entries(number) -- read first what changes with the messages
  local messages, bytes = {}, 0
  while #messages < number and bytes < MAX_CARRIED_BYTES do
    local message = call('LMOVE', list, extra, 'RIGHT', 'LEFT')
    if not message then break end
    messages[#messages + 1], bytes = message, bytes + #message
  end
  remove_entries(entries, messages)
  carry(messages)
  return {DONE, #messages}
end

if command == 'move_back' then
  local skipped, mark, to_redeliveries = tonumber(ARGV[3]), ARGV[4], KEYS[#KEYS]
  if call('EXISTS', moved) == 0 then return {DONE, 0, 0, 1, 0} end
  check_types_to_carry()
  check_type('LLEN', redeliveries, to_redeliveries)
  local length, has_reasons = call('LLEN', list), has_failure_reasons()
  local has_entries = call('EXISTS', to_redeliveries) == 1
  local counts, found, index, bytes = {[moved] = {}, [failure_reasons] = {}}, {}, skipped, 0
  -- The number at the start of a hash field, less the messages already found.
  local function left(key, field)
    local known = counts[key][field] or tonumber(string.match(call('HGET', key, field) or '0', '^%d+'))
    counts[key][field] = known
    return known
  end
  local last = math.min(length, skipped + MAX_COMPARED)
  while index < last and bytes < MAX_CARRIED_BYTES do
    local message = call('LINDEX', list, index)
    local digest = digest_of(message)
    local full_digest = whole_digest(message, digest)
    local with_reason = has_reasons and left(moved, full_digest) == 0 and left(failure_reasons, digest) > 0
    local field = with_reason and '!' .. full_digest or full_digest
    if left(moved, field) > 0 then
      counts[moved][field] = counts[moved][field] - 1
      if with_reason then counts[failure_reasons][digest] = counts[failure_reasons][digest] - 1 end
      found[#found + 1] = {index, message, field, with_reason and digest}
    end
    index, bytes = index + 1, bytes + #message
  end
  local ahead, position = unpack(call('HMGET', moved, 'ahead', 'position'))
  local places = ahead and #found > 0 and call('LPOS', extra, ahead, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position) or {}
  local place = places[#places]
  if place and call('LLEN', extra) - place >= call('LLEN', to_redeliveries) then
    insert_behind(extra, place, found[1][2], mark)
    has_entries = false
  else
    for _, one in ipairs(found) do call('RPUSH', extra, one[2]) end
  end
  for _, one in ipairs(found) do
    local at, message, field, digest = unpack(one)
    local _, entry_index = entry_at(length - 1 - at, message)
    if entry_index then remove_entry(entry_index) end
    if has_entries then call('RPUSH', to_redeliveries, new_entry(message, 0)) end
    local reason = digest and take_failure_reason(digest)
    if reason then add_failure_reason(to_reasons, digest, reason) end
    if call('HINCRBY', moved, field, -1) == 0 then call('HDEL', moved, field) end
  end
  for _, one in ipairs(found) do call('LSET', list, one[1], mark) end
  if #found > 0 then call('LREM', list, #found, mark) end
  local is_over = index >= length or call('EXISTS', moved) == 0 or (ahead and #found > 0)
  if is_over then call('UNLINK', moved) end
  return {DONE, #found, index - #found, is_over and 1 or 0, 1}
end
