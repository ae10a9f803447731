-- Put before a script whose arguments are too many for one command: reads the others from the list that holds them, the
-- last of KEYS, and removes it. After that KEYS and ARGV are as the script expects them.
for _, argument in ipairs(redis.call('LRANGE', KEYS[#KEYS], 0, -1)) do ARGV[#ARGV + 1] = argument end
redis.call('DEL', KEYS[#KEYS])
KEYS[#KEYS] = nil

