"""The IdempotencyStore of all replicas, on Redis. A claim is a lease on Redis's clock, renewed while its run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any
from uuid import uuid4

from nbllm.errors import StorageError
from nbllm.service.idempotency_store import MOST_KEPT_BYTES, ROW_BYTES, OutcomesFull
from nbllm.service.ports import Blocked, Claim, Stored
from nbllm.storage.redis_link import NOW, Link, Script

DAY_S = 86400.0
LEASE_S = 10.0
_KEEP = (
    f"local ROW_BYTES = {ROW_BYTES}\n"
    """
local function keep(sizes, ends, name, bytes, until_, keep_ms)
  local grown = bytes - (redis.call('HGET', sizes, name) or 0)
  if bytes > 0 then
    redis.call('HSET', sizes, name, bytes)
    redis.call('ZADD', ends, until_, name)
  else
    redis.call('HDEL', sizes, name)
    redis.call('ZREM', ends, name)
  end
  if redis.call('HINCRBY', sizes, '', grown) <= 0 then redis.call('DEL', sizes, ends) end
  if keep_ms then
    redis.call('PEXPIRE', sizes, keep_ms)
    redis.call('PEXPIRE', ends, keep_ms)
  end
end
"""
)
"""What the outcomes of a caller hold: a hash of bytes by outcome ('': their sum), a sorted set of when each is forgotten."""
_BEGIN = Script(
    NOW
    + _KEEP
    + """
local now, real, print, again, keep_s, lease_s, nonce =
  clock(ARGV[1]), clock(''), ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local row = redis.call('HMGET', KEYS[1], 'print', 'fencing', 'until', 'expires', 'status', 'headers', 'body', 'nonce')
if row[8] == nonce then return {'claim', row[2]} end
local held = row[3] and tonumber(row[3]) > real
if row[1] and (tonumber(row[4]) >= now or (held and not row[5])) then
  if row[1] ~= print then return {'other'} end
  if row[5] then return {'stored', row[5], row[6], row[7]} end
  if held then return {'flight'} end
  if not again then return {'unknown'} end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', string.format('(%.6f', now), 'LIMIT', 0, 500)) do
  keep(KEYS[3], KEYS[4], name, 0)
end
local kept = tonumber(redis.call('HGET', KEYS[3], '') or '0')
if kept > tonumber(ARGV[7]) then return {'full', kept} end
local number, expires, keep_ms = fence(KEYS[2]), string.format('%.6f', now + keep_s), math.ceil((keep_s + lease_s) * 1000)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'print', print, 'fencing', number, 'until', string.format('%.6f', real + lease_s),
  'expires', expires, 'nonce', nonce)
redis.call('PEXPIRE', KEYS[1], keep_ms)
keep(KEYS[3], KEYS[4], KEYS[1], ROW_BYTES, expires, keep_ms)
return {'claim', number}
"""
)
_RENEW = Script(
    NOW
    + """
local row = redis.call('HMGET', KEYS[1], 'fencing', 'status')
if row[1] ~= ARGV[1] or row[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.6f', clock('') + tonumber(ARGV[2])))
return 1
"""
)
_FINISH = Script(
    NOW
    + _KEEP
    + """
local expires = string.format('%.6f', clock(ARGV[5]) + tonumber(ARGV[8]))
local row = redis.call('HMGET', KEYS[1], 'fencing', 'status', 'end')
if row[1] ~= ARGV[1] then return 0 end
if row[2] then return row[3] == ARGV[7] and 1 or 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'headers', ARGV[3], 'body', ARGV[4], 'expires', expires, 'end', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
keep(KEYS[2], KEYS[3], KEYS[1], ROW_BYTES + #ARGV[3] + #ARGV[4], expires, ARGV[6])
return 1
"""
)
_RELEASE = Script(
    _KEEP
    + """
local row = redis.call('HMGET', KEYS[1], 'fencing', 'status')
if row[1] ~= ARGV[1] or row[2] then return 0 end
keep(KEYS[2], KEYS[3], KEYS[1], 0)
return redis.call('DEL', KEYS[1])
"""
)


class RedisIdempotency:
    """Outcomes by caller and key for `keep_s` seconds. now: Unix time by which they age, Redis's own unless it is given.

    A claim that is not renewed for lease_s seconds lapses: its key then says "outcome unknown". most_kept_bytes: what the outcomes
    of one caller may hold before no more of its keys are taken.
    """

    def __init__(
        self,
        link: Link,
        *,
        keep_s: float = DAY_S,
        lease_s: float = LEASE_S,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._link = link
        self._keep_s = keep_s
        self._lease_s = lease_s
        self._most_kept_bytes = most_kept_bytes
        self._now: Callable[[], float | str] = now or str  # '': by Redis's clock, which is one for all replicas
        self._mine: set[int] = set()
        self.renew_every_s: float | None = lease_s / 4

    async def begin(self, caller: str, key: str, fingerprint: str, *, again: bool = False) -> Claim | Stored | Blocked:
        """See IdempotencyStore. The first that comes to Redis gets the claim."""
        args: list[Any] = [self._now(), fingerprint, int(again), self._keep_s, self._lease_s, uuid4().hex, self._most_kept_bytes]
        own, *sums = self._keys(caller, key)
        asking = asyncio.ensure_future(self._link.script(_BEGIN, [own, self._link.key("fence"), *sums], args))
        try:
            got = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda done: self._drop(caller, key, done))
            raise
        what = got[0]
        if what == b"claim":
            self._mine.add(int(got[1]))
            return Claim(caller, key, int(got[1]))
        if what == b"full":
            raise OutcomesFull(int(got[1]))
        if what == b"stored":
            return Stored(int(got[1]), tuple((name, value) for name, value in json.loads(got[2])), got[3])
        return {b"other": Blocked.OTHER_REQUEST, b"flight": Blocked.IN_FLIGHT, b"unknown": Blocked.UNKNOWN}[what]

    def _drop(self, caller: str, key: str, done: asyncio.Future[Any]) -> None:
        """Free the key of a claim that nobody takes up any more."""
        if not done.cancelled() and done.exception() is None and done.result()[0] == b"claim":
            with suppress(StorageError):
                self._link.submit("EVAL", _RELEASE.text, 3, *self._keys(caller, key), done.result()[1])

    async def renew(self, claim: Claim) -> bool:
        """See IdempotencyStore. A claim that lapsed, but that nobody took over, is held again."""
        if claim.fencing not in self._mine:
            return False
        return bool(await self._link.script(_RENEW, self._of(claim)[:1], [claim.fencing, self._lease_s]))

    async def finish(self, claim: Claim, outcome: Stored) -> bool:
        """See IdempotencyStore. It is kept for keep_s seconds from here."""
        if claim.fencing not in self._mine:
            return False
        keep_ms = int((self._keep_s + self._lease_s) * 1000)
        what = (claim.fencing, outcome.status, json.dumps(outcome.headers), outcome.body)
        args: list[Any] = [*what, self._now(), keep_ms, uuid4().hex, self._keep_s]
        try:
            return bool(await self._link.script(_FINISH, self._of(claim), args))
        finally:
            self._mine.discard(claim.fencing)

    async def release(self, claim: Claim) -> None:
        """See IdempotencyStore."""
        if claim.fencing in self._mine:
            self._mine.discard(claim.fencing)
            await self._link.script(_RELEASE, self._of(claim), [claim.fencing])

    def _of(self, claim: Claim) -> list[str]:
        return self._keys(claim.caller, claim.key)

    def _keys(self, caller: str, key: str) -> list[str]:
        """Return the keys on Redis of an outcome and of the sums of its caller. Callers and keys may be of any characters."""
        name, whose = (sha256(json.dumps(of).encode()).hexdigest() for of in ([caller, key], [caller]))
        return [self._link.key(f"outcome:{name}"), self._link.key(f"kept:{whose}"), self._link.key(f"kept-until:{whose}")]

    async def aclose(self) -> None:
        """See IdempotencyStore. The link is closed by whoever opened it."""
        self._mine.clear()
