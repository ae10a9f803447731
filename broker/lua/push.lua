-- What makes Redis grow and takes more than one command: a push once for an Idempotency-Key, to the front, or for later;
-- a result. Without allow-oom: a full server refuses these as it refuses any other push.

-- KEYS: the extra one holds the result. ARGV[3]: seconds to keep it. ARGV[4]: the result.
if command == 'store_result' then
  store_result(extra, ARGV[3], ARGV[4])
  return {DONE}
end

-- KEYS: the extra one is where the answer to an Idempotency-Key is kept. ARGV[3]: the request's fingerprint. ARGV[4]: a
-- delay, milliseconds. ARGV[5]: a random text that makes ids unguessable. ARGV[6...]: messages.
-- `push` adds them to the back, `push_front` in front, the last of them foremost, `push_later` to the back when the delay
-- is over.
-- Answer: the queue's length after that push; of a later one also the first and the third part of the messages' ids.
local FIRST = 6
local kept = kept_answer(ARGV[3])
if kept then
  if kept[1] == DONE then return {DONE, tonumber(kept[2][1]), kept[2][2] or '', kept[2][3] or '', 1} end
  return kept
end

local moment, due = string.format('%016.0f', time[1] * 1000000 + time[2]), now + ARGV[4]
for i = FIRST, #ARGV, MAX_ARGUMENTS do
  local messages = {unpack(ARGV, i, math.min(i + MAX_ARGUMENTS - 1, #ARGV))}
  if command == 'push' then
    call('LPUSH', list, unpack(messages))
  elseif command == 'push_front' then
    push_front(messages)
  else
    for n, message in ipairs(messages) do
      local id = string.format('%s-%06d-%s-0', moment, i - FIRST + n, ARGV[5])
      call('HSET', bodies, id, message)
      call('ZADD', delayed, due, id .. '-d')
    end
  end
end
if command == 'push_later' then note_due(due) end
local count = call('LLEN', list)
if extra then keep_answer(ARGV[3], count, moment, ARGV[5]) end
return {DONE, count, moment, ARGV[5]}
