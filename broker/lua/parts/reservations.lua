-- Reservations and delays: their ids, and what is kept of them.
--
-- An id is '<microseconds>-<number>-<random>-<deliveries>', so ids sort by age. `deliveries` includes this one; it is 0
-- for a message that was pushed with a delay. The deadline of a reservation is in `reserved`. The id of a delayed
-- message ends in '-d', and its deadline is in `delayed`. The message is in `bodies`, under the id without '-d'.

local function is_delayed(id) return string.sub(id, -2) == '-d' end
local function schedule_of(id) return is_delayed(id) and delayed or reserved end
local function body_field(id) return is_delayed(id) and string.sub(id, 1, -3) or id end
local function failure_field(id) return body_field(id) .. ':failure' end
local function by_field(id) return body_field(id) .. ':by' end

-- Remove everything that is kept of reservations and delays.
local function forget(ids)
  local fields, held = {}, {[reserved] = {}, [delayed] = {}}
  for _, id in ipairs(ids) do
    local field, same = body_field(id), held[schedule_of(id)]
    fields[#fields + 1], fields[#fields + 2], fields[#fields + 3] = field, field .. ':failure', field .. ':by'
    same[#same + 1] = id
  end
  call_many('HDEL', bodies, fields)
  for _, schedule in ipairs({reserved, delayed}) do call_many('ZREM', schedule, held[schedule]) end
end
