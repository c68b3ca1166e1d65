-- record: KEYS[1] generation; ARGV: generation, number of days, for each day its
-- name, the least seconds to keep it, and a blob; then for each undelivered entry its id,
-- Unix milliseconds, outcome and text.
-- A blob is a sequence of: 3 bytes of the id's SHA-1, 1 byte length, 1 byte
-- outcome as a digit, the id.
-- Returns 'replaced', or the ids that it left for another call because it had
-- already moved enough.
local byte, sub, floor = string.byte, string.sub, math.floor
local FULL, MOVES, DEPTH, DELIVERED = 192, 1024, 20, '1'
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'replaced' end
local P = sub(KEYS[1], 1, -4)
local DIGITS = { '0', '1', '2', '3', '4', '5' }
local moved, final, left = 0, {}, {}
local ids, hashes, outcomes -- of the day at hand

-- keep gives a key at least so many seconds. It never shortens.
local function keep(key, seconds)
  if redis.call('TTL', key) < seconds then redis.call('EXPIRE', key, seconds) end
end

-- insert writes fields of which there are not too many.
local function insert(key, fields, seconds)
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
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
  insert(day .. ':' .. 2 * node, halves[0], seconds)
  insert(day .. ':' .. 2 * node + 1, halves[1], seconds)
  redis.call('SETBIT', day, node, 1)
  redis.call('DEL', key)
  -- The bitmap must outlive every half, by some time for rounding.
  keep(day, seconds + 3600)
  moved = moved + #all / 2
end

-- place writes some ids of one node, after splitting it if it would grow too
-- large. items are places in ids, hashes and outcomes.
local function place(day, node, depth, items, seconds)
  local key, plain, fields = day .. ':' .. node, true, {}
  for i, at in ipairs(items) do
    fields[2 * i - 1], fields[2 * i] = ids[at], outcomes[at]
    plain = plain and outcomes[at] == DELIVERED
  end
  local size = redis.call('HLEN', key)
  if plain and (size + #items <= FULL or depth == DEPTH) then -- the most frequent case: nothing to look up
    insert(key, fields, seconds)
    for _, at in ipairs(items) do final[ids[at]] = DELIVERED end
    return
  end
  local names = {}
  for i, at in ipairs(items) do names[i] = ids[at] end
  local had, now, put, fresh = redis.call('HMGET', key, unpack(names)), {}, {}, 0
  for i, at in ipairs(items) do
    local id, outcome = ids[at], outcomes[at]
    local before = now[id] or had[i]
    if before == DELIVERED or before == outcome then
      now[id] = before
    else
      if not before then fresh = fresh + 1 end
      now[id], put[id] = outcome, outcome
    end
  end
  if fresh > 0 and depth < DEPTH and size + fresh > FULL then
    if moved >= MOVES then
      for _, id in ipairs(names) do left[#left + 1] = id end
      return
    end
    split(day, node, depth, seconds)
    local halves = { [0] = {}, {} }
    for _, at in ipairs(items) do
      local half = halves[floor(hashes[at] / 2 ^ depth) % 2]
      half[#half + 1] = at
    end
    for bit = 0, 1 do
      if #halves[bit] > 0 then place(day, 2 * node + bit, depth + 1, halves[bit], seconds) end
    end
    return
  end
  fields = {}
  for id, outcome in pairs(put) do
    fields[#fields + 1] = id
    fields[#fields + 1] = outcome
  end
  insert(key, fields, seconds)
  for id, outcome in pairs(now) do final[id] = outcome end
end

local a = 3
for _ = 1, tonumber(ARGV[2]) do
  local day, seconds, blob = P .. ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2]
  a = a + 3
  local route, groups, p, n, last = router(day), {}, 1, 0, #blob
  ids, hashes, outcomes = {}, {}, {}
  while p < last do
    local h1, h2, h3, len, outcome = byte(blob, p, p + 4)
    n = n + 1
    ids[n], outcomes[n] = sub(blob, p + 5, p + 4 + len), DIGITS[outcome - 47]
    hashes[n] = h1 * 65536 + h2 * 256 + h3
    p = p + 5 + len
    local node = route(hashes[n])
    local items = groups[node]
    if items then items[#items + 1] = n else groups[node] = { n } end
  end
  for node, items in pairs(groups) do
    local depth, up = 0, node
    while up > 1 do depth, up = depth + 1, floor(up / 2) end
    place(day, node, depth, items, seconds)
  end
end

local dead, deferred, entries = P .. 'dead', P .. 'deferred', P .. 'undelivered'
if redis.call('EXISTS', entries) == 1 then
  local gone = {}
  for id, outcome in pairs(final) do
    if outcome ~= '2' and outcome ~= '3' then gone[#gone + 1] = id end
  end
  if #gone > 0 and redis.call('HDEL', entries, unpack(gone)) > 0 then
    redis.call('ZREM', dead, unpack(gone))
    redis.call('ZREM', deferred, unpack(gone))
  end
end
for i = a, #ARGV, 4 do
  local id, outcome = ARGV[i], ARGV[i + 2]
  if final[id] == outcome then
    redis.call('HSET', entries, id, ARGV[i + 3])
    redis.call('ZADD', outcome == '2' and dead or deferred, ARGV[i + 1], id)
    redis.call('ZREM', outcome == '2' and deferred or dead, id)
  end
end
return left
