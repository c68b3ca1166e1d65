-- acquire: KEYS: lease, reruns; ARGV: token, milliseconds, 1 to request a rerun.
-- Returns how many reruns have been requested so far if the lease is ours, and
-- false if it is not. A count, unlike a flag that is cleared, loses no request
-- when an answer is lost and the call is made again.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  if ARGV[3] == '1' then redis.call('INCR', KEYS[2]) end
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(redis.call('GET', KEYS[2]) or '0')
