-- lookup: KEYS[1] generation; ARGV: generation or '', then pairs of day and blob.
-- Reads only. Returns 'replaced', or for each blob a string with one digit for
-- each id in it: its outcome, or 0.
-- A blob is a sequence of: 3 bytes of the id's SHA-1, 1 byte length, the id.
local byte, sub = string.byte, string.sub
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'replaced' end
local P = sub(KEYS[1], 1, -4)
local reply = {}
for a = 2, #ARGV, 2 do
  local day, blob = P .. ARGV[a], ARGV[a + 1]
  local route = router(day)
  local groups, places, out, n, p, last = {}, {}, {}, 0, 1, #blob
  while p < last do
    local h1, h2, h3, len = byte(blob, p, p + 3)
    local node = route(h1 * 65536 + h2 * 256 + h3)
    local ids = groups[node]
    if not ids then
      ids = {}
      groups[node], places[node] = ids, {}
    end
    n = n + 1
    local k = #ids + 1
    ids[k] = sub(blob, p + 4, p + 3 + len)
    places[node][k] = n
    p = p + 4 + len
  end
  for node, ids in pairs(groups) do
    local place, found = places[node], redis.call('HMGET', day .. ':' .. node, unpack(ids))
    for k = 1, #ids do out[place[k]] = found[k] or '0' end
  end
  reply[#reply + 1] = table.concat(out)
end
return reply
