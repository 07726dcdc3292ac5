"""The response cache on Redis, shared by all replicas: the same bytes and checksums as on disk; damage is a miss, set aside.

Next to the values stand what they are found and bounded by: `made` (key -> created_at), `used` (key -> last use), `sizes` and their
sum. The least recently used go first; how many bytes may be kept is this cache's own limit, whatever Redis's policy is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import redis
from redis.exceptions import RedisError

from nbllm.core.ports import CacheStats, Stored
from nbllm.errors import StorageError
from nbllm.storage.entries import Damaged, decode, encode
from nbllm.storage.redis_link import Link, Script

T = TypeVar("T")
DEFAULT_SIZE_BYTES = 1 << 30
KEEP_S = 30 * 86400.0
ASIDE_S = 86400
_MOST_TOUCHED = 256
_CHUNK = 100
_DROP = """
local function drop(key)
  local size = redis.call('HGET', KEYS[3], key)
  if size then
    redis.call('DECRBY', KEYS[4], size)
    redis.call('HDEL', KEYS[3], key)
  end
  redis.call('ZREM', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  return redis.call('DEL', PREFIX .. key)
end
"""
_PUT = Script(
    "local PREFIX = ARGV[1]"
    + _DROP
    + """
local key, value, made, now, keep_s, limit = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
for i = 8, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'XX', 'GT', ARGV[i + 1], ARGV[i]) end
drop(key)
redis.call('SET', PREFIX .. key, value, 'EX', math.ceil(keep_s))
redis.call('ZADD', KEYS[1], made, key)
redis.call('ZADD', KEYS[2], now, key)
redis.call('HSET', KEYS[3], key, #value)
local total = redis.call('INCRBY', KEYS[4], #value)
for _, old in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', '(' .. now - keep_s, 'BYSCORE', 'LIMIT', 0, 20)) do
  if redis.call('EXISTS', PREFIX .. old) == 0 then drop(old) end
end
for _ = 1, 100 do
  if total <= limit then break end
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest or oldest == key then break end
  drop(oldest)
  total = tonumber(redis.call('GET', KEYS[4]))
end
return 1
"""
)
_TOUCH = Script("for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'XX', 'GT', ARGV[i + 1], ARGV[i]) end return 1")
_DELETE = Script(
    "local PREFIX = ARGV[1]" + _DROP + "local count = 0 for i = 2, #ARGV do count = count + drop(ARGV[i]) end return count"
)
_ASIDE = Script(
    "local PREFIX = ARGV[1]"
    + _DROP
    + """
local value = redis.call('GET', PREFIX .. ARGV[2])
if value ~= ARGV[3] then return 0 end
redis.call('SET', ARGV[4] .. ARGV[2], value, 'EX', ARGV[5])
redis.call('ZADD', KEYS[5], ARGV[6], ARGV[2])
return drop(ARGV[2])
"""
)


class RedisResponseStore:
    """Complete answers on Redis. Redis gone: every get is a miss, every put raises StorageError.

    size_limit_bytes: of the values. keep_s: how long an entry lasts that is put and then only read.
    """

    def __init__(self, link: Link, *, size_limit_bytes: int = DEFAULT_SIZE_BYTES, keep_s: float = KEEP_S) -> None:
        self._link = link
        self._size_limit_bytes = size_limit_bytes
        self._keep_s = keep_s
        self._prefix = link.key("answer:")
        self._indexes = [link.key(f"answers:{name}") for name in ("made", "used", "sizes", "bytes", "aside")]
        self._touched: dict[str, float] = {}

    @property
    def waits(self) -> bool:
        """True: `get` must be awaited."""
        return True

    def get_now(self, key: str) -> Stored | None:  # noqa: ARG002 - the port's
        """Return None: this store has to wait."""
        return None

    async def get(self, key: str) -> Stored | None:
        """Return the entry, None for a miss. Damage and a Redis that does not answer are misses."""
        try:
            value = await self._link.call("GET", _joined(self._prefix, key))
        except StorageError:
            return None
        if value is None:
            return None
        try:
            entry = decode(key, value)
        except Damaged:
            await self._set_aside(key, value)
            return None
        self._touched[key] = time.time()
        if len(self._touched) >= _MOST_TOUCHED:
            self._send_touched()
        return entry

    async def missing(self, keys: Sequence[str]) -> Sequence[str]:
        """Return which of these keys hold no entry. Raises StorageError."""
        there = await asyncio.gather(*(self._link.call("EXISTS", _joined(self._prefix, key)) for key in keys))
        return [key for key, found in zip(keys, there, strict=True) if not found]

    async def put(self, entry: Stored) -> None:
        """Keep an entry. Raises StorageError when it cannot."""
        try:
            value, name = encode(entry), _name(entry.key)
        except (TypeError, ValueError) as exc:
            raise StorageError(f"The answer cannot be cached: {exc}.") from exc
        touched, self._touched = self._touched, {}
        args = [self._prefix, name, value, entry.created_at, time.time(), self._keep_s, self._size_limit_bytes]
        await self._link.script(_PUT, self._indexes, [*args, *_flat(touched)])

    def _send_touched(self) -> None:
        touched, self._touched = self._touched, {}
        try:
            self._link.submit("EVAL", _TOUCH.text, 2, *self._indexes[:2], *_flat(touched))
        except StorageError:
            return

    async def _set_aside(self, key: str, value: bytes) -> None:
        args = [self._prefix, _name(key), value, self._link.key("damaged:"), ASIDE_S, time.time()]
        try:
            await self._link.script(_ASIDE, self._indexes, args)
        except StorageError:
            return

    # ------------------------------------------------------------------------------------------------ all of them

    def entries(self) -> Iterator[Stored]:
        """Yield all readable entries, newest first."""
        keys = self._with_client(lambda client: _bytes_of(client.zrevrange(self._indexes[0], 0, -1)))
        for start in range(0, len(keys), _CHUNK):
            yield from self._chunk(keys[start : start + _CHUNK])

    def _chunk(self, keys: list[bytes]) -> list[Stored]:
        values = self._with_client(lambda client: cast("list[Any]", client.mget([self._prefix.encode() + key for key in keys])))
        found = []
        for key, value in zip(keys, values, strict=True):
            try:
                found.append(decode(key.decode("utf-8", "surrogatepass"), value))
            except Damaged:  # or expired between the two
                continue
        return found

    def purge(
        self,
        *,
        key_prefix: str | None = None,
        keys: Collection[str] | None = None,
        model: str | None = None,
        tag: str | None = None,
        older_than_s: float | None = None,
    ) -> int:
        """Delete the entries that match all that is given (nothing given: all, what was set aside included) and count them."""
        before = None if older_than_s is None else time.time() - older_than_s
        self._touched.clear()
        matching = [
            entry.key
            for entry in self.entries()
            if (key_prefix is None or entry.key.startswith(key_prefix))
            and (keys is None or entry.key in keys)
            and (model is None or entry.model == model)
            and (tag is None or tag in entry.tags)
            and (before is None or entry.created_at < before)
        ]
        count = 0
        for start in range(0, len(matching), _CHUNK):
            names: list[Any] = [_name(key) for key in matching[start : start + _CHUNK]]
            count += self._with_client(partial(self._delete, names=names))
        if (key_prefix, keys, model, tag, older_than_s) == (None,) * 5:
            self._with_client(self._delete_aside)
        return count

    def _delete(self, client: redis.Redis, names: list[Any]) -> int:
        return int(cast("Any", client.eval(_DELETE.text, 4, *self._indexes[:4], self._prefix, *names)))

    def _delete_aside(self, client: redis.Redis) -> None:
        aside = _bytes_of(client.zrange(self._indexes[4], 0, -1))
        client.delete(self._indexes[4], *(self._link.key("damaged:").encode() + key for key in aside))

    def stats(self) -> CacheStats:
        """Return counts and sizes; size_bytes is that of the values. damaged: those of the last day."""

        def run(client: redis.Redis) -> tuple[int, int, int]:
            client.zremrangebyscore(self._indexes[4], "-inf", time.time() - ASIDE_S)
            count, aside = client.zcard(self._indexes[0]), client.zcard(self._indexes[4])
            return int(cast("Any", count)), int(cast("Any", client.get(self._indexes[3]) or 0)), int(cast("Any", aside))

        count, size_bytes, damaged = self._with_client(run)
        return CacheStats(
            entries=count,
            size_bytes=size_bytes,
            size_limit_bytes=self._size_limit_bytes,
            damaged=damaged,
            directory=f"Redis at {self._link.where}",
        )

    def _with_client(self, work: Callable[[redis.Redis], T]) -> T:
        client = self._link.own_client()
        try:
            return work(client)
        except (RedisError, OSError) as exc:
            raise self._link.gone(exc) from exc
        finally:
            client.close()

    def close(self) -> None:
        """Do nothing: the link is closed by whoever opened it."""


def _name(key: str) -> Any:
    """Return what stands for a key on Redis: text that is no UTF-8, which no fingerprint is, as bytes."""
    return key if key.isascii() else key.encode("utf-8", "surrogatepass")


def _joined(prefix: str, key: str) -> Any:
    return prefix + key if key.isascii() else prefix.encode() + key.encode("utf-8", "surrogatepass")


def _flat(touched: dict[str, float]) -> list[Any]:
    return [part for key, at in touched.items() for part in (_name(key), at)]


def _bytes_of(answer: Any) -> list[bytes]:
    return cast("list[bytes]", answer)
