-- The ids of a day are in hashes of at most 192 fields: Redis packs hashes of up
-- to 512, but walks a packed one from end to end, and more would cost more time
-- than they save memory. A hash that would grow past that is split by a bit of each id's SHA-1: node 1 is the whole day, and nodes 2n and
-- 2n+1 are the halves of node n. A bitmap at the day's own key says which nodes
-- are split; a day that never split has none.
--
-- router returns a function that finds the node of a hash of 24 bits.
local function router(day)
  local dir = redis.call('GET', day)
  if not dir then return function() return 1 end end
  local floor, byte = math.floor, string.byte
  local modulus, size = 1, 8 * #dir
  while modulus < size do modulus = modulus * 2 end
  local known = {}
  return function(h)
    local low = h % modulus
    local node = known[low]
    if node then return node end
    node = 1
    while node < size and floor(byte(dir, floor(node / 8) + 1) / 2 ^ (7 - node % 8)) % 2 == 1 do
      local bit = h % 2
      node, h = 2 * node + bit, (h - bit) / 2
    end
    known[low] = node
    return node
  end
end
