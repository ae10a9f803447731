-- Find the waiting messages that hold a text, some thousands a call, and give them back or move them to another list.
-- Others push and pop between two calls, so each call first finds the place where the last one ended: by the digests of
-- the last messages that it looked at.
--
-- `find`: ARGV[3]: the text, in lower case. ARGV[4]: the position to begin at. ARGV[5]: how many to find at most.
-- ARGV[6]: bytes to give of each. ARGV[7]: 1 to give what is known of each. ARGV[8...]: the mark of the last call.
-- `move_found`: KEYS: the extra one is the list to move to. ARGV[6]: a random text to mark the places.
-- Answer: the position to go on at, 1 at the end of the queue, those found, in order, as {position, size, first bytes,
-- details}, and the mark for the next call.

local MAX_LOOKED = 1000 -- messages in one call, which takes some milliseconds
local MAX_LOOKED_TO_MOVE = 2500 -- removing what was found takes as long for more
local MARK = 24 -- messages whose digests are the mark
local MAX_SHIFT = 1000 -- messages popped or put in front between two calls
local MARK_INDEX = 8 -- in ARGV

local text, wanted, is_moving = ARGV[3], tonumber(ARGV[5]), command == 'move_found'

-- The message before which `after` others wait; false if there is none.
local function at(after) return after >= 0 and call('LINDEX', list, -1 - after) end

-- Whether the last message of the mark is the one before a position, and those before it are the rest of the mark, as far
-- as they still wait.
local function ends_mark(position)
  for i = 0, #ARGV - MARK_INDEX do
    local message = at(position - 1 - i)
    if not message then return i > 0 end
    if digest_of(message) ~= ARGV[#ARGV - i] then return false end
  end
  return true
end

-- The position behind the mark, the nearest to where it was; where it was if it is not found.
local function find_mark(position)
  if #ARGV < MARK_INDEX or ends_mark(position) then return position end
  for shift = 1, MAX_SHIFT do
    if position - shift > 0 and ends_mark(position - shift) then return position - shift end
    if ends_mark(position + shift) then return position + shift end
  end
  return math.min(position, call('LLEN', list))
end

local found, last = {}, {}
local start = find_mark(tonumber(ARGV[4]))
local stop = look(start, is_moving and MAX_LOOKED_TO_MOVE or MAX_LOOKED, function(message, position)
  local matches = string.find(string.lower(message), text, 1, true)
  if matches then found[#found + 1] = {position, #message, message} end
  if not (matches and is_moving) then last[#last + 1] = message end
  return #found == wanted
end)

local mark = {}
for i = math.max(1, #last - MARK + 1), #last do mark[#mark + 1] = digest_of(last[i]) end
for i = #ARGV, MARK_INDEX, -1 do -- what is missing comes from the mark before
  if #mark == MARK then break end
  table.insert(mark, 1, ARGV[i])
end

if is_moving then
  -- Nearest to the front last, so that the positions of the others stay right for forget_at.
  for i = #found, 1, -1 do forget_at(found[i][1], found[i][3]) end
  for _, one in ipairs(found) do
    call('LPUSH', extra, one[3])
    forget_causes({one[3]})
    call('LSET', list, -1 - one[1], ARGV[6])
  end
  local is_near_front = 2 * stop < call('LLEN', list)
  if #found > 0 then call('LREM', list, is_near_front and -#found or #found, ARGV[6]) end -- from the nearer end
  stop = stop - #found
end
for _, one in ipairs(found) do
  if ARGV[7] == '1' then one[4] = details_of({one[3]}, one[1])[1] end
  one[3] = is_moving and '' or string.sub(one[3], 1, ARGV[6])
end
return {DONE, stop, stop >= call('LLEN', list) and 1 or 0, found, mark}
