-- setmarks: KEYS: generation, lease, marks; ARGV: generation, token, marks.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'replaced' end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'lost' end
redis.call('SET', KEYS[3], ARGV[3])
return 'ok'
