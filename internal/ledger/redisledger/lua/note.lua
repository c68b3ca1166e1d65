-- note: KEYS[1] a list of ids, with the milliseconds at which each was first noted;
-- ARGV: milliseconds, milliseconds before which an id is forgotten, most ids to
-- keep, seconds to keep the list, ids.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2])
for i = 5, #ARGV do redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[i]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 'ok'
