-- Tidy up a queue by hand. Due messages return first, so that they are tidied up too.
--
-- remove    Input:  position, message, a random text to mark the place; extra key, to allow undo: where it is kept
--           Output: the number of messages removed: 0 if another one is at the position
-- move_one  Input:  as of remove; extra keys: those of carry.lua
--           Output: the number of messages moved
-- move_many, remove_many
--           Input:  a random text to mark places, the number of messages by which each may have moved since it was read,
--                   {position, message}... in pop order; extra keys: those of carry.lua, or for remove_many where they
--                   are kept and where their history is kept
--           Output: the number of messages moved or removed
-- clear     Input:  none; extra key: where the list is kept
--           Output: the number of messages removed
-- restore   Input:  a random text to mark the place; extra keys: what `clear`, `remove` or `remove_many` kept, and the
--                   history that `remove_many` kept
--           Output: the number of messages restored (0: nothing was kept), 1 if some are left for another call
-- pause     Input:  none; extra key: a list on which clients block until the queue is resumed
-- resume    Input:  none; extra key: as of pause
-- set       Input:  the name and the value of each setting to change, '' to remove it
--           Output: at_once, per_second and max_deliveries as they are now; nil for none

local RESUMED_SECONDS = 60
local MAX_RESTORED = 1000 -- messages that one call restores, which takes some milliseconds

local history = extra_2 -- of messages that `remove_many` removed: digest -> entry, '<digest>:reason' -> failure reason

if command == 'pause' then
  call('DEL', extra)
  call('SET', paused, 1)
  return {DONE}
end
if command == 'resume' then
  if call('DEL', paused) == 1 then
    call('DEL', extra)
    call('RPUSH', extra, '1')
    call('EXPIRE', extra, RESUMED_SECONDS)
  end
  return {DONE}
end

if command == 'set' then
  for i = 3, #ARGV, 2 do
    if ARGV[i + 1] == '' then
      call('HDEL', settings, ARGV[i])
    else
      call('HSET', settings, ARGV[i], ARGV[i + 1])
    end
  end
  return {DONE, call('HMGET', settings, 'at_once', 'per_second', 'max_deliveries')}
end

-- Keep a message that is about to be removed, its history, and the message ahead of it.
local function keep_removed(position, message)
  call('HSET', extra, 'message', message, 'position', position)
  local known = {
    ahead = position > 0 and call('LINDEX', list, -position),
    entry = call('LLEN', redeliveries) > 0 and entry_at(position, message),
    failure_reason = has_failure_reasons() and call('HGET', failure_reasons, digest_of(message)),
  }
  for field, value in pairs(known) do
    if value then call('HSET', extra, field, value) end
  end
  call('EXPIRE', extra, UNDO_SECONDS)
end

-- Add a failure reason that was kept to those of the queue.
local function restore_reason(digest, reason)
  add_failure_reason(failure_reasons, digest, string.match(reason, '^%d+:(.*)$'))
end

-- Put a removed message back behind the one that was ahead of it. If that one has left, so have all those ahead of it,
-- and the message goes to the front.
local function restore_removed(mark)
  local fields = {'message', 'position', 'ahead', 'entry', 'failure_reason'}
  local message, position, ahead, entry, reason = unpack(call('HMGET', extra, unpack(fields)))
  check_type('LLEN', redeliveries)
  check_type('HLEN', failure_reasons)
  local found = ahead and call('LPOS', list, ahead, 'RANK', -1, 'COUNT', 0, 'MAXLEN', position) or {}
  if #found > 0 then
    local index = found[#found]
    local _, entry_index = entry_at(call('LLEN', list) - 1 - index, ahead)
    if entry_index then insert_behind(redeliveries, entry_index, entry or new_entry(message, 0), mark) end
    insert_behind(list, index, message, mark)
  else
    call('RPUSH', list, message)
    if entry then
      call('RPUSH', redeliveries, entry)
    elseif call('EXISTS', redeliveries) == 1 then
      call('RPUSH', redeliveries, new_entry(message, 0))
    end
    trim_redeliveries()
  end
  if reason then restore_reason(digest_of(message), reason) end
  call('DEL', extra)
end

-- Put the kept messages to the front, for they are older than those that wait now. If few wait, and none has a history,
-- the waiting ones are appended to the kept list, which then becomes the queue. Otherwise each call moves one batch of
-- kept messages, the newest first, so that all keep their order; the rest can be restored for another hour.
local function restore_many()
  local kept, waiting = call('LLEN', extra), call('LLEN', list)
  if kept == 0 then return 0, 0 end
  check_type('LLEN', redeliveries)
  check_type('HLEN', failure_reasons, history)
  local has_history = call('EXISTS', redeliveries, history) > 0
  local messages, bytes, moved = math.min(kept, MAX_RESTORED), 0, 0
  if waiting < messages and not has_history then
    while moved < waiting and bytes < MAX_MOVED_BYTES do
      bytes = bytes + #call('LINDEX', list, moved - waiting)
      moved = moved + 1
    end
    if bytes < MAX_MOVED_BYTES then
      for _ = 1, waiting do call('LMOVE', list, extra, 'RIGHT', 'LEFT') end
      call('RENAME', extra, list)
      call('PERSIST', list)
      return kept, 0
    end
    moved, bytes = 0, 0
  end
  while moved < messages and bytes < MAX_MOVED_BYTES do
    local message = call('LMOVE', extra, list, 'LEFT', 'RIGHT')
    moved, bytes = moved + 1, bytes + #message
    if has_history then
      local digest = digest_of(message)
      local entry, reason = unpack(call('HMGET', history, digest, digest .. ':reason'))
      if reason then restore_reason(digest, reason) end
      if entry or call('EXISTS', redeliveries) == 1 then
        call('RPUSH', redeliveries, entry or new_entry(message, 0))
      end
    end
  end
  if has_history then trim_redeliveries() end
  if moved == kept then
    call('UNLINK', history)
    return moved, 0
  end
  call('EXPIRE', extra, UNDO_SECONDS)
  call('EXPIRE', history, UNDO_SECONDS)
  return moved, 1
end

-- The messages near a position: message -> its positions.
local function read_near(position, distance)
  local at, found = math.max(0, position - distance), {}
  walk(at, 2 * distance, function(message)
    found[message] = found[message] or {}
    table.insert(found[message], at)
    at = at + 1
  end)
  return found
end

-- Find messages whose positions were read before: {position now, message}... in pop order. Since then, messages may have
-- left or been put in front, which moves all that are behind by the same number.
local function find_many(max_shift)
  local found, shift, last, near = {}, 0, -1, max_shift == 0 and {} or nil
  for i = 5, #ARGV, 2 do
    local position, message = tonumber(ARGV[i]), ARGV[i + 1]
    local at = position + shift
    if call('LINDEX', list, -1 - at) ~= message then
      near, at = near or read_near(position, max_shift), nil
      for _, other in ipairs(near[message] or {}) do
        if other > last then at = at or other end
      end
    end
    if at then
      found[#found + 1] = {at, message}
      shift, last = at - position, at
    end
  end
  return found
end

-- Remove messages that already have a copy elsewhere, and their history. `keep` is called with the digest of each, its
-- entry and its failure reason, if it has a history. Without `keep`, `carry` has already moved their failure reasons.
local function remove_found(found, mark, keep)
  local has_reasons, has_entries = keep and has_failure_reasons(), call('LLEN', redeliveries) > 0
  for i = #found, 1, -1 do -- from the back, so that the other positions stay right
    local position, message = unpack(found[i])
    local entry, index
    if has_entries then entry, index = entry_at(position, message) end
    if keep and (entry or has_reasons) then
      local digest = digest_of(message)
      keep(digest, entry, has_reasons and call('HGET', failure_reasons, digest))
    end
    if index then remove_entry(index) end
    if has_reasons then remove_failure_reasons({message}) end
    call('LSET', list, -1 - position, mark) -- a list has no removal by position
  end
  local is_near_front = 2 * found[#found][1] < call('LLEN', list)
  call('LREM', list, is_near_front and -#found or #found, mark) -- from the nearer end
end

if return_due(due_ids()) then return {AGAIN} end

if command == 'remove' or command == 'move_one' then
  local position, message, mark = tonumber(ARGV[3]), ARGV[4], ARGV[5]
  if call('LINDEX', list, -1 - position) ~= message then return {DONE, 0} end
  check_type('LLEN', redeliveries)
  check_type('HLEN', failure_reasons)
  if command == 'move_one' then
    check_types_to_carry()
    call('LPUSH', extra, message)
    carry({message})
    if moved and position > 0 then
      call('HSET', moved, 'ahead', call('LINDEX', list, -position), 'position', position)
    end
  elseif extra then
    keep_removed(position, message)
  end
  remove_found({{position, message}}, mark, command == 'remove' and function() end)
  return {DONE, 1}
end

if command == 'move_many' or command == 'remove_many' then
  local found = find_many(tonumber(ARGV[4]))
  if #found == 0 then return {DONE, 0} end
  check_type('LLEN', extra, redeliveries)
  check_type('HLEN', failure_reasons, extra_2)
  local messages = {}
  for i, one in ipairs(found) do
    messages[i] = one[2]
    call('LPUSH', extra, one[2])
  end
  if command == 'move_many' then
    carry(messages)
    remove_found(found, ARGV[3])
    return {DONE, #found}
  end
  call('EXPIRE', extra, UNDO_SECONDS)
  remove_found(found, ARGV[3], function(digest, entry, reason)
    if entry then call('HSET', history, digest, entry) end
    if reason then call('HSET', history, digest .. ':reason', reason) end
    call('EXPIRE', history, UNDO_SECONDS)
  end)
  return {DONE, #found}
end

if command == 'clear' then
  local count = call('LLEN', list)
  if count == 0 then return {DONE, 0} end
  check_type('LLEN', redeliveries)
  check_type('HLEN', failure_reasons)
  call('UNLINK', redeliveries, failure_reasons)
  call('RENAME', list, extra)
  call('EXPIRE', extra, UNDO_SECONDS)
  return {DONE, count}
end

if command == 'restore' then
  if call('TYPE', extra).ok ~= 'hash' then return {DONE, restore_many()} end
  restore_removed(ARGV[3])
  return {DONE, 1, 0}
end
