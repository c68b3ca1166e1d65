-- nonce: KEYS[1] nonce; ARGV: a value unique to this call, milliseconds. Returns 1
-- if the nonce was free. A call that is made again because its answer was lost
-- still gets 1.
local by = redis.call('GET', KEYS[1])
if by then return by == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
