"""Limits of keys that two replicas share, on a real Redis."""

from __future__ import annotations

import asyncio

import pytest
from limits import RateLimitItemPerMinute
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.limiting import Limiter, LimitsUnavailable, OverLimit
from nbllm.service.redis_counters import RedisCounters
from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer


def caller(**values: int) -> Caller:
    return Caller("key", Tier(**values))


def test_two_replicas_count_together(redis_server: RedisServer) -> None:
    """Of 60 requests at once through two replicas as many pass as the tier allows a minute, and the next one is told when."""
    redis_server.flush()

    async def run() -> None:
        limiters = [Limiter(RedisCounters(Link(redis_server.url))) for _ in range(2)]
        asked = (limiters[n % 2].count_request(caller(requests_per_minute=20)) for n in range(60))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, OverLimit)]
        assert len(refused) == 40
        assert all(one.problem.retry_after_s is not None and one.problem.retry_after_s <= 60 for one in refused)
        await limiters[0].count_request(Caller("another", Tier(requests_per_minute=20)))
        assert await limiters[0].works()

    asyncio.run(run())


def test_tokens_are_counted_together(redis_server: RedisServer) -> None:
    """Tokens of one replica's answers stop the other's next request."""
    redis_server.flush()

    async def run() -> None:
        one, other = (Limiter(RedisCounters(Link(redis_server.url))) for _ in range(2))
        asker = caller(requests_per_minute=100, tokens_per_minute=50)
        await other.count_request(asker)
        await one.count_tokens(asker, 60)
        with pytest.raises(OverLimit):
            await other.count_request(asker)

    asyncio.run(run())


def test_the_strategies_clear_and_look(redis_server: RedisServer) -> None:
    """What limits' own strategies ask of a storage is there: windows that weigh, looking, clearing."""
    redis_server.flush()

    async def run() -> None:
        storage = RedisCounters(Link(redis_server.url))
        item = RateLimitItemPerMinute(3)
        for strategy in (SlidingWindowCounterRateLimiter(storage), FixedWindowRateLimiter(storage)):
            assert [await strategy.hit(item, "a") for _ in range(4)] == [True, True, True, False]
            assert not await strategy.test(item, "a")
            stats = await strategy.get_window_stats(item, "a")
            assert stats.remaining == 0
            await strategy.clear(item, "a")
            assert await strategy.hit(item, "a", cost=3)

    asyncio.run(run())


def test_without_redis_requests_are_refused_unless_told_otherwise() -> None:
    """Nobody knows whether a limit holds: 503, or with on_state_loss="allow" let through."""

    async def run() -> None:
        nowhere = Link("unix:///nowhere/at/all")
        with pytest.raises(LimitsUnavailable):
            await Limiter(RedisCounters(nowhere)).count_request(caller())
        blind = Limiter(RedisCounters(nowhere), allow_blind=True)
        assert await blind.count_request(caller()) == ()
        await blind.count_tokens(caller(tokens_per_minute=5), 3)
        assert not await blind.works()

    asyncio.run(run())
