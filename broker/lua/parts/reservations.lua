-- Reservations and delays: their ids, and what is kept of them.
--
-- An id is '<microseconds>-<number>-<random>-<deliveries>', so ids sort by age. `deliveries` includes this one; it is 0
-- for a message that was pushed with a delay. The deadline of a reservation is in `reserved`. The id of a delayed
-- message ends in '-d', and its deadline is in `delayed`. The message is in `bodies`, under the id without '-d'.

local function is_delayed(id) return string.sub(id, -2) == '-d' end
local function schedule_of(id) return is_delayed(id) and delayed or reserved end
local function body_field(id) return is_delayed(id) and string.sub(id, 1, -3) or id end
local function failure_field(id) return body_field(id) .. ':failure' end

-- Remove everything that is kept of a reservation or delay. Return whether it was there.
local function forget(id)
  call('HDEL', bodies, body_field(id), failure_field(id))
  return call('ZREM', schedule_of(id), id) == 1
end
