-- Why dead letters died: a hash beside their list, digest -> '<number>:<deliveries>:<when>:<reason>'. Equal dead
-- letters share the latest reason; it is removed with the last of them.

local DIGEST_LENGTH = 20 -- hexadecimal digits
local SAMPLES, SAMPLE_BYTES = 16, 4096 -- of a large message that its digest covers

-- A digest of a message; of a large one, of its size and of samples of it, as a digest of all takes milliseconds. So it
-- says nothing for sure: where a message is removed, the whole text is compared. `message_digest` in keys.py is the same.
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

-- Remove the reasons of dead letters that have left this queue for good.
local function remove_failure_reasons(messages)
  for _, message in ipairs(messages) do
    local digest = digest_of(message)
    local number, rest = string.match(call('HGET', failure_reasons, digest) or '', '^(%d+)(:.*)$')
    if number == '1' then
      call('HDEL', failure_reasons, digest)
    elseif number then
      call('HSET', failure_reasons, digest, (number - 1) .. rest)
    end
  end
end
