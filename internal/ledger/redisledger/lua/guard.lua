-- guard returns an answer if the ledger is not the one that the caller knows: it
-- has another generation, or its sequence is smaller than one that the caller has
-- seen. Before Begin the caller knows no generation.
local function guard(generation, sequence, known, seen)
  if known ~= '' and generation ~= known then return { 'replaced' } end
  if tonumber(sequence or '0') < tonumber(seen) then return { 'older' } end
end

-- keep makes a key live for at least so many seconds. It never shortens a life.
local function keep(key, seconds)
  if redis.call('TTL', key) < seconds then redis.call('EXPIRE', key, seconds) end
end
