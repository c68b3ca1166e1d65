-- begin: KEYS: generation, sequence, marks; ARGV: a new generation, the generation
-- known, the sequence seen in it. Returns what became of the ledger, its
-- generation and its sequence: 'made', 'had', or 'older'. Marks without a
-- generation belong to no ledger. An older ledger, or marks that are younger than
-- the ledger, get a new generation, and the marks go: every relay starts over.
local found = redis.call('MGET', unpack(KEYS))
local generation, sequence, marks = found[1], tonumber(found[2] or '0'), found[3]
local did = 'had'
if not generation then
  did = 'made'
elseif generation == ARGV[2] and sequence < tonumber(ARGV[3])
    or marks and sequence < tonumber(string.match(marks, '^%d+') or '0') then
  did = 'older'
end
if did ~= 'had' then
  generation = ARGV[1]
  redis.call('SET', KEYS[1], generation)
  redis.call('DEL', KEYS[3])
  sequence = redis.call('INCR', KEYS[2])
end
return { did, generation, tostring(sequence) }
