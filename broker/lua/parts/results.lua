-- Store the result of a job in the extra key, and notify the clients that wait for it.
local function store_result(seconds, result)
  call('DEL', extra)
  call('RPUSH', extra, whole(now), result)
  call('EXPIRE', extra, seconds)
  publish('result', extra)
end
