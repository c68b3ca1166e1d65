-- renew: KEYS: lease, reruns; ARGV: token, milliseconds or 0 to leave it as it is.
-- Returns how many reruns have been requested, or false if the lease is lost.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return tonumber(redis.call('GET', KEYS[2]) or '0')
