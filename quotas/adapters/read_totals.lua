-- Reads live totals in one call and one answer: many small replies cost the caller more than the reading does.
-- KEYS: epoch and freshness marks (or neither, in a cluster, where they lie elsewhere), the totals asked for, then groups
-- of earlier periods, newest first. ARGV: 2 if the marks are there else 0, how many totals, a window's start in
-- microseconds, then the size of each group: of which the first counts whose levels were all set by that start.
-- Returns JSON: epoch, freshness, totals and earlier ones, each as a flat list of fields and values.
local marks, totals, start = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function read(key)
  local fields, kept = redis.call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    local kind = string.sub(fields[at], 1, 1)
    if kind == 'q' or kind == 'n' or kind == 'l' or kind == 't' then
      kept[#kept + 1] = fields[at]
      kept[#kept + 1] = fields[at + 1]
    end
  end
  return kept
end

local found = {}
for index = 1, totals do found[index] = read(KEYS[marks + index]) end
local position = marks + totals
for group = 4, #ARGV do
  local earlier = {}
  for index = position + 1, position + tonumber(ARGV[group]) do
    local fields = read(KEYS[index])
    local counts = #fields > 0
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, 1) == 't' and tonumber(fields[at + 1]) > start then counts = false end
    end
    if counts then
      earlier = fields
      break
    end
  end
  found[#found + 1] = earlier
  position = position + tonumber(ARGV[group])
end
if marks == 0 then return cjson.encode({{}, {}, found}) end
return cjson.encode({redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), found})
