"""Limits of a key: requests and tokens a minute, by the limits library, and streams at once. In memory or on Redis.

Requests are counted over a sliding minute, before anything is done. Tokens are known only afterwards, so they are counted then: a
caller that is over its tokens waits for the next minute. Both on the monotonic clock, in memory: a clock that is set back neither
locks a caller out nor lets it through.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import StorageError as LimitsStorageError
from limits.storage.base import TimestampedSlidingWindow

from nbllm.errors import StorageError
from nbllm.service.caller import Caller
from nbllm.service.problems import ServiceProblem
from nbllm.service.stream_slots import MemorySlots, StreamSlots

Header = tuple[bytes, bytes]
_WINDOW_S = 60
_MOST_COUNTERS = 20_000
_FORGET_EVERY_S = 60.0


class OverLimit(ServiceProblem):
    """A key asked for more than its tier allows. headers_to_add: the RateLimit headers that say how much."""

    def __init__(self, what: str, amount: int, retry_after_s: float, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(
            429, "rate-limited", "Too much was asked with this key.", f"It has {amount} {what}.", retry_after_s=retry_after_s
        )
        self.headers_to_add = headers


class LimitsUnavailable(ServiceProblem):
    """What counts cannot be reached, so nobody knows whether a limit holds."""

    def __init__(self) -> None:
        super().__init__(503, "limits-unavailable", "Limits cannot be checked just now.", retry_after_s=5.0)


class Limiter:
    """For one event loop. storage: where requests and tokens are counted; streams: where those at once are.

    allow_blind: let requests pass while these are gone; streams are counted in this process then.
    """

    def __init__(self, storage: Storage | None = None, streams: StreamSlots | None = None, *, allow_blind: bool = False) -> None:
        self._storage: Any = MemoryCounters() if storage is None else storage
        self._requests = SlidingWindowCounterRateLimiter(self._storage)
        self._tokens = FixedWindowRateLimiter(self._storage)
        self._memory = self._storage if isinstance(self._storage, MemoryCounters) else None
        self._allow_blind = allow_blind
        self._items: dict[tuple[str, int], RateLimitItemPerMinute] = {}
        self._here = MemorySlots()
        self._streams: StreamSlots = self._here if streams is None else streams

    async def count_request(self, caller: Caller) -> tuple[Header, ...]:
        """Count one request of a caller; return RateLimit headers. Raises OverLimit, LimitsUnavailable."""
        if self._memory is not None:
            return self._count_here(caller, self._memory)
        try:
            return await self._count(caller)
        except LimitsStorageError:
            if self._allow_blind:
                return ()
            raise LimitsUnavailable from None

    async def _count(self, caller: Caller) -> tuple[Header, ...]:
        tier, key_id = caller.tier, caller.key_id
        if tier.tokens_per_minute is not None:
            item = self._item("tokens", tier.tokens_per_minute)
            left = await self._tokens.get_window_stats(item, key_id)
            if left.remaining <= 0:
                reset_s = max(0.0, left.reset_time - time.time())
                raise OverLimit("tokens a minute", tier.tokens_per_minute, reset_s, _headers("tokens", item.amount, 0, reset_s))
        if tier.requests_per_minute is None:
            return ()
        item = self._item("requests", tier.requests_per_minute)
        passed = await self._requests.hit(item, key_id)
        stats = await self._requests.get_window_stats(item, key_id)
        reset_s = max(0.0, stats.reset_time - time.time())
        headers = _headers("requests", item.amount, stats.remaining if passed else 0, reset_s)
        if not passed:
            raise OverLimit("requests a minute", item.amount, reset_s, headers)
        return headers

    def _count_here(self, caller: Caller, memory: MemoryCounters) -> tuple[Header, ...]:
        """Do as _count, without its six awaits: in memory they take ten times as long as the counting."""
        tier, key_id = caller.tier, caller.key_id
        if tier.tokens_per_minute is not None:
            used, left_s = memory.count_of(_counter(self._item("tokens", tier.tokens_per_minute), key_id))
            if used >= tier.tokens_per_minute:
                headers = _headers("tokens", tier.tokens_per_minute, 0, left_s)
                raise OverLimit("tokens a minute", tier.tokens_per_minute, left_s, headers)
        if tier.requests_per_minute is None:
            return ()
        item = self._item("requests", tier.requests_per_minute)
        passed, left, reset_s = memory.hit_sliding(_counter(item, key_id), item.amount, item.get_expiry())
        headers = _headers("requests", item.amount, left if passed else 0, reset_s)
        if not passed:
            raise OverLimit("requests a minute", item.amount, reset_s, headers)
        return headers

    def count_tokens_here(self, caller: Caller, tokens: int) -> bool:
        """Do as count_tokens where that takes no waiting; False where it does, and nothing was counted."""
        limit, memory = caller.tier.tokens_per_minute, self._memory
        if memory is None:
            return False
        if limit is not None and tokens > 0:
            item = self._item("tokens", limit)
            memory.add(_counter(item, caller.key_id), item.get_expiry(), tokens)
        return True

    async def count_tokens(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of an answer. What cannot be counted is lost: the answer is there already."""
        limit = caller.tier.tokens_per_minute
        if limit is None or tokens <= 0:
            return
        try:
            await self._tokens.hit(self._item("tokens", limit), caller.key_id, cost=tokens)
        except LimitsStorageError:
            return

    @asynccontextmanager
    async def stream(self, caller: Caller) -> AsyncIterator[None]:
        """Hold one of a caller's streams for an `async with` block. Raises OverLimit, LimitsUnavailable."""
        key_id, limit = caller.key_id, caller.tier.streams
        if limit is None:
            yield
            return
        slots, slot = await self._slot(key_id, limit)
        try:
            yield
        finally:
            slots.give_back(key_id, slot)

    async def _slot(self, key_id: str, limit: int) -> tuple[StreamSlots, str]:
        slots = self._streams
        try:
            slot = await slots.take(key_id, limit)
        except StorageError:
            if not self._allow_blind:
                raise LimitsUnavailable from None
            slots = self._here
            slot = await slots.take(key_id, limit)
        if slot is None:
            raise OverLimit("streams at once", limit, 1.0)
        return slots, slot

    async def works(self) -> bool:
        """Whether what counts can be reached."""
        try:
            return bool(await self._storage.check())
        except LimitsStorageError:
            return False

    def _item(self, what: str, amount: int) -> RateLimitItemPerMinute:
        item = self._items.get((what, amount))
        if item is None:
            item = self._items[what, amount] = RateLimitItemPerMinute(amount, namespace=f"nbllm-{what}")
        return item


@lru_cache(maxsize=4096)
def _counter(item: RateLimitItemPerMinute, key_id: str) -> str:
    """Return what limits calls the counter of a caller."""
    name: str = item.key_for(key_id)
    return name


@lru_cache(maxsize=64)
def _policy(what: str, amount: int) -> bytes:
    return f'"{what}";q={amount};w={_WINDOW_S}'.encode()


def _headers(what: str, amount: int, left: int, reset_s: float) -> tuple[Header, ...]:
    """Return RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers-10 has them."""
    return (b"ratelimit-policy", _policy(what, amount)), (b"ratelimit", f'"{what}";r={left};t={math.ceil(reset_s)}'.encode())


class MemoryCounters(Storage, TimestampedSlidingWindow):
    """Counters in this process, on the monotonic clock, for limits' strategies.

    limits' own storage in memory looks at the time of day, starts a task for each hit, and looks through all counters each time.
    """

    STORAGE_SCHEME = ["async+nbllm-memory"]  # noqa: RUF012 - limits' own way to name a storage

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic, epoch_s: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._now_s = now_s
        self._epoch_s = epoch_s
        self._counts: dict[str, tuple[int, float]] = {}
        """Counter -> how many, and until when on the monotonic clock."""
        self._forget_at_s = 0.0

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a storage raises when it is gone; this one never is."""
        return LimitsStorageError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter, which lives so many seconds from when it is new; return it."""
        return self.add(key, expiry, amount)

    def add(self, key: str, expiry: float, amount: int) -> int:
        """Do as incr, at once."""
        now_s = self._now_s()
        self._forget(now_s)
        count, until_s = self._counts.get(key, (0, 0.0))
        if until_s <= now_s:
            count, until_s = 0, now_s + expiry
        self._counts[key] = count + amount, until_s
        return count + amount

    async def get(self, key: str) -> int:
        """Return a counter, 0 for one that is not there."""
        return self._count(key, self._now_s())

    async def get_expiry(self, key: str) -> float:
        """Return when a counter ends, as Unix time."""
        now_s = self._now_s()
        _, until_s = self._counts.get(key, (0, now_s))
        return self._epoch_s() + max(0.0, until_s - now_s)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add to the count of the sliding window unless that goes over the limit."""
        previous, previous_ttl_s, current, _ = self._window(key, expiry)
        if math.floor(previous * previous_ttl_s / expiry + current) + amount > limit:
            return False
        await self.incr(self.sliding_window_keys(key, expiry, self._now_s())[1], 2 * expiry, amount)
        return True

    def count_of(self, key: str) -> tuple[int, float]:
        """Return a counter and how many seconds it lives still; (0, 0) for one that is not there."""
        now_s = self._now_s()
        count, until_s = self._counts.get(key, (0, 0.0))
        return (count, until_s - now_s) if until_s > now_s else (0, 0.0)

    def hit_sliding(self, key: str, limit: int, expiry: int) -> tuple[bool, int, float]:
        """Add one to the sliding window unless that goes over the limit; return whether, what is left, and when some comes back.

        The same as hit and get_window_stats of limits' SlidingWindowCounterRateLimiter, one after the other.
        """
        now_s = self._now_s()
        before, this = self.sliding_window_keys(key, expiry, now_s)
        left_s = expiry - now_s % expiry
        previous, current = self._count(before, now_s), self._count(this, now_s)
        passed = math.floor(previous * left_s / expiry + current) + 1 <= limit
        if passed:
            current = self.add(this, 2 * expiry, 1)
        remaining = max(0, limit - math.floor(previous * left_s / expiry + current))
        resets = [left_s % (expiry / previous)] if previous else []
        resets += [(left_s + expiry) % expiry] if current else []
        return passed, remaining, min(resets, default=0.0)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return count and remaining seconds of the window before and of this one."""
        return self._window(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget both windows."""
        for name in self.sliding_window_keys(key, expiry, self._now_s()):
            self._counts.pop(name, None)

    async def check(self) -> bool:
        """Say that it works."""
        return True

    async def reset(self) -> int | None:
        """Forget all; return how many there were."""
        count = len(self._counts)
        self._counts.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget a counter."""
        self._counts.pop(key, None)

    def _count(self, key: str, now_s: float) -> int:
        count, until_s = self._counts.get(key, (0, 0.0))
        return count if until_s > now_s else 0

    def _window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now_s = self._now_s()
        before, this = self.sliding_window_keys(key, expiry, now_s)
        left_s = expiry - now_s % expiry
        previous = self._count(before, now_s)
        return previous, left_s if previous else 0.0, self._count(this, now_s), left_s + expiry

    def _forget(self, now_s: float) -> None:
        """Let go of counters that are over, now and then."""
        if now_s >= self._forget_at_s or len(self._counts) > _MOST_COUNTERS:
            self._forget_at_s = now_s + _FORGET_EVERY_S
            self._counts = {key: row for key, row in self._counts.items() if row[1] > now_s}
