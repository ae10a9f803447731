-- The first part of settle.lua: ack, which needs little of what follows.

local MAX_ACKED = 10000 -- acked ids that are remembered
local TRIM_INTERVAL = 1000 -- milliseconds between two looks at how many there are

-- Whether a reservation or delay has not ended. If it has, its message may not have been returned yet.
local function is_held(id)
  local due = call('ZSCORE', schedule_of(id), id)
  return due and tonumber(due) > now
end

-- Divide the ids from ARGV[first] on: those held, and those that are not. With `or_acked`, ids that were acked within
-- the last hour are in neither.
local function divide(first, or_acked)
  local held, expired = {}, {}
  for i = first, #ARGV do
    local id = ARGV[i]
    if is_held(id) then
      held[#held + 1] = id
    elseif not (or_acked and call('ZSCORE', acked, id)) then
      expired[#expired + 1] = id
    end
  end
  return held, expired
end

-- Ack ids that are held, and remember them.
local function ack(ids)
  if #ids == 0 then return end
  check_type('HLEN', bodies)
  local is_kept = call('PTTL', acked) >= ACKED_SECONDS * 1000
  local has_reasons, scores = has_failure_reasons(), {}
  for i, id in ipairs(ids) do scores[2 * i - 1], scores[2 * i] = now, id end
  call_many('ZADD', acked, scores)
  for _, id in ipairs(has_reasons and ids or {}) do
    remove_failure_reasons({call('HGET', bodies, body_field(id)) or nil})
  end
  forget(ids)
  if is_kept then return end
  local number, before = call('ZCARD', acked), call('ZCOUNT', acked, '-inf', now)
  local oldest = before < number and before or 0 -- after now: from before the clock was set back
  if number > MAX_ACKED then call('ZREMRANGEBYRANK', acked, oldest, oldest + number - MAX_ACKED - 1) end
  call('PEXPIRE', acked, ACKED_SECONDS * 1000 + TRIM_INTERVAL)
end

if command == 'ack' then
  local held, expired = divide(3, true)
  if #expired == 0 then ack(held) end
  table.insert(expired, 1, DONE)
  return expired
end
