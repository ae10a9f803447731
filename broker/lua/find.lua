-- Search the waiting messages for a text, one or two thousand in a call, and show the matches or move them to another
-- list.
--
-- Other clients push and pop between two calls. So a call first finds the place at which the last one ended, by its
-- mark: the summaries of the last messages that it visited. A large message is searched in parts, one a call.
--
-- find           Input:  text in lower case, position, number to find, bytes of each, 1 for details, part seen,
--                        number of reasons, reasons, last mark
-- find_and_move  Input:  text in lower case, position, number to find, a random text to mark places, 0, part seen,
--                        number of reasons, reasons, last mark; extra keys: those of carry.lua
-- Output: position to continue at, 1 at the end of the queue, {position, size, first bytes, details}... in pop order,
--         mark for the next call, part seen, reasons that the caller must judge
--
-- The part seen is of the message at the position: the number of its bytes, 0 for none, and its summary. The number of
-- reasons is '' to find messages whatever their reason. Otherwise each reason is one that the caller has judged, with
-- '+' in front if its messages are wanted. A search stops at a message whose reason has not been judged.

local MAX_VISITED = 1000 -- messages in one call, which takes some milliseconds
local MAX_VISITED_TO_MOVE = 2500 -- more, because removing what was found takes the same time for all
local MAX_SEARCHED = 64 * 1024 -- bytes searched in one call
local MARK, MARK_BYTES = 24, 256 * 1024 -- summaries in a mark; fewer if their messages are larger than this together
local MAX_SHIFT = 1000 -- messages popped or put in front between two calls
local MAX_READ = 8 * 1024 * 1024 -- bytes of messages read to find them
local MAX_JUDGED = 250 -- messages in one call whose reasons are compared
local FIRST_REASON = 11 -- in ARGV
local FIRST_MARK = FIRST_REASON + (tonumber(ARGV[10]) or 0)

local text, wanted, is_moving = ARGV[3], tonumber(ARGV[5]), command == 'find_and_move'

if is_moving and has_failure_reasons() then wanted = math.min(wanted, MAX_WITH_REASONS) end

local read = 0

-- The message at a position; false if there is none.
local function message_at(position)
  local message = position >= 0 and call('LINDEX', list, -1 - position)
  read = read + (message and #message or 0)
  return message
end

-- Whether the messages before a position are those of the mark, leaving out any that have been popped.
local function ends_mark(position)
  for i = 0, #ARGV - FIRST_MARK do
    local message = message_at(position - 1 - i)
    if not message then return i > 0 end
    if summary_of(message) ~= ARGV[#ARGV - i] then return false end
  end
  return true
end

-- The position behind the mark, the one nearest to where it was; the old position if the mark is not found.
local function find_mark(position)
  if #ARGV < FIRST_MARK or ends_mark(position) then return position end
  for shift = 1, MAX_SHIFT do
    if read > MAX_READ then break end
    if position - shift > 0 and ends_mark(position - shift) then return position - shift end
    if ends_mark(position + shift) then return position + shift end
  end
  return math.min(position, call('LLEN', list))
end

local found, last = {}, {}
local start, from, first = tonumber(ARGV[4]), 1, nil
if ARGV[8] ~= '0' then first = message_at(start) or nil end
if first and summary_of(first) == ARGV[9] then
  from = ARGV[8] + 1
else
  start, first = find_mark(start), nil
end
local seen, seen_summary = 0, ''
local max_visited = is_moving and MAX_VISITED_TO_MOVE or MAX_VISITED

-- The history of the next messages, and the reasons among them that the caller has not judged.
local is_wanted, details, unjudged, is_judged = {[''] = false}, {}, {}, true
if ARGV[10] ~= '' then
  for i = FIRST_REASON, FIRST_MARK - 1 do
    is_wanted[string.sub(ARGV[i], 2)] = string.sub(ARGV[i], 1, 1) == '+'
  end
  local messages = {}
  walk(start, MAX_JUDGED, MAX_SEARCHED, function(message) messages[#messages + 1] = message end, first)
  details, max_visited = details_of(messages, start), #messages
  local seen_reasons = {}
  for _, history in ipairs(details) do
    local reason = history[3]
    if is_wanted[reason] == nil and not seen_reasons[reason] then
      seen_reasons[reason], unjudged[#unjudged + 1] = true, reason
    end
  end
end

local stop = walk(start, max_visited, MAX_SEARCHED, function(message, position)
  if position > start then from = 1 end
  if ARGV[10] ~= '' then
    local wanted_here = is_wanted[details[position - start + 1][3]]
    is_judged = wanted_here ~= nil
    if not wanted_here then
      if is_judged then last[#last + 1] = message end
      return not is_judged
    end
  end
  local part = message
  if from > 1 or #message > MAX_SEARCHED then part = string.sub(message, from, from + MAX_SEARCHED + #text - 2) end
  local matches = string.find(string.lower(part), text, 1, true)
  if not matches and from + #part <= #message then
    seen, seen_summary = from + MAX_SEARCHED - 1, summary_of(message)
    return true
  end
  if matches then found[#found + 1] = {position, #message, message} end
  if not (matches and is_moving) then last[#last + 1] = message end
  return #found == wanted
end, first)
if seen > 0 or not is_judged then stop = stop - 1 end

local mark, bytes = {}, 0
for i = #last, 1, -1 do
  if #mark == MARK or bytes >= MARK_BYTES then break end
  bytes = bytes + #last[i]
  table.insert(mark, 1, summary_of(last[i]))
end
for i = #ARGV, FIRST_MARK, -1 do -- fill it up with the end of the last mark
  if #mark == MARK or bytes >= MARK_BYTES then break end
  bytes = bytes + string.match(ARGV[i], '^%d+')
  table.insert(mark, 1, ARGV[i])
end

if is_moving and #found > 0 then
  check_type('LLEN', redeliveries)
  check_types_to_carry()
  local messages = {}
  for i, one in ipairs(found) do
    messages[i] = one[3]
    call('LPUSH', extra, one[3])
  end
  for i = #found, 1, -1 do -- from the back, so that the other positions stay right
    local _, index = entry_at(found[i][1], found[i][3])
    if index then remove_entry(index) end
  end
  carry(messages)
  for _, one in ipairs(found) do call('LSET', list, -1 - one[1], ARGV[6]) end
  local is_near_front = 2 * stop < call('LLEN', list)
  call('LREM', list, is_near_front and -#found or #found, ARGV[6]) -- from the nearer end
  stop = stop - #found
end
for _, one in ipairs(found) do
  if ARGV[7] == '1' then one[4] = details_of({one[3]}, one[1])[1] end
  one[3] = is_moving and '' or string.sub(one[3], 1, ARGV[6])
end
return {DONE, stop, stop >= call('LLEN', list) and 1 or 0, found, mark, {seen, seen_summary}, unjudged}
