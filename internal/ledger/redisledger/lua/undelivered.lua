-- undelivered: KEYS[1] dead or deferred; ARGV: most to return, milliseconds and id to
-- go on after, or nothing. Returns id and milliseconds in turn, oldest first.
-- Reads only, and holds its place when entries come or go between two calls.
local key, n, score, member = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

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
return redis.call('ZRANGE', key, from, from + n - 1, 'WITHSCORES')
