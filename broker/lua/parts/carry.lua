-- Comes after shared.lua in scripts that move messages to another queue: what goes with them.
--
-- Extra keys: the list to move to, its failure reasons, and, if the move can be undone, a hash of what was moved:
-- digest of the whole message -> number. A digest has '!' in front if a failure reason went with its message. If the
-- position of the message was given, there are also `position` and `ahead`, the message ahead of it.

local to_reasons, moved = extra_2, extra_3
local UNDO_SECONDS = 3600 -- how long what was moved, removed or cleared can be restored
local MAX_UNDONE = 100000 -- messages of one move that can be moved back
local MAX_WITH_REASONS = 250 -- messages that move in one call together with their failure reasons

-- Check the types of the keys that `carry` writes; the name of `moved` is new.
local function check_types_to_carry()
  check_type('LLEN', extra)
  check_type('HLEN', failure_reasons, to_reasons)
end

-- Insert a value to the left of the one at an index. LINSERT takes no index, so a mark stands in for that value.
local function insert_behind(key, index, value, mark)
  local ahead = call('LINDEX', key, index)
  call('LSET', key, index, mark)
  call('LINSERT', key, 'BEFORE', mark, value)
  call('LSET', key, index < 0 and index or index + 1, ahead)
end

-- The digest of a whole message: its digest_of, if that is not of samples.
local function whole_digest(message, digest)
  if #message <= SAMPLES * SAMPLE_BYTES then return digest end
  return string.sub(redis.sha1hex(message), 1, DIGEST_LENGTH)
end

-- Let the failure reasons of messages that were moved go with them, and keep what was moved for an hour.
local function carry(messages)
  local has_reasons = has_failure_reasons()
  local can_undo = moved and call('HLEN', moved) < MAX_UNDONE
  if #messages == 0 or not (has_reasons or can_undo) then return end
  local fields, numbers = {}, {}
  for i, message in ipairs(messages) do
    local digest = digest_of(message)
    local reason = has_reasons and take_failure_reason(digest)
    if reason then add_failure_reason(to_reasons, digest, reason) end
    fields[i] = (reason and '!' or '') .. (can_undo and whole_digest(message, digest) or '')
    numbers[fields[i]] = (numbers[fields[i]] or 0) + 1
  end
  if has_reasons and string.sub(extra, -5) ~= ':dead' then call('EXPIRE', to_reasons, REASON_SECONDS) end
  if can_undo then
    local before, pairs_of = call('HMGET', moved, unpack(fields)), {}
    for i, field in ipairs(fields) do
      pairs_of[2 * i - 1], pairs_of[2 * i] = field, numbers[field] + (before[i] or 0)
    end
    call('HSET', moved, unpack(pairs_of))
    call('EXPIRE', moved, UNDO_SECONDS)
  end
end
