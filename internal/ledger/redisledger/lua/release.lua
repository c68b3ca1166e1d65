-- release: KEYS: lease, reruns; ARGV: token, count of requests seen, milliseconds.
-- Returns how many reruns have been requested, or false if the lease is lost. If
-- there are more than the holder has seen, the lease is kept and renewed;
-- otherwise it is given up.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local reruns = tonumber(redis.call('GET', KEYS[2]) or '0')
if reruns == tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return reruns
