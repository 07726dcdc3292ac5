"""Limits of keys that two replicas share, on a real Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from limits import RateLimitItemPerMinute
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.limiting import Limiter, LimitsUnavailable, OverLimit
from nbllm.service.redis_counters import RedisCounters
from nbllm.service.redis_streams import RedisSlots
from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer

LONGEST_S = 10
"""How long a test of this file may take on a busy machine."""


@pytest.fixture(autouse=True)
def room_in_the_minute() -> None:
    """Redis counts in minutes of its clock, and where one ends the next lets one more pass: no test is to meet that end."""
    left_s = 60 - time.time() % 60
    if left_s < LONGEST_S:
        time.sleep(left_s)


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


def streaming(link: Link, *, lease_s: float = 15.0) -> Limiter:
    return Limiter(RedisCounters(link), RedisSlots(link, lease_s=lease_s))


def test_two_replicas_share_the_streams_of_a_key(redis_server: RedisServer) -> None:
    """Of 30 streams that two replicas open at once as many begin as the key may have; those that end make room in the other."""
    redis_server.flush()

    async def run() -> None:
        links = [Link(redis_server.url) for _ in range(2)]
        limiters = [streaming(link) for link in links]
        begun, end = [0, 0], asyncio.Event()

        async def hold(number: int) -> None:
            async with limiters[number % 2].stream(caller(streams=6)):
                begun[number % 2] += 1
                await end.wait()

        tasks = [asyncio.create_task(hold(n)) for n in range(30)]
        async with asyncio.timeout(30):
            while sum(task.done() for task in tasks) < 24:
                await asyncio.sleep(0.01)
        done, held = await asyncio.wait(tasks, timeout=0.2)
        assert len(held) == 6
        assert sum(begun) == 6
        assert all(isinstance(task.exception(), OverLimit) for task in done)
        async with limiters[0].stream(Caller("another", Tier(streams=1))):
            pass
        cancelled = next(iter(held))
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await asyncio.gather(*(link.ping() for link in links))  # what was given back is told in order
        async with limiters[1].stream(caller(streams=6)):
            pass
        end.set()
        await asyncio.wait(held)
        await asyncio.gather(*(link.ping() for link in links))
        with redis_server.client() as client:
            assert not client.keys("*streams*")
        await asyncio.gather(*(link.aclose() for link in links))

    asyncio.run(run())


def test_streams_of_a_replica_that_was_killed_lapse_and_those_of_one_that_lives_do_not(redis_server: RedisServer) -> None:
    """A lease is renewed while its stream is open, however long, and nobody else renews that of a process that died."""
    redis_server.flush()

    async def run() -> None:
        links = [Link(redis_server.url) for _ in range(3)]
        lives, other = (streaming(link, lease_s=2.0) for link in links[:2])
        dead = RedisSlots(links[2], lease_s=2.0)
        assert await dead.take("key", 1) is not None
        assert dead._renewing is not None
        dead._renewing.cancel()
        with pytest.raises(OverLimit):
            async with other.stream(caller(streams=1)):
                pass
        await asyncio.sleep(2.1)
        async with lives.stream(caller(streams=1)):
            for _ in range(4):
                await asyncio.sleep(0.6)
                with pytest.raises(OverLimit):
                    async with other.stream(caller(streams=1)):
                        pass
        await links[0].ping()
        async with other.stream(caller(streams=1)):
            pass
        await asyncio.gather(*(link.aclose() for link in links))

    asyncio.run(run())


async def is_full(limiter: Limiter) -> bool:
    """Whether a key's one stream is known to be open."""
    with suppress(LimitsUnavailable):
        try:
            async with limiter.stream(caller(streams=1)):
                return False
        except OverLimit:
            return True
    return False


def test_streams_go_on_while_redis_is_gone_and_are_counted_again_when_it_is_back(redis_server: RedisServer) -> None:
    """A stream that began is not cut by a Redis that goes; new ones are refused with 503; an empty Redis learns of those open."""
    redis_server.flush()

    async def run() -> None:
        link = Link(redis_server.url, rest_s=0.05)
        limiter = streaming(link, lease_s=0.3)
        async with limiter.stream(caller(streams=1)):
            redis_server.stop()
            try:
                with pytest.raises(LimitsUnavailable):
                    async with limiter.stream(caller(streams=1)):
                        pass
            finally:
                redis_server.start()
            async with asyncio.timeout(30):
                while not await is_full(limiter):
                    await asyncio.sleep(0.1)
        async with limiter.stream(caller(streams=1)):
            pass
        await link.aclose()

    asyncio.run(run())


def test_a_redis_that_only_answers_does_not_count(redis_server: RedisServer) -> None:
    """One that became a replica says PONG and takes nothing: /ready is to know, and requests are refused."""
    redis_server.flush()

    async def run() -> None:
        link = Link(redis_server.url, rest_s=0.02)
        limiter = streaming(link)
        assert await limiter.works()
        with redis_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            try:
                assert not await limiter.works()
                with pytest.raises(LimitsUnavailable):
                    await limiter.count_request(caller())
            finally:
                client.execute_command("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(0.05)
        assert await limiter.works()
        await limiter.count_request(caller())
        await link.aclose()

    asyncio.run(run())
