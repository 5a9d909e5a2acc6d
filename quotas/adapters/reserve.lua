-- Reservations of one tenant and meter: hold, commit, release, in one call on the server's own time. `exact.lua` is put
-- before this text.
-- KEYS: loaded mark, held (hash: reservation -> state|amount|identity), expiry (sorted set by milliseconds), awaited
-- (hash: identity -> meter|reservation), taken (sorted set), then the live totals that the limit counts.
-- ARGV: verb, reservation, meter, amount (decimal text), until (milliseconds from now for a hold, since 1970 for a
-- commit), identity (hexadecimal), ceiling (decimal text, "" for none), most reservations there may be.
-- Returns outcome, used x 10^12, held x 10^12 (others and this one), expiry in milliseconds.
-- States: "g" was granted here; "u" came from the books after a wipe, where what Redis had decided is not known.
local loaded, held, expiry, awaited, taken = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local verb, reservation, meter, amount, identity, ceiling = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[7]

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('GET', loaded) ~= run then return {'not_loaded', '0', '0', 0} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function drop(name)
  local value = redis.call('HGET', held, name)
  if value then
    local known = string.match(value, '([^|]*)$')
    redis.call('HDEL', held, name)
    if known ~= '' then redis.call('HDEL', awaited, known) end
  end
  redis.call('ZREM', expiry, name)
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', now)) do drop(name) end
redis.call('ZREMRANGEBYSCORE', taken, '-inf', now)

local mine = redis.call('HGET', held, reservation)
local state = mine and string.sub(mine, 1, 1)

local function answer(outcome, ends)
  local sum_used, sum_held = {0}, {0}
  for index = 6, #KEYS do
    local fields = redis.call('HGETALL', KEYS[index])
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, 1) == 'q' then add(sum_used, fields[at + 1], 1) end
    end
  end
  for _, value in ipairs(redis.call('HVALS', held)) do add(sum_held, string.match(value, '|(.-)|'), 1) end
  return {outcome, scaled_text(sum_used), scaled_text(sum_held), ends}
end

local function keep(ends)
  redis.call('HSET', held, reservation, 'g|' .. amount .. '|' .. identity)
  redis.call('ZADD', expiry, ends, reservation)
  redis.call('HSET', awaited, identity, meter .. '|' .. reservation)
end

if verb == 'look' then return answer('looked', 0) end

if verb == 'release' then
  drop(reservation)
  return answer('released', 0)
end

if redis.call('ZSCORE', taken, reservation) then return answer('taken', 0) end

if verb == 'commit' then
  if not mine then return answer('gone', 0) end
  local ends = math.max(tonumber(ARGV[5]), tonumber(redis.call('ZSCORE', expiry, reservation)))
  keep(ends)
  return answer('committed', ends)
end

-- hold
if state == 'g' then return answer('granted', tonumber(redis.call('ZSCORE', expiry, reservation))) end
if state == 'u' then drop(reservation) end
if redis.call('HLEN', held) >= tonumber(ARGV[8]) then return answer('too_many', 0) end
if ceiling ~= '' then
  local room = {0}
  add(room, ceiling, 1)
  add(room, amount, -1)
  for _, value in ipairs(redis.call('HVALS', held)) do add(room, string.match(value, '|(.-)|'), -1) end
  for index = 6, #KEYS do
    local fields = redis.call('HGETALL', KEYS[index])
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, 1) == 'q' then add(room, fields[at + 1], -1) end
    end
  end
  if is_negative(room) then return answer('refused', 0) end
end
local ends = now + tonumber(ARGV[5])
keep(ends)
return answer('granted', ends)
