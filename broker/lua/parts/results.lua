-- Store the result of a job, or the reason of its failure, and notify the clients that wait for it.
local function store_result(key, seconds, text, has_failed)
  call('DEL', key)
  call('RPUSH', key, whole(now), text, unpack(has_failed and {'failed'} or {}))
  call('EXPIRE', key, seconds)
  publish('result', key)
end
