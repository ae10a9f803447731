-- Pop one message from a queue where nothing is reserved, delayed, paused or remembered: a plain RPOP. take.lua pops
-- from any queue, at several times the cost.
--
-- KEYS: list, then POP_ONE_KEYS of broker/keys.py.
-- Output: the message; 0 if there is none, and none returns by itself; 1 if take.lua must pop

if redis.call('EXISTS', unpack(KEYS, 2)) > 0 then return 1 end
return redis.call('RPOP', KEYS[1]) or 0
