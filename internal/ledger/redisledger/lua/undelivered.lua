-- undelivered: KEYS: dead or deferred, undelivered; ARGV: most entries to return, most
-- bytes unless one alone has more, milliseconds and id to go on after, or nothing. Returns
-- id, milliseconds, '1' or '' if there is no entry, and entry in turn, oldest first.
-- Only reads. It goes on at the right place if entries come or go between two calls.
local key, n, score, member = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4]

-- after compares bytes, as Redis orders members; Lua's < would follow the locale.
local function after(id)
  for i = 1, math.min(#id, #member) do
    local x, y = string.byte(id, i), string.byte(member, i)
    if x ~= y then return x > y end
  end
  return #id > #member
end

local from = 0
if score then
  local to = redis.call('ZCARD', key)
  while from < to do
    local mid = math.floor((from + to) / 2)
    local at = redis.call('ZRANGE', key, mid, mid, 'WITHSCORES')
    local s = tonumber(at[2])
    if s > score or (s == score and after(at[1])) then to = mid else from = mid + 1 end
  end
end
local list = redis.call('ZRANGE', key, from, from + n - 1, 'WITHSCORES')
local answer, left = {}, tonumber(ARGV[2])
for i = 1, #list, 2 do
  left = left - redis.call('HSTRLEN', KEYS[2], list[i])
  if i > 1 and left < 0 then break end
  answer[#answer + 1] = list[i]
  answer[#answer + 1] = list[i + 1]
  local entry = redis.call('HGET', KEYS[2], list[i])
  answer[#answer + 1] = entry and '1' or ''
  answer[#answer + 1] = entry or ''
end
return answer
