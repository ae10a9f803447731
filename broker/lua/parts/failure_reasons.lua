-- Why dead letters died: a hash beside their list, digest -> '<number>:<deliveries>:<when>:<reason>'. Equal dead
-- letters share the latest reason; it is removed with the last of them. If they are moved, it goes with them.

local DIGEST_LENGTH = 20 -- hexadecimal digits
local REASON_SECONDS = 7 * 24 * 3600 -- how long the reasons of dead letters that were moved back are kept
local SAMPLES, SAMPLE_BYTES = 16, 4096 -- of a large message that its digest covers

-- A digest of a message; of a large one, of its size and of samples of it, as a digest of all takes milliseconds. So
-- equal digests prove nothing: where a message is removed, the whole text is compared. `message_digest` in keys.py does
-- the same.
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
