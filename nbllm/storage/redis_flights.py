"""Leases with fencing numbers on Redis: who runs a key, for all replicas. The clock is Redis's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from nbllm.core.ports import Lease
from nbllm.errors import StorageError
from nbllm.storage.redis_link import NOW, Link, Script

SURE_S = 1.0
"""A lease of ours that has longer to live than this is not looked up again."""
_LEAD = Script(
    NOW
    + """
local now, life, nonce = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local held = redis.call('HMGET', KEYS[1], 'until', 'nonce', 'fence')
if held[2] == nonce then return {held[3], held[1]} end
if held[1] and tonumber(held[1]) > now then return false end
local number, ends = fence(KEYS[2]), string.format('%.6f', now + life)
redis.call('HSET', KEYS[1], 'until', ends, 'nonce', nonce, 'fence', number)
redis.call('PEXPIRE', KEYS[1], math.floor(life * 1000) + 60000)
return {number, ends}
"""
)
_RENEW = Script(
    NOW
    + """
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[3] then return false end
local ends = string.format('%.6f', clock(ARGV[1]) + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'until', ends)
redis.call('PEXPIRE', KEYS[1], math.floor(tonumber(ARGV[2]) * 1000) + 60000)
return ends
"""
)
_HOLDS = Script(
    NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'fence', 'until')
return held[1] == ARGV[2] and tonumber(held[2]) > clock(ARGV[1]) and 1 or 0
"""
)
_RELEASE = Script("if redis.call('HGET', KEYS[1], 'fence') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")


class RedisFlights:
    """Flights on Redis. All methods may raise StorageError. now: Unix time in seconds, for tests; None: Redis's own clock."""

    def __init__(self, link: Link, *, now: Callable[[], float] | None = None) -> None:
        self._link = link
        self._now = now
        self._local_s = now or time.monotonic
        self._sure_until: dict[str, tuple[int, float]] = {}

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another caller of any replica holds it."""
        began_s, nonce = self._local_s(), uuid4().hex
        taking = asyncio.ensure_future(
            self._link.script(_LEAD, [self._key(key), self._link.key("fence")], [self._clock(), lease_s, nonce])
        )
        try:
            got = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda done: self._give_back(key, done))
            raise
        if got is None:
            return None
        lease = Lease(key, int(got[0]), float(got[1]))
        self._sure_until[key] = lease.fence, began_s + lease_s - SURE_S
        return lease

    def _give_back(self, key: str, done: asyncio.Future[Any]) -> None:
        """Release what nobody waits for any more."""
        if not done.cancelled() and done.exception() is None and done.result() is not None:
            self._post_release(key, int(done.result()[0]))

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost. One that expired and that nobody took is still this one."""
        began_s = self._local_s()
        ends = await self._link.script(_RENEW, [self._key(lease.key)], [self._clock(), lease_s, lease.fence])
        if ends is None:
            self._sure_until.pop(lease.key, None)
            return None
        self._sure_until[lease.key] = lease.fence, began_s + lease_s - SURE_S
        return Lease(lease.key, lease.fence, float(ends))

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one and has not expired."""
        fence, until_s = self._sure_until.get(lease.key, (0, 0.0))
        if fence == lease.fence and self._local_s() < until_s:
            return True
        return bool(await self._link.script(_HOLDS, [self._key(lease.key)], [self._clock(), lease.fence]))

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error, and nobody waits: one that is not given back expires by itself."""
        if self._sure_until.get(lease.key, (0, 0.0))[0] == lease.fence:
            del self._sure_until[lease.key]
        self._post_release(lease.key, lease.fence)

    def _post_release(self, key: str, fence: int) -> None:
        try:
            self._link.submit("EVAL", _RELEASE.text, 1, self._key(key), fence)
        except StorageError:
            return

    def _key(self, key: str) -> str:
        return self._link.key(f"lease:{key}")

    def _clock(self) -> float | str:
        return "" if self._now is None else self._now()

    def close(self) -> None:
        """Do nothing: the link is closed by whoever opened it."""
