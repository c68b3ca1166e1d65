-- recall: KEYS: generation, items; ARGV: generation known or '', Unix seconds, keys.
-- Returns the version, and for each key its value or false. Of items that another
-- generation remembered there are none. An item is stored behind the second at which
-- it expires.
local generation = redis.call('MGET', KEYS[1])[1]
if ARGV[1] ~= '' and generation ~= ARGV[1] then return { 'replaced' } end
local head = redis.call('HMGET', KEYS[2], 'generation', 'version')
if not generation or head[1] ~= generation then return { '0' } end
local answer, now = { head[2] or '0' }, tonumber(ARGV[2])
for i = 3, #ARGV do
  local item = redis.call('HMGET', KEYS[2], ARGV[i])[1]
  local expires, value
  if item then expires, value = string.match(item, '^(%d+) (.*)$') end
  answer[i - 1] = expires and tonumber(expires) > now and value or false
end
return answer
