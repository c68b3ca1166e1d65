-- setmarks: KEYS: generation, sequence, lease, marks, binding; ARGV: generation,
-- sequence seen, token, marks, address or ''. A relay whose binding another one has taken
-- over must not store marks of its own Kong. The marks are stored after the sequence that
-- belongs to them. Returns 'ok' and the sequence, 'lost', or 'foreign' and the address.
local first = redis.call('MGET', unpack(KEYS, 1, 2))
local stop = guard(first[1], first[2], ARGV[1], ARGV[2])
if stop then return stop end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return { 'lost' } end
if ARGV[5] ~= '' then
  local to = redis.call('GET', KEYS[5])
  if to and to ~= ARGV[5] then return { 'foreign', to } end
  if not to then redis.call('SET', KEYS[5], ARGV[5]) end
end
local sequence = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[4], sequence .. ' ' .. ARGV[4])
return { 'ok', sequence }
