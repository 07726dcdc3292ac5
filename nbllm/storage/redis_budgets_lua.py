"""The scripts of the budgets on Redis. Amounts are decimal strings of picodollars throughout.

Numbers in Lua are doubles, exact up to 2^53 picodollars, which is 9,007 USD: so sums are added and compared as strings, nine digits
at a time, and written by HINCRBY, which counts in 64-bit integers. What would not fit there stays at the largest.
"""

from __future__ import annotations

from nbllm.storage.redis_link import NOW, Script

_MONEY = (
    NOW
    + """
local P = ARGV[1]
local MOST = '9223372036854775807'
local function cmp(a, b)
  if #a ~= #b then return #a < #b and -1 or 1 end
  if a == b then return 0 end
  return a < b and -1 or 1
end
local function sum(a, b)
  local r, carry = '', 0
  while #a > 0 or #b > 0 do
    local x = (tonumber(string.sub(a, -9)) or 0) + (tonumber(string.sub(b, -9)) or 0) + carry
    a, b = string.sub(a, 1, -10), string.sub(b, 1, -10)
    carry = x >= 1000000000 and 1 or 0
    r = string.format('%09d', x - carry * 1000000000) .. r
  end
  r = string.gsub(carry .. r, '^0+', '')
  return r == '' and '0' or r
end
local function add(name, field, amount)
  if amount == '0' or amount == '-0' then return end
  local done = redis.pcall('HINCRBY', P .. 'scope:' .. name, field, amount)
  if type(done) == 'table' and done.err then redis.call('HSET', P .. 'scope:' .. name, field, MOST) end
end
local function balance(name)
  local found = redis.call('HMGET', P .. 'scope:' .. name, 'spent', 'reserved')
  return {found[1] or '0', found[2] or '0'}
end
local function keep(name, ttl_s)
  if ttl_s ~= '' then redis.call('EXPIRE', P .. 'scope:' .. name, ttl_s) end
end
local function drop(id)
  local held = redis.call('LRANGE', P .. 'held:' .. id, 0, -1)
  if #held == 0 then return nil end
  for i = 3, #held do add(held[i], 'reserved', '-' .. held[1]) end
  redis.call('DEL', P .. 'held:' .. id)
  redis.call('SREM', P .. 'of:' .. held[2], id)
  return held
end
local function alive(token, now, life_s)
  redis.call('ZADD', P .. 'alive', string.format('%.3f', now + life_s), token)
end
"""
)

RESERVE = Script(
    _MONEY
    + """
local token, id, amount, life_s = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now, step = clock(''), 5
local refused, found = 0, {}
alive(token, now, life_s)
for i = 6, #ARGV, step do
  local name, known = ARGV[i], ARGV[i + 4]
  local now_has = balance(name)
  if cmp(now_has[1], known) < 0 then
    redis.call('HSET', P .. 'scope:' .. name, 'spent', known)
    keep(name, ARGV[i + 3])
    now_has[1] = known
  end
  found[#found + 1] = now_has
end
if redis.call('EXISTS', P .. 'held:' .. id, P .. 'settled:' .. id) > 0 then return {0, found} end
for i = 6, #ARGV, step do
  local room, full, has = ARGV[i + 1], ARGV[i + 2], found[(i - 6) / step + 1]
  if room ~= '' and (room == '-' or cmp(sum(has[1], has[2]), room) > 0 or cmp(has[1], full) >= 0) then
    return {(i - 6) / step + 1, found}
  end
end
redis.call('RPUSH', P .. 'held:' .. id, amount, token)
redis.call('SADD', P .. 'of:' .. token, id)
local seen = {}
for i = 6, #ARGV, step do
  local name = ARGV[i]
  if not seen[name] then
    seen[name] = true
    add(name, 'reserved', amount)
    keep(name, ARGV[i + 3])
    redis.call('RPUSH', P .. 'held:' .. id, name)
  end
end
for i = 6, #ARGV, step do found[(i - 6) / step + 1] = balance(ARGV[i]) end
return {0, found}
"""
)
"""ARGV: prefix, token, id, amount, life_s; then for each scope: name, what may be held already ('' any, '-' nothing), what must not
be spent yet, seconds to keep, what was spent when this process last looked (a Redis that lost its data is told)."""

SETTLE = Script(
    _MONEY
    + """
local id, cost, kept_s = ARGV[2], ARGV[3], ARGV[4]
local settled = redis.call('GET', P .. 'settled:' .. id)
local more = {}
if not settled then
  drop(id)
  more = {cost}
elseif string.sub(settled, 1, 1) == 's' then
  local booked = string.sub(settled, 2)
  if cmp(cost, booked) > 0 then more = {cost, '-' .. booked} end
end
if #more > 0 then
  for i = 5, #ARGV, 2 do
    for _, amount in ipairs(more) do add(ARGV[i], 'spent', amount) end
    keep(ARGV[i], ARGV[i + 1])
  end
end
redis.call('SET', P .. 'settled:' .. id, '1', 'EX', kept_s)
local found = {}
for i = 5, #ARGV, 2 do found[#found + 1] = balance(ARGV[i]) end
return found
"""
)
"""ARGV: prefix, id, cost, seconds to remember the id; then for each scope: name, seconds to keep. Of a reservation that was booked
in full, because its process seemed dead, only what it cost beyond that is added."""

BOOK = Script(
    _MONEY
    + """
if redis.call('SET', P .. 'settled:' .. ARGV[2], '1', 'NX', 'EX', ARGV[3]) then
  for i = 4, #ARGV, 3 do
    add(ARGV[i], 'spent', ARGV[i + 1])
    keep(ARGV[i], ARGV[i + 2])
  end
end
return 1
"""
)
"""ARGV: prefix, an id of this booking, seconds to remember it; then for each scope: name, amount, seconds to keep."""

BALANCE = Script(
    _MONEY
    + """
local found = {}
for i = 2, #ARGV do found[#found + 1] = balance(ARGV[i]) end
return found
"""
)

BEAT = Script(_MONEY + "alive(ARGV[2], clock(''), tonumber(ARGV[3])) return 1")

SWEEP = Script(
    _MONEY
    + """
local now, count = clock(''), 0
for _, token in ipairs(redis.call('ZRANGEBYSCORE', P .. 'alive', '-inf', '(' .. string.format('%.3f', now), 'LIMIT', 0, 20)) do
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'of:' .. token)) do
    local held = drop(id)
    if held then
      for i = 3, #held do add(held[i], 'spent', held[1]) end
      redis.call('SET', P .. 'settled:' .. id, 's' .. held[1], 'EX', ARGV[2])
      count = count + 1
    end
  end
  redis.call('DEL', P .. 'of:' .. token)
  redis.call('ZREM', P .. 'alive', token)
end
return count
"""
)
"""ARGV: prefix, seconds to remember. Reservations of processes that gave no sign of life are spent in full."""
