-- lookup: KEYS: generation, sequence, layout of each day, buckets; ARGV: generation
-- or '', sequence seen, number of days, the layouts as the caller knows them, then
-- for each bucket the number of its ids, and the ids. Only reads.
-- Returns 'ok', the sequence, and one digit for each id: its outcome, or 0.
-- Returns 'layout' and the layouts if the caller must choose other buckets.
local days = tonumber(ARGV[3])
local first = redis.call('MGET', unpack(KEYS, 1, 2 + days))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
for i = 1, days do
  if (first[2 + i] or '') ~= ARGV[3 + i] then
    local answer = { 'layout' }
    for k = 1, days do answer[1 + k] = first[2 + k] or '' end
    return answer
  end
end
local out, n, a = {}, 0, 4 + days
for k = 3 + days, #KEYS do
  local count = tonumber(ARGV[a])
  local found = redis.call('HMGET', KEYS[k], unpack(ARGV, a + 1, a + count))
  for i = 1, count do out[n + i] = found[i] or '0' end
  n, a = n + count, a + count + 1
end
return { 'ok', first[2] or '0', table.concat(out) }
