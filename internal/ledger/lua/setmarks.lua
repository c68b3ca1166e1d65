-- setmarks: KEYS: generation, lease, marks, binding; ARGV: generation, token,
-- marks, address or ''. A relay that was bound before another one took over the
-- binding must not hand it marks of its own Kong.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'replaced' end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'lost' end
if ARGV[4] ~= '' then
  local to = redis.call('GET', KEYS[4])
  if to and to ~= ARGV[4] then return to end
  if not to then redis.call('SET', KEYS[4], ARGV[4]) end
end
redis.call('SET', KEYS[3], ARGV[3])
return 'ok'
