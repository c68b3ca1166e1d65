-- release: KEYS: lease, word; ARGV: token, count of words seen, milliseconds.
-- Returns the count of words, or false if the lease is lost. If word was left
-- since, the lease is kept and renewed, else it is given up.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local words = tonumber(redis.call('GET', KEYS[2]) or '0')
if words == tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return words
