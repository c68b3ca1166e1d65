-- record: KEYS: generation, sequence, undelivered, dead, deferred, layout of each
-- day, buckets; ARGV: generation, sequence seen, number of days, for each day its
-- layout as the caller knows it and the least seconds to keep it, then for each
-- bucket the number of its ids, seconds to keep it, the most fields it may have, the
-- outcome if all have the same, else '', the ids, and else the outcomes; then for
-- each undelivered entry its id, Unix milliseconds, outcome and text.
-- Returns 'ok', the sequence, and the numbers, from 0, of the buckets that it left
-- out because they are full. Returns 'layout' and the layouts if the caller must
-- choose other buckets; then nothing is written.
local DELIVERED, DEAD, DEFERRED = '1', '2', '3'
local days = tonumber(ARGV[3])
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
local layouts, changed = { 'layout' }, false
for i = 1, days do
  layouts[1 + i] = redis.call('GET', KEYS[5 + i]) or ''
  changed = changed or layouts[1 + i] ~= ARGV[2 + 2 * i]
end
if changed then return layouts end
for i = 1, days do
  -- A layout must outlive every bucket. The hour is more than rounding can cost.
  if layouts[1 + i] ~= '' then keep(KEYS[5 + i], tonumber(ARGV[3 + 2 * i]) + 3600) end
end

local undelivered, dead, deferred = KEYS[3], KEYS[4], KEYS[5]
local stored = redis.call('EXISTS', undelivered, dead, deferred) > 0
local final, full = {}, {} -- id to outcome

-- place writes the ids that are in ARGV at the indexes from to to. same is their outcome,
-- or '' if their outcomes follow them. It reports whether there was room.
local function place(key, from, to, seconds, most, same)
  local size, count = redis.call('HLEN', key), to - from + 1
  if same == DELIVERED and size + count <= most then -- the most frequent case: nothing to look up
    local fields = {}
    for i = 1, count do fields[2 * i - 1], fields[2 * i] = ARGV[from + i - 1], DELIVERED end
    redis.call('HSET', key, unpack(fields))
    if stored then
      for i = from, to do final[ARGV[i]] = DELIVERED end
    end
    keep(key, seconds)
    return true
  end
  local had, now, put, fresh = redis.call('HMGET', key, unpack(ARGV, from, to)), {}, {}, 0
  for i = 1, count do
    local id, outcome = ARGV[from + i - 1], same
    if same == '' then outcome = ARGV[to + i] end
    local before = now[id] or had[i]
    if before == DELIVERED or before == outcome then
      now[id] = before
    else
      if not before then fresh = fresh + 1 end
      now[id], put[id] = outcome, outcome
    end
  end
  if fresh > 0 and size + fresh > most then return false end
  local fields = {}
  for id, outcome in pairs(put) do
    fields[#fields + 1] = id
    fields[#fields + 1] = outcome
  end
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
  for id, outcome in pairs(now) do final[id] = outcome end
  keep(key, seconds)
  return true
end

local a = 4 + 2 * days
for k = 6 + days, #KEYS do
  local count, same = tonumber(ARGV[a]), ARGV[a + 3]
  local to = a + 3 + count
  if not place(KEYS[k], a + 4, to, tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), same) then
    full[#full + 1] = k - 6 - days
  end
  a = to + 1
  if same == '' then a = a + count end
end

if stored then
  local gone = {}
  for id, outcome in pairs(final) do
    if outcome ~= DEAD and outcome ~= DEFERRED then gone[#gone + 1] = id end
  end
  if #gone > 0 then -- an entry that was lost has left its place in the lists
    redis.call('HDEL', undelivered, unpack(gone))
    redis.call('ZREM', dead, unpack(gone))
    redis.call('ZREM', deferred, unpack(gone))
  end
end
for i = a, #ARGV, 4 do
  local id, outcome = ARGV[i], ARGV[i + 2]
  if final[id] == outcome then
    redis.call('HSET', undelivered, id, ARGV[i + 3])
    redis.call('ZADD', outcome == DEAD and dead or deferred, ARGV[i + 1], id)
    redis.call('ZREM', outcome == DEAD and deferred or dead, id)
  end
end
return { 'ok', redis.call('INCR', KEYS[2]), unpack(full) }
