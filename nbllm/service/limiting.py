"""Limits of a key: requests and tokens a minute, by the limits library, and streams at once. In memory or on Redis.

Requests are counted over a sliding minute, before anything is done. Tokens are known only afterwards, so they are counted then: a
caller that is over its tokens waits for the next minute. Both on the monotonic clock, in memory: a clock that is set back neither
locks a caller out nor lets it through.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import StorageError as LimitsStorageError

from nbllm.errors import StorageError
from nbllm.service.caller import Caller
from nbllm.service.memory_counters import MemoryCounters
from nbllm.service.problems import ServiceProblem
from nbllm.service.stream_slots import MemorySlots, StreamSlots

Header = tuple[bytes, bytes]
_WINDOW_S = 60
_MOST_NAMES = 20_000


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
        self._names: dict[tuple[str, int, str], str] = {}
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
            used, left_s = memory.count_of(self._counter("tokens", tier.tokens_per_minute, key_id))
            if used >= tier.tokens_per_minute:
                headers = _headers("tokens", tier.tokens_per_minute, 0, left_s)
                raise OverLimit("tokens a minute", tier.tokens_per_minute, left_s, headers)
        if tier.requests_per_minute is None:
            return ()
        amount = tier.requests_per_minute
        passed, left, reset_s = memory.hit_sliding(self._counter("requests", amount, key_id), amount, _WINDOW_S)
        headers = _headers("requests", amount, left if passed else 0, reset_s)
        if not passed:
            raise OverLimit("requests a minute", amount, reset_s, headers)
        return headers

    def count_tokens_here(self, caller: Caller, tokens: int) -> bool:
        """Do as count_tokens where that takes no waiting; False where it does, and nothing was counted."""
        limit, memory = caller.tier.tokens_per_minute, self._memory
        if memory is None:
            return False
        if limit is not None and tokens > 0:
            memory.add(self._counter("tokens", limit, caller.key_id), _WINDOW_S, tokens)
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

    def _counter(self, what: str, amount: int, key_id: str) -> str:
        """Return what limits calls the counter of a caller."""
        name = self._names.get((what, amount, key_id))
        if name is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            name = self._names[what, amount, key_id] = self._item(what, amount).key_for(key_id)
        return name

    def _item(self, what: str, amount: int) -> RateLimitItemPerMinute:
        item = self._items.get((what, amount))
        if item is None:
            item = self._items[what, amount] = RateLimitItemPerMinute(amount, namespace=f"nbllm-{what}")
        return item


@lru_cache(maxsize=64)
def _policy(what: str, amount: int) -> bytes:
    return f'"{what}";q={amount};w={_WINDOW_S}'.encode()


def _headers(what: str, amount: int, left: int, reset_s: float) -> tuple[Header, ...]:
    """Return RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers-10 has them."""
    return (b"ratelimit-policy", _policy(what, amount)), (b"ratelimit", f'"{what}";r={left};t={math.ceil(reset_s)}'.encode())
