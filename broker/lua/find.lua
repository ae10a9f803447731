-- Search the waiting messages for a text, one or two thousand in a call, and show the matches or move them to another
-- list.
--
-- Other clients push and pop between two calls, so a call first finds the place where the previous one ended. It
-- recognizes it by a mark: the digests of the last messages that were visited.
--
-- find           Input:  text in lower case, position, number to find, bytes of each, 1 for details, last mark
-- find_and_move  Input:  text in lower case, position, number to find, a random text to mark places, 0, last mark;
--                        extra key: the list to move to
-- Output: position to continue at, 1 at the end of the queue, {position, size, first bytes, details}... in pop order,
--         mark for the next call

local MAX_VISITED = 1000 -- messages in one call, which takes a few milliseconds
local MAX_VISITED_TO_MOVE = 2500 -- more, because one LREM removes all matches of a call
local MARK = 24 -- digests in a mark
local MAX_SHIFT = 1000 -- messages popped or put in front between two calls
local FIRST_MARK = 8 -- in ARGV

local text, wanted, is_moving = ARGV[3], tonumber(ARGV[5]), command == 'find_and_move'

-- The message at a position; false if there is none.
local function message_at(position) return position >= 0 and call('LINDEX', list, -1 - position) end

-- Whether the messages before a position are those of the mark, leaving out any that have been popped.
local function ends_mark(position)
  for i = 0, #ARGV - FIRST_MARK do
    local message = message_at(position - 1 - i)
    if not message then return i > 0 end
    if digest_of(message) ~= ARGV[#ARGV - i] then return false end
  end
  return true
end

-- The position behind the mark, the one nearest to where it was; the old position if the mark is not found.
local function find_mark(position)
  if #ARGV < FIRST_MARK or ends_mark(position) then return position end
  for shift = 1, MAX_SHIFT do
    if position - shift > 0 and ends_mark(position - shift) then return position - shift end
    if ends_mark(position + shift) then return position + shift end
  end
  return math.min(position, call('LLEN', list))
end

local found, last = {}, {}
local start = find_mark(tonumber(ARGV[4]))
local stop = walk(start, is_moving and MAX_VISITED_TO_MOVE or MAX_VISITED, function(message, position)
  local matches = string.find(string.lower(message), text, 1, true)
  if matches then found[#found + 1] = {position, #message, message} end
  if not (matches and is_moving) then last[#last + 1] = message end
  return #found == wanted
end)

local mark = {}
for i = math.max(1, #last - MARK + 1), #last do mark[#mark + 1] = digest_of(last[i]) end
for i = #ARGV, FIRST_MARK, -1 do -- fill it up with the end of the last mark
  if #mark == MARK then break end
  table.insert(mark, 1, ARGV[i])
end

if is_moving and #found > 0 then
  check_type('LLEN', extra, redeliveries)
  local has_reasons = has_failure_reasons()
  for _, one in ipairs(found) do call('LPUSH', extra, one[3]) end
  for i = #found, 1, -1 do -- from the back, so that the other positions stay right
    local _, index = entry_at(found[i][1], found[i][3])
    if index then remove_entry(index) end
  end
  for _, one in ipairs(found) do
    if has_reasons then remove_failure_reasons({one[3]}) end
    call('LSET', list, -1 - one[1], ARGV[6])
  end
  local is_near_front = 2 * stop < call('LLEN', list)
  call('LREM', list, is_near_front and -#found or #found, ARGV[6]) -- from the nearer end
  stop = stop - #found
end
for _, one in ipairs(found) do
  if ARGV[7] == '1' then one[4] = details_of({one[3]}, one[1])[1] end
  one[3] = is_moving and '' or string.sub(one[3], 1, ARGV[6])
end
return {DONE, stop, stop >= call('LLEN', list) and 1 or 0, found, mark}
