"""The counters of the limits of keys of one process: a storage for limits' strategies, on the monotonic clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from limits.aio.storage import Storage
from limits.errors import StorageError as LimitsStorageError
from limits.storage.base import TimestampedSlidingWindow

_MOST_COUNTERS = 20_000
_FORGET_EVERY_S = 60.0


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
