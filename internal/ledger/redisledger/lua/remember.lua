-- remember: KEYS: generation, items, expiry; ARGV: generation, version that the caller
-- knows, Unix seconds, most items to keep, seconds to keep all of it, then for each item its
-- key, the second at which it expires and its value, '' to remove it. Returns 'ok', the
-- new version, and how many items had to go although their time had not come: those
-- whose time comes first. Returns 'changed' if the version is another one, and then
-- writes nothing.
local generation = redis.call('MGET', KEYS[1])[1]
if generation ~= ARGV[1] then return { 'replaced' } end
local head = redis.call('HMGET', KEYS[2], 'generation', 'version')
local version = head[2] or '0'
if head[1] ~= generation then version = '0' end
if version ~= ARGV[2] then return { 'changed' } end
if head[1] ~= generation then redis.call('DEL', KEYS[2], KEYS[3]) end
version = string.format('%.0f', tonumber(version) + 1)
redis.call('HSET', KEYS[2], 'generation', generation, 'version', version)
for i = 6, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    redis.call('ZADD', KEYS[3], ARGV[i + 1], ARGV[i])
  end
end
local now, dropped = tonumber(ARGV[3]), 0
local over = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[4])
while true do
  local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if not first[1] then break end
  local expired = tonumber(first[2]) <= now
  if not expired and over <= 0 then break end
  if not expired then dropped = dropped + 1 end
  redis.call('HDEL', KEYS[2], first[1])
  redis.call('ZREM', KEYS[3], first[1])
  over = over - 1
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return { 'ok', version, dropped }
