"""The counters of the limits of keys, shared by all replicas: a storage for limits' strategies on the link that all else uses.

limits' own storage on Redis has connections and timeouts of its own, and knows no Redis that is to be left alone for a moment.
The clock is Redis's own.
"""

from __future__ import annotations

import time
from typing import Any

from limits.aio.storage import Storage
from limits.errors import StorageError as LimitsStorageError
from limits.storage.base import TimestampedSlidingWindow

from nbllm.errors import StorageError
from nbllm.storage.redis_link import NOW, Link, Script

_WINDOW = (
    NOW
    + """
local key, expiry = ARGV[1], tonumber(ARGV[2])
local now = clock('')
local number, left = math.floor(now / expiry), expiry - now % expiry
local function count(which) return tonumber(redis.call('GET', key .. '/' .. which) or '0') end
local before, this = count(number - 1), count(number)
"""
)
_ACQUIRE = Script(
    _WINDOW
    + """
local limit, amount = tonumber(ARGV[3]), tonumber(ARGV[4])
if math.floor(before * left / expiry + this) + amount > limit then return 0 end
redis.call('INCRBY', key .. '/' .. number, amount)
redis.call('EXPIRE', key .. '/' .. number, math.ceil(2 * expiry))
return 1
"""
)
_LOOK = Script(_WINDOW + "return {before, this, string.format('%.6f', left)}")
_CLEAR = Script(_WINDOW + "return redis.call('DEL', key .. '/' .. number, key .. '/' .. number - 1)")
_INCR = Script(
    """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return count
"""
)


class RedisCounters(Storage, TimestampedSlidingWindow):
    """Counters on Redis. Raises limits' StorageError where Redis does not answer."""

    STORAGE_SCHEME = ["async+nbllm-redis"]  # noqa: RUF012 - limits' own way to name a storage

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a storage raises when it is gone."""
        return StorageError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter, which lives so many seconds from when it is new; return it."""
        return int(await self._run(_INCR, [self._key(key)], amount, int(expiry * 1000)))

    async def get(self, key: str) -> int:
        """Return a counter, 0 for one that is not there."""
        return int(await self._call("GET", self._key(key)) or 0)

    async def get_expiry(self, key: str) -> float:
        """Return when a counter ends, as Unix time on this machine's clock."""
        return time.time() + max(0, int(await self._call("PTTL", self._key(key)))) / 1000

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add to the count of the sliding window unless that goes over the limit."""
        return bool(await self._run(_ACQUIRE, [], self._key(key), expiry, limit, amount))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return count and remaining seconds of the window before and of this one."""
        before, this, left = await self._run(_LOOK, [], self._key(key), expiry)
        left_s = float(left)
        return int(before), left_s if before else 0.0, int(this), left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget both windows."""
        await self._run(_CLEAR, [], self._key(key), expiry)

    async def check(self) -> bool:
        """Whether Redis answers, and takes what is written: one that became a replica, or has a full disk, only answers."""
        return bool(await self._call("SET", self._key("looked"), "1", "EX", "60"))

    async def reset(self) -> int | None:
        """Do nothing: what is counted belongs to all replicas."""
        return None

    async def clear(self, key: str) -> None:
        """Forget a counter."""
        await self._call("DEL", self._key(key))

    def _key(self, key: str) -> str:
        return self._link.key(f"limit:{key}")

    async def _call(self, *args: str) -> Any:
        try:
            return await self._link.call(*args)
        except StorageError as exc:
            raise LimitsStorageError(exc) from exc

    async def _run(self, script: Script, keys: list[str], *args: Any) -> Any:
        try:
            return await self._link.script(script, keys, args)
        except StorageError as exc:
            raise LimitsStorageError(exc) from exc
