-- The limits of a queue that has settings.
--
-- `at_once` limits how many messages are reserved. `per_second` is a token bucket, from which each message takes a token.
-- It fills at that rate and holds BURST_SECONDS of tokens, at least one. So no period of a second sees more messages
-- than a second's tokens and a full bucket. `rate` is when the bucket is full, in microseconds; it is missing while full.

local BURST_SECONDS = 0.1
local MAX_INTERVAL = 1e15 -- microseconds, some thirty years: a number that a time of Redis can be added to
local MAX_ERROR = 10 -- microseconds by which rounding may be wrong
local MAX_RETRY = 1000 -- milliseconds; an ack can free a place at any time

local interval, full_at -- microseconds a token, and when the bucket is full; nil without `per_second`

-- How many of `number` messages may be taken now. If none, also: milliseconds until one may be taken at the latest (an ack
-- can free a place sooner), and milliseconds after which to try again.
local function limit(number)
  local at_once, per_second, deliveries = unpack(call('HMGET', settings, 'at_once', 'per_second', 'max_deliveries'))
  max_deliveries = tonumber(deliveries) or max_deliveries
  if at_once then
    number = math.min(number, math.max(0, at_once - call('ZCARD', reserved)))
    if number == 0 then
      local next_due = until_next_due()
      return 0, next_due, math.min(MAX_RETRY, next_due)
    end
  end
  if not per_second then return number end
  local moment = time[1] * 1000000 + time[2]
  interval = math.min(1000000 / per_second, MAX_INTERVAL)
  local capacity = math.max(interval, BURST_SECONDS * 1000000)
  full_at = math.max(moment, tonumber(call('GET', rate) or 0))
  -- It is later only if the clock was set back, or the setting raised.
  if full_at > moment + capacity + MAX_ERROR then full_at = moment end
  local tokens = capacity - (full_at - moment) -- in microseconds
  number = math.min(number, math.max(0, math.floor((tokens + 0.5) / interval)))
  local retry = math.max(1, math.ceil((interval - tokens) / 1000))
  return number, retry, retry
end

-- Take a token for each message that was taken.
local function spend(number)
  if not interval or number == 0 then return end
  full_at = math.ceil(full_at + number * interval)
  local moment = time[1] * 1000000 + time[2]
  call('SET', rate, whole(full_at), 'PX', whole(math.ceil((full_at - moment) / 1000)))
end
