-- Exact decimal sums: Lua's numbers are doubles, which end at 2^53, so a sum is kept in limbs of seven digits. Terms are
-- added limb by limb without carrying (room for 9 x 10^8 terms); carries are settled once, when a sum is looked at.
local LIMB, DIGITS, PLACES = 10000000, 7, 12

-- Adds (sign 1) or takes away (sign -1) a plain decimal text with at most 12 decimal places, such as "-0.25".
local function add(sum, text, sign)
  local minus, whole, decimals = string.match(text, '^(%-?)(%d+)%.?(%d*)$')
  if minus == '-' then sign = -sign end
  local digits = whole .. decimals .. string.rep('0', PLACES - #decimals)
  local last, limb = #digits, 1
  while last > 0 do
    local first = math.max(1, last - DIGITS + 1)
    sum[limb] = (sum[limb] or 0) + sign * tonumber(string.sub(digits, first, last))
    limb, last = limb + 1, last - DIGITS
  end
end

-- Settles carries; returns limbs from 0 to 9999999 and what is carried out of the highest, which has the sum's sign.
local function settle(sum)
  local limbs, carry = {}, 0
  for index = 1, #sum do
    local value = sum[index] + carry
    limbs[index] = value % LIMB
    carry = (value - limbs[index]) / LIMB
  end
  return limbs, carry
end

local function is_negative(sum)
  local _, carry = settle(sum)
  return carry < 0
end

-- Returns the sum x 10^12 as the text of an integer.
local function scaled_text(sum)
  local sign = ''
  if is_negative(sum) then
    sign = '-'
    for index = 1, #sum do sum[index] = -sum[index] end
  end
  local limbs, carry = settle(sum)
  local digits = string.format('%.0f', carry)
  for index = #limbs, 1, -1 do digits = digits .. string.format('%07d', limbs[index]) end
  digits = string.gsub(digits, '^0+', '')
  return digits == '' and '0' or sign .. digits
end
