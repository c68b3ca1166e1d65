-- begin: KEYS: generation, sequence, marks; ARGV: a new generation, the generation
-- known, the sequence seen in it. Returns 'ok' or 'older', the ledger's generation and its
-- sequence. Marks without a generation belong to no ledger. If the ledger is older than the
-- caller knows it, or its marks have a higher sequence than the ledger, the ledger gets a new
-- generation and loses the marks, so that every relay starts over.
local found = redis.call('MGET', unpack(KEYS))
local generation, sequence, marks = found[1], tonumber(found[2] or '0'), found[3]
local older = generation and (generation == ARGV[2] and sequence < tonumber(ARGV[3])
  or marks and sequence < tonumber(string.match(marks, '^%d+') or '0'))
if older or not generation then
  generation = ARGV[1]
  redis.call('SET', KEYS[1], generation)
  redis.call('DEL', KEYS[3])
  sequence = redis.call('INCR', KEYS[2])
end
return { older and 'older' or 'ok', generation, tostring(sequence) }
