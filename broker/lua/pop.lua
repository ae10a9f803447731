-- Pop one message where nothing is reserved, delayed or paused and nothing is known of messages: that is an RPOP, which
-- need not pay for what queue.lua prepares. It runs when memory is full (`allow-oom`), as it makes room.
--
-- KEYS: list, reserved, delayed, returned, paused, causes. Answer: the message; 0: there is none, and none will come by
-- itself; 1: queue.lua must pop.
if redis.call('EXISTS', unpack(KEYS, 2)) > 0 then return 1 end
return redis.call('RPOP', KEYS[1]) or 0
