-- Pop one message with a plain RPOP. This works for a queue that is not paused and has no settings, reservations, delays
-- or history. take.lua pops from any queue, at several times the cost.
--
-- KEYS: list, then POP_ONE_KEYS of broker/keys.py.
-- Output: the message; 0 if there is none, and no lease or delay will return one; 1 if take.lua must pop

if redis.call('EXISTS', unpack(KEYS, 2)) > 0 then return 1 end
return redis.call('RPOP', KEYS[1]) or 0
