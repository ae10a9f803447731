-- Comes after shared.lua in a script on lists that are taken from the left. MIRRORED has their places in KEYS. `call`
-- shows them from their other end, so that the rest of the script takes the right end of any list for its front.

local mirrored = {}
for _, place in ipairs(MIRRORED) do mirrored[KEYS[place]] = true end
local OTHER = {LEFT = 'RIGHT', RIGHT = 'LEFT', BEFORE = 'AFTER', AFTER = 'BEFORE', LPUSH = 'RPUSH', RPUSH = 'LPUSH'}
local direct = call

local function turn(index) return -1 - tonumber(index) end

call = function(command, key, ...)
  if not key then return direct(command) end
  local arguments = {...}
  if command == 'LMOVE' then
    local to = arguments[1]
    local from_end = mirrored[key] and OTHER[arguments[2]] or arguments[2]
    return direct(command, key, to, from_end, mirrored[to] and OTHER[arguments[3]] or arguments[3])
  end
  if not mirrored[key] then return direct(command, key, ...) end
  if command == 'LPUSH' or command == 'RPUSH' then return direct(OTHER[command], key, ...) end
  if command == 'LINDEX' then return direct(command, key, turn(arguments[1])) end
  if command == 'LSET' then return direct(command, key, turn(arguments[1]), arguments[2]) end
  if command == 'LINSERT' then return direct(command, key, OTHER[arguments[1]], arguments[2], arguments[3]) end
  if command == 'LREM' then return direct(command, key, -arguments[1], arguments[2]) end -- begin at the near end
  if command == 'LRANGE' then
    local found, turned = direct(command, key, turn(arguments[2]), turn(arguments[1])), {}
    for i = #found, 1, -1 do turned[#turned + 1] = found[i] end
    return turned
  end
  if command == 'LPOS' then -- with RANK and COUNT
    arguments[3] = -arguments[3]
    local found, last = direct(command, key, unpack(arguments)), direct('LLEN', key) - 1
    for i, index in ipairs(found) do found[i] = last - index end
    return found
  end
  return direct(command, key, ...)
end
