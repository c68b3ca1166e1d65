-- announce: KEYS[1] announced; ARGV: milliseconds of the trigger, milliseconds
-- before which an announcement is forgotten, most to keep, seconds to keep the
-- list, ids. The first announcement of an id counts.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2])
for i = 5, #ARGV do redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[i]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 'ok'
