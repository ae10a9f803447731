-- Why dead letters died: a hash beside their list, digest -> '<number>:<deliveries>:<when>:<reason>'. Equal dead
-- letters share the latest reason; it is removed with the last of them.

local DIGEST_LENGTH = 20 -- hexadecimal digits

local function digest_of(message) return string.sub(redis.sha1hex(message), 1, DIGEST_LENGTH) end

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
