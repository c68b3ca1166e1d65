-- recall: KEYS: generation, sequence, items; ARGV: generation known or '', sequence
-- seen, Unix seconds, keys. Returns 'ok', the sequence, the version, and for each key
-- its value or false. Items of another generation count as missing. An item is stored
-- after the second at which it expires.
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
local head = redis.call('HMGET', KEYS[3], 'generation', 'version')
local ours = first[1] and head[1] == first[1]
local answer, now = { 'ok', first[2] or '0', ours and head[2] or '0' }, tonumber(ARGV[3])
for i = 4, #ARGV do
  local item = ours and redis.call('HMGET', KEYS[3], ARGV[i])[1]
  local expires, value
  if item then expires, value = string.match(item, '^(%d+) (.*)$') end
  answer[i] = expires and tonumber(expires) > now and value or false
end
return answer
