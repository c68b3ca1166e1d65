-- split moves what some buckets of a day hold to their two halves each, and notes
-- that in the day's layout. KEYS: generation, sequence, layout, then for each
-- bucket itself and its halves; ARGV: generation, sequence seen, the layout as the
-- caller knows it, then for each bucket its node and its depth.
-- Returns 'ok', the sequence, and the layout; or 'layout' and the layout if it is
-- another one, and then nothing is written.
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
local layout = KEYS[3]
local now = redis.call('GET', layout) or ''
if now ~= ARGV[3] then return { 'layout', now } end
for i = 0, (#KEYS - 3) / 3 - 1 do
  local bucket, node, depth = KEYS[4 + 3 * i], ARGV[4 + 2 * i], tonumber(ARGV[5 + 2 * i])
  local seconds = math.max(1, redis.call('TTL', bucket))
  local all, halves = redis.call('HGETALL', bucket), { {}, {} }
  for f = 1, #all, 2 do
    local hash = tonumber(string.sub(redis.sha1hex(all[f]), 1, 6), 16)
    local half = halves[1 + math.floor(hash / 2 ^ depth) % 2]
    half[#half + 1] = all[f]
    half[#half + 1] = all[f + 1]
  end
  for h = 1, 2 do
    local key = KEYS[4 + 3 * i + h]
    if #halves[h] > 0 then
      redis.call('HSET', key, unpack(halves[h]))
      keep(key, seconds)
    end
  end
  redis.call('SETBIT', layout, node, 1)
  redis.call('DEL', bucket)
  keep(layout, seconds + 3600)
end
return { 'ok', redis.call('INCR', KEYS[2]), redis.call('GET', layout) }
