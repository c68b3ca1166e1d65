-- remember: KEYS: generation, sequence, items, expiry; ARGV: generation, sequence seen,
-- version that the caller knows, Unix seconds, most items to keep, seconds to keep all of
-- it, then for each item its key, the second at which it expires and its value, '' to
-- remove it. Returns 'ok', the sequence, and how many items that had not expired were
-- removed because there were too many: those that expire first. Returns 'changed' if the
-- version is another one, and then writes nothing.
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
local generation, items, expiry = first[1], KEYS[3], KEYS[4]
local head = redis.call('HMGET', items, 'generation', 'version')
local version = head[2] or '0'
if head[1] ~= generation then version = '0' end
if version ~= ARGV[3] then return { 'changed' } end
if head[1] ~= generation then redis.call('DEL', items, expiry) end
version = string.format('%.0f', tonumber(version) + 1)
redis.call('HSET', items, 'generation', generation, 'version', version)
for i = 7, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    redis.call('HDEL', items, ARGV[i])
    redis.call('ZREM', expiry, ARGV[i])
  else
    redis.call('HSET', items, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    redis.call('ZADD', expiry, ARGV[i + 1], ARGV[i])
  end
end
local now, dropped = tonumber(ARGV[4]), 0
local over = redis.call('ZCARD', expiry) - tonumber(ARGV[5])
while true do
  local oldest = redis.call('ZRANGE', expiry, 0, 0, 'WITHSCORES')
  if not oldest[1] then break end
  local expired = tonumber(oldest[2]) <= now
  if not expired and over <= 0 then break end
  if not expired then dropped = dropped + 1 end
  redis.call('HDEL', items, oldest[1])
  redis.call('ZREM', expiry, oldest[1])
  over = over - 1
end
redis.call('EXPIRE', items, ARGV[6])
redis.call('EXPIRE', expiry, ARGV[6])
return { 'ok', first[2] or '0', dropped }
