-- begin: KEYS[1] generation, KEYS[2] marks; ARGV: a new generation.
-- Returns the generation. Marks without a generation belong to no ledger.
local generation = redis.call('GET', KEYS[1])
if not generation then
  generation = ARGV[1]
  redis.call('SET', KEYS[1], generation)
  redis.call('DEL', KEYS[2])
end
return generation
