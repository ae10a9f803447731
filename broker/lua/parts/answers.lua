-- Answers that are kept: those to requests with an Idempotency-Key, and the results of jobs.
--
-- The former are in a ring of hashes, one for each six hours: a key for each answer would swamp the scan that lists the
-- queues.

local ANSWER_SECONDS = 24 * 3600 -- how long the answer to an Idempotency-Key is saved at least
local ANSWER_KEY_SECONDS = 6 * 3600 -- for which one of the keys takes the new answers
local ANSWER_KEYS = 7 -- of which five hold the last 24 hours

-- The key of the hash with the current answers, or with those of `turns_ago` turns before.
local function answer_key(turns_ago)
  local turn = math.floor(now / 1000 / ANSWER_KEY_SECONDS) - turns_ago
  return KEYS[#KEYS - turn % ANSWER_KEYS]
end

-- The answer saved for the Idempotency-Key of a request with this fingerprint, or {CONFLICT}; nil if there is none. The
-- next turn is searched too, in case the clock was set back.
local function saved_answer(idempotency_key, fingerprint)
  if not extra then return nil end
  for turns_ago = -1, ANSWER_KEYS - 3 do
    local saved = call('HGET', answer_key(turns_ago), idempotency_key)
    if saved then
      local answer = cmsgpack.unpack(saved)
      return table.remove(answer, 1) == fingerprint and {DONE, answer} or {CONFLICT}
    end
  end
end

local function save_answer(idempotency_key, fingerprint, ...)
  call('HSET', answer_key(0), idempotency_key, cmsgpack.pack({fingerprint, ...}))
  call('EXPIRE', answer_key(0), ANSWER_SECONDS + ANSWER_KEY_SECONDS)
  redis.pcall('UNLINK', answer_key(-2)) -- the oldest: if it expired, Redis would free it all at once
end

-- Store the results of jobs, or the reasons of their failures, and notify the clients that wait for them. Each result is
-- {key, text} or {key, reason, 'failed'}.
local function store_results(seconds, results)
  local keys, moment = {}, whole(now)
  for i, result in ipairs(results) do
    keys[i] = result[1]
    call('DEL', keys[i])
    call('RPUSH', keys[i], moment, unpack(result, 2))
    call('EXPIRE', keys[i], seconds)
  end
  if #keys > 0 then publish('results', table.concat(keys, ' ')) end
end
