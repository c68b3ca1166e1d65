-- record: KEYS[1] generation; ARGV: generation, number of days, for each day its
-- name, the least seconds to keep it, and a blob; then for each letter its id,
-- Unix milliseconds, outcome and text.
-- A blob is a sequence of: 3 bytes of the id's SHA-1, 1 byte length, 1 byte
-- outcome as a digit, the id.
-- Returns 'replaced', or the ids that it left for another call because it had
-- already moved enough.
local byte, sub, char, floor = string.byte, string.sub, string.char, math.floor
local FULL, MOVES, DEPTH, DELIVERED = 480, 1024, 20, '1'
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'replaced' end
local P = sub(KEYS[1], 1, -4)
local moved, final, left = 0, {}, {}

-- keep gives a key at least so many seconds. It never shortens.
local function keep(key, seconds)
  if redis.call('TTL', key) < seconds then redis.call('EXPIRE', key, seconds) end
end

local function write(key, fields, seconds)
  if #fields == 0 then return end
  redis.call('HSET', key, unpack(fields))
  keep(key, seconds)
end

-- split moves what a node holds to its two halves, and says so in the bitmap.
local function split(day, node, depth, seconds)
  local key = day .. ':' .. node
  seconds = math.max(seconds, redis.call('TTL', key))
  local all, halves = redis.call('HGETALL', key), { [0] = {}, {} }
  for i = 1, #all, 2 do
    local h = tonumber(sub(redis.sha1hex(all[i]), 1, 6), 16)
    local half = halves[floor(h / 2 ^ depth) % 2]
    half[#half + 1] = all[i]
    half[#half + 1] = all[i + 1]
  end
  write(day .. ':' .. 2 * node, halves[0], seconds)
  write(day .. ':' .. 2 * node + 1, halves[1], seconds)
  redis.call('SETBIT', day, node, 1)
  redis.call('DEL', key)
  -- The bitmap must outlive every half, by some time for rounding.
  keep(day, seconds + 3600)
  moved = moved + #all / 2
end

-- place writes the items of one node, and splits it first if it would grow too large.
local function place(day, node, depth, items, seconds)
  local key, ids = day .. ':' .. node, {}
  for i, item in ipairs(items) do ids[i] = item.id end
  local had = redis.call('HMGET', key, unpack(ids))
  local now, put, fresh = {}, {}, 0
  for i, item in ipairs(items) do
    local id, outcome = item.id, item.outcome
    local before = now[id] or had[i]
    if before and (before == DELIVERED or before == outcome) then
      now[id] = before
    else
      if not before then fresh = fresh + 1 end
      now[id], put[id] = outcome, outcome
    end
  end
  if fresh > 0 and depth < DEPTH and redis.call('HLEN', key) + fresh > FULL then
    if moved >= MOVES then
      for _, id in ipairs(ids) do left[#left + 1] = id end
      return
    end
    split(day, node, depth, seconds)
    local halves = { [0] = {}, {} }
    for _, item in ipairs(items) do
      local half = halves[floor(item.hash / 2 ^ depth) % 2]
      half[#half + 1] = item
    end
    for bit = 0, 1 do
      if #halves[bit] > 0 then place(day, 2 * node + bit, depth + 1, halves[bit], seconds) end
    end
    return
  end
  local fields = {}
  for id, outcome in pairs(put) do
    fields[#fields + 1] = id
    fields[#fields + 1] = outcome
  end
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
  keep(key, seconds)
  for id, outcome in pairs(now) do final[id] = outcome end
end

local a = 3
for _ = 1, tonumber(ARGV[2]) do
  local day, seconds, blob = P .. ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2]
  a = a + 3
  local route, groups, p, last = router(day), {}, 1, #blob
  while p < last do
    local h1, h2, h3, len, outcome = byte(blob, p, p + 4)
    local hash = h1 * 65536 + h2 * 256 + h3
    local node = route(hash)
    local items = groups[node]
    if not items then
      items = {}
      groups[node] = items
    end
    items[#items + 1] = { id = sub(blob, p + 5, p + 4 + len), hash = hash, outcome = char(outcome) }
    p = p + 5 + len
  end
  for node, items in pairs(groups) do
    local depth, n = 0, node
    while n > 1 do depth, n = depth + 1, floor(n / 2) end
    place(day, node, depth, items, seconds)
  end
end

local dead, parked, letters = P .. 'dead', P .. 'parked', P .. 'letters'
if redis.call('EXISTS', letters) == 1 then
  local gone = {}
  for id, outcome in pairs(final) do
    if outcome ~= '2' and outcome ~= '3' then gone[#gone + 1] = id end
  end
  if #gone > 0 and redis.call('HDEL', letters, unpack(gone)) > 0 then
    redis.call('ZREM', dead, unpack(gone))
    redis.call('ZREM', parked, unpack(gone))
  end
end
for i = a, #ARGV, 4 do
  local id, outcome = ARGV[i], ARGV[i + 2]
  if final[id] == outcome then
    redis.call('HSET', letters, id, ARGV[i + 3])
    redis.call('ZADD', outcome == '2' and dead or parked, ARGV[i + 1], id)
    redis.call('ZREM', outcome == '2' and parked or dead, id)
  end
end
return left
