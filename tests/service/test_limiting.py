"""Limits of a key: requests and tokens a minute, streams at once; headers that say so; a clock that is set back."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.aio.storage import Storage
from limits.errors import StorageError as LimitsStorageError

from nbllm.errors import StorageError
from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.limiting import Limiter, LimitsUnavailable, OverLimit
from nbllm.service.memory_counters import MemoryCounters
from nbllm.service.problems import headers_of
from tests.client.helpers import until
from tests.service.flow_apps import say, serving


class Clock:
    """Two clocks that are set by hand."""

    now_s = 1_000.0
    epoch_s = 1_700_000_000.0

    def now(self) -> float:
        return self.now_s

    def epoch(self) -> float:
        return self.epoch_s


def made(**tier: Any) -> tuple[Limiter, Clock, Caller]:
    clock = Clock()
    counters = MemoryCounters(now_s=clock.now, epoch_s=clock.epoch)
    return Limiter(counters), clock, Caller("ab12", Tier(**tier))


def passes(limiter: Limiter, caller: Caller) -> bool:
    try:
        asyncio.run(limiter.count_request(caller))
    except OverLimit:
        return False
    return True


def test_a_key_has_its_requests_a_minute_and_no_more() -> None:
    """The limit holds for the key; another key has its own; after the window there is room again."""
    limiter, clock, caller = made(requests_per_minute=5)
    assert [passes(limiter, caller) for _ in range(7)] == [True] * 5 + [False] * 2
    assert passes(limiter, Caller("other", caller.tier))
    clock.now_s += 121
    assert passes(limiter, caller)


def test_an_answer_says_how_much_is_left_and_a_refusal_when_to_come_back() -> None:
    """RateLimit and RateLimit-Policy are on each answer; a refusal is 429 with Retry-After and both."""
    limiter, _, caller = made(requests_per_minute=2)
    headers = dict(asyncio.run(limiter.count_request(caller)))
    assert headers[b"ratelimit-policy"] == b'"requests";q=2;w=60'
    assert headers[b"ratelimit"].startswith(b'"requests";r=1;t=')
    assert passes(limiter, caller)
    with pytest.raises(OverLimit) as refused:
        asyncio.run(limiter.count_request(caller))
    assert refused.value.problem.status == 429
    assert 1 <= int(headers_of(refused.value.problem)["Retry-After"]) <= 60
    assert dict(refused.value.headers_to_add)[b"ratelimit"].startswith(b'"requests";r=0;')


@given(st.lists(st.floats(0, 30), min_size=1, max_size=80), st.integers(1, 20))
def test_in_any_minute_at_most_twice_the_limit_passes(pauses_s: list[float], limit: int) -> None:
    """However requests are spread, those that pass within any 60 s stay near the limit (the window is an estimate: under twice)."""
    limiter, clock, caller = made(requests_per_minute=limit)
    passed: list[float] = []
    for pause_s in pauses_s:
        clock.now_s += pause_s / 10
        if passes(limiter, caller):
            passed.append(clock.now_s)
    for at_s in passed:
        assert sum(at_s <= other < at_s + 60 for other in passed) < 2 * limit + 1


def test_a_clock_that_is_set_back_neither_locks_out_nor_lets_through() -> None:
    """The time of day may jump by a year either way: what was counted stays counted, and is over after a minute."""
    limiter, clock, caller = made(requests_per_minute=3)
    assert [passes(limiter, caller) for _ in range(4)] == [True, True, True, False]
    for jump_s in (-86_400 * 365, 86_400 * 730):
        clock.epoch_s += jump_s
        assert not passes(limiter, caller)
    clock.now_s += 121
    assert passes(limiter, caller)


def test_tokens_are_counted_afterwards_and_hold_the_next_request() -> None:
    """An answer's tokens may go over the limit, as nobody knew before; then the key waits until its minute is over."""
    limiter, clock, caller = made(requests_per_minute=None, tokens_per_minute=100)
    assert passes(limiter, caller)
    asyncio.run(limiter.count_tokens(caller, 250))
    with pytest.raises(OverLimit, match="tokens a minute") as refused:
        asyncio.run(limiter.count_request(caller))
    assert 1 <= int(headers_of(refused.value.problem)["Retry-After"]) <= 61 or clock.epoch_s < time.time()
    clock.now_s += 61
    assert passes(limiter, caller)


def test_streams_at_once_are_limited_and_given_back() -> None:
    """A key may hold so many streams; one that ends, however it ends, makes room."""

    async def run() -> None:
        limiter, _, caller = made(streams=2)
        async with AsyncExitStack() as held:
            await held.enter_async_context(limiter.stream(caller))
            with pytest.raises(ZeroDivisionError):
                async with limiter.stream(caller):
                    raise ZeroDivisionError
            await held.enter_async_context(limiter.stream(caller))
            with pytest.raises(OverLimit, match="streams at once"):
                await held.enter_async_context(limiter.stream(caller))
            async with limiter.stream(Caller("other", caller.tier)):
                pass
        assert limiter._here.total == 0

    asyncio.run(run())


class GoneSlots:
    """Streams that are counted where nobody answers."""

    async def take(self, key_id: str, limit: int) -> str | None:
        raise StorageError("It does not answer.")

    def give_back(self, key_id: str, slot: str) -> None:
        raise AssertionError("never taken")


def test_streams_that_cannot_be_counted_are_refused_or_counted_here() -> None:
    """What counts streams being gone: 503 with Retry-After; with on_state_loss = "allow" each process counts its own."""

    async def run() -> None:
        caller = Caller("a", Tier(streams=1))
        with pytest.raises(LimitsUnavailable) as refused:
            async with Limiter(streams=GoneSlots()).stream(caller):
                pass
        assert refused.value.problem.status == 503
        blind = Limiter(streams=GoneSlots(), allow_blind=True)
        async with blind.stream(caller):
            with pytest.raises(OverLimit):
                async with blind.stream(caller):
                    pass
        async with Limiter(streams=GoneSlots()).stream(Caller("b", Tier(streams=None))):
            pass  # nothing is counted, so nobody need be asked

    asyncio.run(run())


def test_nothing_is_limited_where_the_tier_says_so() -> None:
    """None means not limited: nothing is counted and no header is sent."""
    limiter, _, caller = made(requests_per_minute=None, tokens_per_minute=None, streams=None)
    assert asyncio.run(limiter.count_request(caller)) == ()

    async def run() -> None:
        async with AsyncExitStack() as held:
            for _ in range(1000):
                await held.enter_async_context(limiter.stream(caller))

    asyncio.run(run())


class Elsewhere(Storage):
    """Counters behind limits' own interface, as those on Redis are; `gone`: they cannot be reached."""

    STORAGE_SCHEME = ["async+nbllm-elsewhere"]  # noqa: RUF012 - limits' own way to name a storage

    def __init__(self, inside: MemoryCounters, *, gone: bool = False) -> None:
        super().__init__()
        self.inside = inside
        self.gone = gone

    @property
    def base_exceptions(self) -> type[Exception]:
        return LimitsStorageError

    def _there(self) -> MemoryCounters:
        if self.gone:
            raise LimitsStorageError(ConnectionError())
        return self.inside

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        return await self._there().incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        return await self._there().get(key)

    async def get_expiry(self, key: str) -> float:
        return await self._there().get_expiry(key)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return await self._there().acquire_sliding_window_entry(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return await self._there().get_sliding_window(key, expiry)

    async def check(self) -> bool:
        return await self._there().check()

    async def reset(self) -> int | None:
        return await self._there().reset()

    async def clear(self, key: str) -> None:
        await self._there().clear(key)


@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from("ab"), st.integers(0, 30)), max_size=40),
    st.integers(1, 6),
    st.integers(1, 60),
)
def test_the_short_way_in_memory_counts_as_limits_does(steps: list[tuple[float, str, int]], requests: int, tokens: int) -> None:
    """In memory the strategies of limits are worked out without awaits: any sequence passes or is refused as with limits itself."""
    tier = Tier(requests_per_minute=requests, tokens_per_minute=tokens)
    here, clock, _ = made()
    there_clock = Clock()
    there = Limiter(Elsewhere(MemoryCounters(now_s=there_clock.now, epoch_s=there_clock.epoch)))
    for pause_s, key_id, used in steps:
        clock.now_s += pause_s
        there_clock.now_s += pause_s
        caller = Caller(key_id, tier)
        assert passes(here, caller) == passes(there, caller)
        assert here.count_tokens_here(caller, used)
        asyncio.run(there.count_tokens(caller, used))


def test_counters_that_are_gone_close_the_door_unless_told_otherwise() -> None:
    """What protects money fails closed: 503 with Retry-After; on_state_loss = "allow" lets requests pass uncounted."""
    caller = Caller("a", Tier())
    with pytest.raises(LimitsUnavailable) as refused:
        asyncio.run(Limiter(Elsewhere(MemoryCounters(), gone=True)).count_request(caller))
    assert refused.value.problem.status == 503
    assert "Retry-After" in headers_of(refused.value.problem)
    assert asyncio.run(Limiter(Elsewhere(MemoryCounters(), gone=True), allow_blind=True).count_request(caller)) == ()
    assert not asyncio.run(Limiter(Elsewhere(MemoryCounters(), gone=True)).works())


def test_counters_of_keys_that_are_gone_are_forgotten() -> None:
    """Memory does not grow with every key that ever called."""
    limiter, clock, _ = made()
    for number in range(300):
        assert passes(limiter, Caller(f"key{number}", Tier()))
        clock.now_s += 2
    assert len(limiter._storage._counts) < 150


def test_tokens_of_answers_count_on_the_key_that_asked(tmp_path: Path) -> None:
    """On a running service: what a flow and /v1 took is counted for its key, which then has to wait; another key has not."""
    tiers = "[service.tiers.slow]\ntokens_per_minute = 60\nrequests_per_minute = 1000000"
    with serving(tmp_path, flows=(say,), service=tiers) as served:
        slow, other = ({"Authorization": f"Bearer {served.it.service.keys.make(tier)[0]}"} for tier in ("slow", "default"))
        texts = iter(range(1000))

        def asked(headers: dict[str, str], path: str = "/flows/say") -> int:
            text = f"number {next(texts)}"
            body = {"text": text} if path == "/flows/say" else {
                "model": "sim/small", "messages": [{"role": "user", "content": text}],
            }  # fmt: skip
            return served.http.post(path, json=body, headers=headers).status_code

        assert asked(slow) == 200
        assert asked(slow, "/v1/chat/completions") == 200
        until(lambda: asked(slow) == 429)
        assert asked(slow, "/v1/chat/completions") == 429
        assert [asked(other) for _ in range(10)] == [200] * 10
