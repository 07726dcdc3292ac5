"""The scripts of the jobs on Redis. Each may be sent twice: the second time changes nothing.

job:ID is the row, a hash. queue: those that wait, by priority and lapses (score), then by number (member NUMBER:ID). leases: until
when, on Redis's clock, who runs one may run it. ends: when rows are forgotten. hooks: when webhooks are due. waits: those
that wait, by when they were made. of:HASH: the jobs of a
caller for a flow, by number. kept_of: bytes that the jobs of a caller hold. told: when a worker was told of those that wait. Times
of rows are Redis's (now: '', unless a test gives one); texts that may be missing come as '' or '=TEXT'.

Workers are told of a job only while fewer messages lie in their list than jobs wait (`short`). Each message has a worker take the
next job, so as many as there are jobs do; more would grow without bound while nobody takes them.
"""

from __future__ import annotations

from dataclasses import fields

from nbllm.service.job_store import ROW_BYTES, UNSHOWN
from nbllm.service.ports import Job
from nbllm.storage.redis_link import NOW, Script

_SHOWN = ", ".join(f"'{field.name}'" for field in fields(Job) if field.name not in UNSHOWN)
_JOBS = (
    NOW
    + f"local ROW_BYTES = {ROW_BYTES}\nlocal SHOWN = {{{_SHOWN}}}\n"
    + """
local P = ARGV[1]
local function at(given, in_s) return string.format('%.6f', clock(given) + (in_s or 0)) end
local function key(id) return P .. 'job:' .. id end
local function get(id, ...) return redis.call('HMGET', key(id), ...) end
local function row(id) return redis.call('HGETALL', key(id)) end
local function keep(id, bytes)
  local r = get(id, 'kept', 'caller')
  redis.call('HSET', key(id), 'kept', bytes)
  if redis.call('HINCRBY', P .. 'kept_of', r[2], bytes - (r[1] or 0)) <= 0 then redis.call('HDEL', P .. 'kept_of', r[2]) end
end
local function turn(id, from, to)
  redis.call('HSET', key(id), 'status', to)
  if from then redis.call('HINCRBY', P .. 'counts', from, -1) end
  redis.call('HINCRBY', P .. 'counts', to, 1)
end
local function place(id)
  local r = get(id, 'priority', 'lapses', 'seq', 'caller')
  return r[2] - r[1] * 1024, string.format('%016d', r[3]) .. ':' .. id, r[4]
end
local function enqueue(id, from)
  turn(id, from, 'queued')
  redis.call('HDEL', key(id), 'started_at')
  local score, member, caller = place(id)
  redis.call('ZADD', P .. 'queue', score, member)
  redis.call('ZADD', P .. 'waits', get(id, 'created_at')[1], id)
  redis.call('HINCRBY', P .. 'queued_of', caller, 1)
  redis.call('ZREM', P .. 'leases', id)
end
local function dequeue(id)
  local _, member, caller = place(id)
  redis.call('ZREM', P .. 'queue', member)
  redis.call('ZREM', P .. 'told', id)
  redis.call('ZREM', P .. 'waits', id)
  if redis.call('HINCRBY', P .. 'queued_of', caller, -1) <= 0 then redis.call('HDEL', P .. 'queued_of', caller) end
end
local function short() return redis.call('ZCARD', P .. 'queue') - redis.call('LLEN', KEYS[1]) end
local function finish(id, from, to, now, expires, result, problem)
  if from == 'queued' then dequeue(id) end
  turn(id, from, to)
  redis.call('HSET', key(id), 'finished_at', now, 'expires_at', expires, 'arguments', '')
  keep(id, ROW_BYTES + #result + #problem)
  if result ~= '' then redis.call('HSET', key(id), 'result', string.sub(result, 2)) end
  if problem ~= '' then redis.call('HSET', key(id), 'problem', string.sub(problem, 2)) end
  redis.call('ZADD', P .. 'ends', expires, id)
  redis.call('ZREM', P .. 'leases', id)
  if get(id, 'webhook')[1] then redis.call('ZADD', P .. 'hooks', now, id) end
end
local function mine(id, fencing)
  local r = get(id, 'status', 'fencing', 'cancel_requested')
  return r[1] == 'running' and r[2] == fencing, r[3] == '1'
end
"""
)

ADD = Script(
    _JOBS
    + """
local id, caller, list, most, most_mine = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local most_kept, size = tonumber(ARGV[7]), ROW_BYTES + tonumber(ARGV[8])
if redis.call('EXISTS', key(id)) == 1 then return {row(id), short()} end
if redis.call('ZCARD', P .. 'queue') >= most then return 'full' end
if tonumber(redis.call('HGET', P .. 'queued_of', caller) or '0') >= most_mine then return 'mine' end
if tonumber(redis.call('HGET', P .. 'kept_of', caller) or '0') + size > most_kept then return 'kept' end
local number = redis.call('INCR', P .. 'seq')
redis.call('HSET', key(id), 'job_id', id, 'caller', caller, 'seq', number, 'attempts', 0, 'lapses', 0, 'cancel_requested', 0)
redis.call('HSET', key(id), 'created_at', at(ARGV[9]))
for i = 10, #ARGV, 2 do redis.call('HSET', key(id), ARGV[i], ARGV[i + 1]) end
keep(id, size)
redis.call('ZADD', P .. 'of:' .. list, number, id)
redis.call('HSET', key(id), 'list', list)
enqueue(id, nil)
return {row(id), short()}
"""
)
"""KEYS: the list of messages. ARGV: prefix, id, caller, hash of caller and flow, most queued, most of this caller, most bytes that
its jobs may hold, bytes of the arguments, now; then names and values of the row. Returns it, and how many messages are missing."""

LIST = Script(
    _JOBS
    + """
local caller, list, before, limit = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local from = '+inf'
if before ~= '' then
  local r = get(before, 'caller', 'seq')
  if r[1] ~= caller then return {} end
  from = '(' .. r[2]
end
local found = {}
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', P .. 'of:' .. list, from, '-inf', 'LIMIT', 0, limit)) do
  local shown, values = {}, get(id, unpack(SHOWN))
  for i, name in ipairs(SHOWN) do
    if values[i] then shown[#shown + 1] = name; shown[#shown + 1] = values[i] end
  end
  found[#found + 1] = shown
end
return found
"""
)
"""ARGV: prefix, caller, hash of caller and flow, a job's id or '', how many."""

CLAIM = Script(
    _JOBS
    + """
local nonce, wanted, lease_s, now = ARGV[2], ARGV[3], tonumber(ARGV[4]), at(ARGV[5])
local before = redis.call('GET', P .. 'claim:' .. nonce)
if before then return row(before) end
local id = wanted
if id == '' then
  repeat
    local first = redis.call('ZRANGE', P .. 'queue', 0, 0)[1]
    if not first then return false end
    id = string.sub(first, 18)
    local there = redis.call('EXISTS', key(id)) == 1
    if not there then
      redis.call('ZREM', P .. 'queue', first)
      redis.call('ZREM', P .. 'waits', id)
      redis.call('ZREM', P .. 'told', id)
    end
  until there
elseif get(id, 'status')[1] ~= 'queued' then
  return false
end
dequeue(id)
turn(id, 'queued', 'running')
redis.call('HSET', key(id), 'fencing', fence(KEYS[1]), 'started_at', now)
redis.call('HINCRBY', key(id), 'attempts', 1)
redis.call('ZADD', P .. 'leases', string.format('%.3f', clock('') + lease_s), id)
redis.call('SET', P .. 'claim:' .. nonce, id, 'EX', 10)
return row(id)
"""
)
"""KEYS: the counter of fencing numbers. ARGV: prefix, an id of this asking, a job's id or '' for the next, seconds, now."""

RENEW = Script(
    _JOBS
    + """
local held, cancel = mine(ARGV[2], ARGV[3])
if not held then return 'lost' end
redis.call('ZADD', P .. 'leases', string.format('%.3f', clock('') + tonumber(ARGV[4])), ARGV[2])
return cancel and 'cancel' or 'held'
"""
)
"""ARGV: prefix, id, fencing, seconds."""

FINISH = Script(
    _JOBS
    + """
local id, fencing, to, now, expires, nonce = ARGV[2], ARGV[3], ARGV[4], at(ARGV[5]), at(ARGV[5], ARGV[6]), ARGV[9]
local held = mine(id, fencing)
if not held then return get(id, 'end')[1] == nonce and 1 or 0 end
finish(id, 'running', to, now, expires, ARGV[7], ARGV[8])
redis.call('HSET', key(id), 'end', nonce)
return 1
"""
)
"""ARGV: prefix, id, fencing, status, now, for how many seconds it is kept, result, problem, an id of this asking."""

BACK = Script(
    _JOBS
    + """
local id, fencing, nonce = ARGV[2], ARGV[3], ARGV[6]
local held, cancel = mine(id, fencing)
if not held then return {get(id, 'end')[1] == nonce and 1 or 0, short()} end
if cancel then finish(id, 'running', 'cancelled', at(ARGV[4]), at(ARGV[4], ARGV[5]), '', '') else enqueue(id, 'running') end
redis.call('HSET', key(id), 'end', nonce)
return {1, short()}
"""
)
"""KEYS: the list of messages. ARGV: prefix, id, fencing, now, for how many seconds it is kept, an id of this asking. Returns
whether it was put back, and how many messages are missing."""

CANCEL = Script(
    _JOBS
    + """
local id = ARGV[2]
local r = get(id, 'caller', 'status')
if r[1] ~= ARGV[3] then return false end
if r[2] == 'queued' then finish(id, 'queued', 'cancelled', at(ARGV[4]), at(ARGV[4], ARGV[5]), '', '') end
if r[2] == 'running' then redis.call('HSET', key(id), 'cancel_requested', 1) end
return row(id)
"""
)
"""ARGV: prefix, id, caller, now, for how many seconds it is kept."""

SWEEP = Script(
    _JOBS
    + """
local now, expires, most, died, again_s = at(ARGV[2]), at(ARGV[2], ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local real = clock('')
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ends', '-inf', '(' .. now, 'LIMIT', 0, 500)) do
  local r = get(id, 'status', 'list', 'caller')
  if r[3] then keep(id, 0) end
  if r[1] then redis.call('HINCRBY', P .. 'counts', r[1], -1) end
  if r[2] then redis.call('ZREM', P .. 'of:' .. r[2], id) end
  redis.call('DEL', key(id))
  redis.call('ZREM', P .. 'ends', id)
  redis.call('ZREM', P .. 'hooks', id)
end
local back, longest = {}, real + tonumber(ARGV[7])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', string.format('(%.3f', longest + 1), '+inf', 'LIMIT', 0, 500)) do
  redis.call('ZADD', P .. 'leases', string.format('%.3f', longest), id) -- the clock was set back: nobody has a lease for so long
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', string.format('%.3f', real), 'LIMIT', 0, 500)) do
  local r = get(id, 'status', 'cancel_requested', 'lapses')
  if r[1] ~= 'running' then
    redis.call('ZREM', P .. 'leases', id)
  elseif r[2] == '1' then
    finish(id, 'running', 'cancelled', now, expires, '', '')
  elseif tonumber(r[3]) + 1 >= most then
    finish(id, 'running', 'failed', now, expires, '', died)
  else
    redis.call('HINCRBY', key(id), 'lapses', 1)
    enqueue(id, 'running')
    back[#back + 1] = id
  end
end
local tell, missing = {}, short()
local function say(id)
  if missing <= 0 then return end
  missing = missing - 1
  tell[#tell + 1] = id
  redis.call('ZADD', P .. 'told', string.format('%.3f', real), id)
end
for _, id in ipairs(back) do say(id) end
for _, member in ipairs(redis.call('ZRANGE', P .. 'queue', 0, 199)) do
  local id = string.sub(member, 18)
  local told = tonumber(redis.call('ZSCORE', P .. 'told', id) or '')
  if not told then
    redis.call('ZADD', P .. 'told', string.format('%.3f', real), id)
  elseif told + again_s < real or told > real then
    say(id)
  end
end
return {back, tell}
"""
)
"""KEYS: the list of messages. ARGV: prefix, now, seconds to keep, most lapses, the problem of a job that kills, seconds after which
a worker is told again, and that a lease lasts. Returns the ids put back, and of which jobs workers are to be told."""

STANDING = Script(
    _JOBS
    + """
local oldest = redis.call('ZRANGE', P .. 'waits', 0, 0, 'WITHSCORES')
return {redis.call('ZCARD', P .. 'queue'), redis.call('ZCARD', P .. 'leases'), oldest[2] or false}
"""
)
"""ARGV: prefix. Returns how many wait and run, and when the oldest that waits was made."""

DUE = Script(
    _JOBS
    + """
local now, again_at, found = at(ARGV[2]), at(ARGV[2], ARGV[3]), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'hooks', '-inf', now, 'LIMIT', 0, ARGV[4])) do
  if redis.call('EXISTS', key(id)) == 0 then
    redis.call('ZREM', P .. 'hooks', id)
  else
    redis.call('ZADD', P .. 'hooks', again_at, id)
    local attempt = redis.call('HINCRBY', key(id), 'hook_attempts', 1)
    found[#found + 1] = {attempt, row(id)}
  end
end
return found
"""
)
"""ARGV: prefix, now, in how many seconds they are due again, how many."""

HOOK = Script(
    _JOBS
    + """
if ARGV[3] == '' or redis.call('EXISTS', key(ARGV[2])) == 0 then return redis.call('ZREM', P .. 'hooks', ARGV[2]) end
return redis.call('ZADD', P .. 'hooks', at(ARGV[4], ARGV[3]), ARGV[2])
"""
)
"""ARGV: prefix, id, in how many seconds it is due again or '', now."""
