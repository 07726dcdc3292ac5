"""The limiter's way without awaits counts as limits' own strategies do."""

from __future__ import annotations

import asyncio
import math
import time

from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from nbllm.service.limiting import MemoryCounters

steps = st.lists(st.floats(0.0, 90.0, allow_nan=False), min_size=1, max_size=40)


@given(steps, st.integers(1, 8))
def test_one_step_counts_as_the_strategy_does(waits_s: list[float], limit: int) -> None:
    """Whatever the times between requests: the same ones pass, the same is left, and something comes back at the same time."""
    now_s = [1000.0]
    own, theirs = (MemoryCounters(now_s=lambda: now_s[0], epoch_s=time.time) for _ in range(2))
    item = RateLimitItemPerMinute(limit)
    strategy = SlidingWindowCounterRateLimiter(theirs)

    async def compare() -> None:
        for wait_s in waits_s:
            now_s[0] += wait_s
            passed, left, reset_s = own.hit_sliding(item.key_for("k"), item.amount, item.get_expiry())
            assert await strategy.hit(item, "k") == passed
            stats = await strategy.get_window_stats(item, "k")
            assert left == stats.remaining
            assert math.isclose(reset_s, max(0.0, stats.reset_time - time.time()), abs_tol=0.05)

    asyncio.run(compare())
