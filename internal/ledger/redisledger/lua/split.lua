-- split: moves the ids of some buckets of a day to the nodes that are a number of levels
-- below each bucket, two nodes for one level and four for two, and notes in the day's
-- layout that the nodes above those are split. KEYS: generation, sequence,
-- layout, then for each bucket itself and the buckets below it, in the order of their
-- nodes; ARGV: generation, sequence seen, the layout as the caller knows it, the
-- number of levels, then for each bucket its node and its depth.
-- Returns 'ok', the sequence, and the layout; or 'layout' and the layout if it is
-- another one, and then nothing is written.
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
local layout = KEYS[3]
local now = redis.call('GET', layout) or ''
if now ~= ARGV[3] then return { 'layout', now } end
local levels = tonumber(ARGV[4])
local parts = 2 ^ levels
for i = 0, (#KEYS - 3) / (1 + parts) - 1 do
  local at = 4 + i * (1 + parts)
  local bucket, node, depth = KEYS[at], tonumber(ARGV[5 + 2 * i]), tonumber(ARGV[6 + 2 * i])
  local seconds = math.max(1, redis.call('TTL', bucket))
  local all, fields = redis.call('HGETALL', bucket), {}
  for part = 1, parts do fields[part] = {} end
  for f = 1, #all, 2 do
    local hash, part = math.floor(tonumber(string.sub(redis.sha1hex(all[f]), 1, 6), 16) / 2 ^ depth), 0
    for _ = 1, levels do
      part, hash = 2 * part + hash % 2, math.floor(hash / 2)
    end
    local to = fields[1 + part]
    to[#to + 1] = all[f]
    to[#to + 1] = all[f + 1]
  end
  for part = 1, parts do
    if #fields[part] > 0 then
      redis.call('HSET', KEYS[at + part], unpack(fields[part]))
      keep(KEYS[at + part], seconds)
    end
  end
  for level = 0, levels - 1 do
    for n = 0, 2 ^ level - 1 do redis.call('SETBIT', layout, node * 2 ^ level + n, 1) end
  end
  redis.call('DEL', bucket)
  keep(layout, seconds + 3600)
end
return { 'ok', redis.call('INCR', KEYS[2]), redis.call('GET', layout) }
