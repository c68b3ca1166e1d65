-- bind: KEYS: binding, marks; ARGV: address or account, 1 to replace another. Returns what
-- the ledger is bound to now. Without marks a binding is replaced in any case: the address
-- may have been mistyped.
local to = redis.call('GET', KEYS[1])
if to and ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then return to end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
