-- renew: KEYS: lease, reruns; ARGV: token, milliseconds. Returns how many reruns have
-- been requested, or false if the lease is lost.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('GET', KEYS[2]) or '0')
