"""Streams at once of a key, counted on Redis for all replicas."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from uuid import uuid4

from nbllm.errors import StorageError
from nbllm.storage.redis_link import NOW, Link, Script

LEASE_S = 15.0
"""Streams of a replica that gave no sign of life for so long are over: it was killed, or cannot reach Redis."""
_TAKE = Script(
    NOW
    + """
local now, limit, lease_s = clock(''), tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now))
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) and redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.3f', now + lease_s), ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.ceil(lease_s * 1000))
return 1
"""
)
_KEEP = Script(
    NOW
    + """
local ends = string.format('%.3f', clock('') + tonumber(ARGV[1]))
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] * 1000))
return 1
"""
)
_log = logging.getLogger("nbllm.service")


class RedisSlots:
    """Counted on Redis, for all replicas: a sorted set a key, of streams by when their lease ends on Redis's clock.

    While a process has streams it renews all their leases together, three times in a lease's life. A stream that is open goes on
    while Redis is gone, or has forgotten it, and is counted again when Redis is back.
    """

    def __init__(self, link: Link, *, lease_s: float = LEASE_S) -> None:
        self._link = link
        self._lease_s = lease_s
        self._open: dict[str, set[str]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, key_id: str, limit: int) -> str | None:
        """See StreamSlots."""
        slot = uuid4().hex
        try:
            taken = await self._link.script(_TAKE, [self._key(key_id)], [limit, self._lease_s, slot])
        except BaseException:
            self._forget(key_id, slot)  # it may have been taken: whatever is asked on a link is done in order
            raise
        if not taken:
            return None
        self._open.setdefault(key_id, set()).add(slot)
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return slot

    def give_back(self, key_id: str, slot: str) -> None:
        """See StreamSlots. Where Redis does not hear of it, the lease lapses."""
        slots = self._open[key_id]
        slots.discard(slot)
        if not slots:
            del self._open[key_id]
        if not self._open and self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        self._forget(key_id, slot)

    def _forget(self, key_id: str, slot: str) -> None:
        with suppress(StorageError):
            self._link.submit("ZREM", self._key(key_id), slot)

    async def _renew(self) -> None:
        while self._open:
            await asyncio.sleep(self._lease_s / 3)
            for key_id, slots in list(self._open.items()):
                try:
                    await self._link.script(_KEEP, [self._key(key_id)], [self._lease_s, *slots])
                except StorageError:
                    break  # the next third tries again
                except Exception:
                    _log.exception("The streams of a key could not be kept count of.")

    def _key(self, key_id: str) -> str:
        return self._link.key(f"streams:{key_id}")
