-- Sets absolute period totals of one tenant, each only if its version is newer; replaying changes nothing.
-- KEYS: quota keys of one tenant (one slot). ARGV: source partition, version, received ms, time to live in seconds,
-- then per key: segment, quantity (decimal text), events, aggregation, level (decimal text), level's time in
-- microseconds ("0" for meters without one). Returns how many were newer.
local partition, version, at, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local newer = 0
for i, key in ipairs(KEYS) do
  local base = 4 + (i - 1) * 6
  local field = partition .. ':' .. ARGV[base + 1]
  local stored = redis.call('HGET', key, 'v' .. field)
  if not stored or tonumber(stored) < version then
    redis.call('HSET', key, 'q' .. field, ARGV[base + 2], 'n' .. field, ARGV[base + 3], 'v' .. field, ARGV[2],
      'a', ARGV[base + 4], 'at', at)
    if ARGV[base + 6] ~= '0' then
      redis.call('HSET', key, 'l' .. field, ARGV[base + 5], 't' .. field, ARGV[base + 6])
    end
    redis.call('EXPIRE', key, ttl)
    newer = newer + 1
  end
end
return newer
