-- claim: KEYS[1] claim; ARGV: a value of this very call, milliseconds. Returns 1
-- the first time. A call that is made again because its answer was lost is still
-- the first.
local by = redis.call('GET', KEYS[1])
if by then return by == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
