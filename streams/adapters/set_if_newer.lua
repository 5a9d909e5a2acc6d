-- Sets absolute period totals of one tenant, each only if its version is newer; replaying changes nothing.
-- KEYS: quota keys of one tenant (one slot). ARGV: field suffix base (source partition), version, received ms, time to
-- live in seconds, then per key: segment, quantity (decimal text), events. Returns how many were newer.
local partition, version, at, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local newer = 0
for i, key in ipairs(KEYS) do
  local base = 4 + (i - 1) * 3
  local field = partition .. ':' .. ARGV[base + 1]
  local stored = redis.call('HGET', key, 'v' .. field)
  if not stored or tonumber(stored) < version then
    redis.call('HSET', key, 'q' .. field, ARGV[base + 2], 'n' .. field, ARGV[base + 3], 'v' .. field, ARGV[2], 'at', at)
    redis.call('EXPIRE', key, ttl)
    newer = newer + 1
  end
end
return newer
