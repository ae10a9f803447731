-- Tidy up a queue by hand. Due messages return first, so that they are tidied up too.
--
-- remove    Input:  position, message, a random text to mark the place; extra key, to allow undo: where it is kept
--           Output: the number of messages removed: 0 if another one is at the position
-- move_one  Input:  as of remove; extra keys: those of carry.lua
--           Output: the number of messages moved
-- clear     Input:  none; extra key: where the list is kept
--           Output: the number of messages removed
-- restore   Input:  a random text to mark the place; extra key: what `clear` or `remove` kept
--           Output: the number of messages restored; 0 if nothing is kept; 1 if some are left for another call
-- pause     Input:  none; extra key: a list on which clients block until the queue is resumed
-- resume    Input:  none; extra key: as of pause

local RESUMED_SECONDS = 60
local MAX_RESTORED = 1000 -- cleared messages that one call moves, which takes some milliseconds

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

-- Keep a message that is about to be removed, its history, and the message ahead of it.
local function keep_removed(position, message, entry)
  call('HSET', extra, 'message', message, 'position', position)
  local known = {
    ahead = position > 0 and call('LINDEX', list, -position),
    entry = entry,
    failure_reason = call('HGET', failure_reasons, digest_of(message)),
  }
  for field, value in pairs(known) do
    if value then call('HSET', extra, field, value) end
  end
  call('EXPIRE', extra, UNDO_SECONDS)
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
      push_entry(message, 0)
    end
    trim_redeliveries()
  end
  if reason then
    local number = tonumber(string.match(call('HGET', failure_reasons, digest_of(message)) or '0', '^%d+')) + 1
    call('HSET', failure_reasons, digest_of(message), (string.gsub(reason, '^%d+', number)))
  end
  call('DEL', extra)
end

-- Put cleared messages to the front, for they are older than those that wait now. If few wait, they join the cleared
-- ones, which then become the queue. Otherwise a call moves a batch of the cleared ones, the newest first, so that all
-- keep their order; those that are left can be restored for another hour.
local function restore_cleared()
  local kept, waiting = call('LLEN', extra), call('LLEN', list)
  if kept == 0 then return 0, 0 end
  check_type('LLEN', redeliveries)
  call('UNLINK', redeliveries)
  local messages, bytes = math.min(kept, MAX_RESTORED), 0
  if waiting < messages then
    local moved = 0
    while moved < waiting and bytes < MAX_BATCH_BYTES do
      bytes = bytes + #call('LINDEX', list, moved - waiting)
      moved = moved + 1
    end
    if bytes < MAX_BATCH_BYTES then
      for _ = 1, waiting do call('LMOVE', list, extra, 'RIGHT', 'LEFT') end
      call('RENAME', extra, list)
      call('PERSIST', list)
      return kept, 0
    end
    bytes = 0
  end
  for moved = 1, messages do
    bytes = bytes + #call('LMOVE', extra, list, 'LEFT', 'RIGHT')
    if bytes >= MAX_BATCH_BYTES then messages = moved end
    if moved == messages then break end
  end
  if messages < kept then call('EXPIRE', extra, UNDO_SECONDS) end
  return messages, messages < kept and 1 or 0
end

if return_due() then return {AGAIN} end

if command == 'remove' or command == 'move_one' then
  local position, message, mark = tonumber(ARGV[3]), ARGV[4], ARGV[5]
  if call('LINDEX', list, -1 - position) ~= message then return {DONE, 0} end
  local entry, entry_index = entry_at(position, message)
  local has_reasons = has_failure_reasons()
  if command == 'move_one' then
    check_types_to_carry()
    call('LPUSH', extra, message)
    carry({message})
    if moved and position > 0 then
      call('HSET', moved, 'ahead', call('LINDEX', list, -position), 'position', position)
    end
  else
    if extra then keep_removed(position, message, entry) end
    if has_reasons then remove_failure_reasons({message}) end
  end
  if entry_index then remove_entry(entry_index) end
  call('LSET', list, -1 - position, mark) -- a list has no removal by position
  call('LREM', list, -1, mark)
  return {DONE, 1}
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
  if call('TYPE', extra).ok ~= 'hash' then return {DONE, restore_cleared()} end
  restore_removed(ARGV[3])
  return {DONE, 1, 0}
end

return redis.error_reply('ERR unknown command ' .. command)
