-- outage: KEYS[1] ids of outages by when they began, KEYS[2] outages by id; ARGV:
-- milliseconds at which it began, id, outage, milliseconds before which an outage is
-- forgotten, most outages to keep, seconds to keep the lists.
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
local function forget(ids)
  for _, id in ipairs(ids) do
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
forget(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4]))
forget(redis.call('ZRANGE', KEYS[1], 0, -ARGV[5] - 1))
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return 'ok'
