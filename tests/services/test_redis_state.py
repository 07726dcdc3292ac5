"""What the ports on Redis promise beyond what all backends promise: damage, clocks, and a link that is one short wait at most."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.breaker import BreakerState
from nbllm.core.throttle import Bucket, BucketState
from nbllm.errors import ConfigurationError
from nbllm.storage.redis_flights import RedisFlights
from nbllm.storage.redis_link import Link, RedisGone
from nbllm.storage.redis_responses import RedisResponseStore
from nbllm.storage.redis_shared import open_shared
from nbllm.storage.redis_states import BREAKERS, BUCKETS, RedisState
from tests.conformance.test_response_store import entry
from tests.redis_server import RedisServer, running_redis
from tests.starvation import Stopwatch


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """An empty Redis."""
    redis_server.flush()
    return redis_server


@pytest.mark.parametrize(
    "harm", [lambda value: value[:-1], lambda value: value[:9] + b"X" + value[10:], lambda _: b"", lambda _: b"\x80\x04N."]
)
def test_damage_is_a_miss_and_set_aside(server, harm: Any):
    """A value that is not what was stored is not handed out; it is counted, and the next answer takes its place."""

    async def run() -> None:
        link = Link(server.url)
        store = RedisResponseStore(link)
        await store.put(entry("k"))
        with server.client() as client:
            client.set(link.key("answer:k"), harm(client.get(link.key("answer:k"))))
        assert await store.get("k") is None
        assert (store.stats().entries, store.stats().damaged) == (0, 1)
        await store.put(entry("k"))
        assert await store.get("k") is not None

    asyncio.run(run())


def test_an_answer_of_another_key_is_no_answer(server):
    """The checksum covers the key: a value that stands in the wrong place is damage."""

    async def run() -> None:
        link = Link(server.url)
        store = RedisResponseStore(link)
        await store.put(entry("mine"))
        with server.client() as client:
            client.set(link.key("answer:other"), client.get(link.key("answer:mine")))
        assert await store.get("other") is None

    asyncio.run(run())


def test_the_least_recently_used_answers_go_first(server):
    """The cache keeps to its size, and what was read stays longer than what was not."""

    async def run() -> None:
        store = RedisResponseStore(Link(server.url), size_limit_bytes=2500)
        await store.put(entry("size"))
        one = store.stats().size_bytes
        many = 2500 // one
        store.purge()
        for number in range(many):
            await store.put(entry(f"k{number}"))
        assert await store.get("k0") is not None
        await store.put(entry("new"))
        left = {found.key for found in store.entries()}
        assert {"k0", "new"} <= left
        assert "k1" not in left
        assert store.stats().size_bytes <= 2500

    asyncio.run(run())


def test_a_lead_that_nobody_waits_for_leaves_no_lease(server):
    """A call that is cancelled while it asks for a lease does not keep others waiting for it."""

    async def run() -> None:
        link = Link(server.url)
        flights = RedisFlights(link)
        await flights.release(await flights.lead("warm", lease_s=10) or pytest.fail("no lease"))
        asking = asyncio.ensure_future(flights.lead("k", lease_s=10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for _ in range(50):
            await asyncio.sleep(0.01)
            if (lease := await flights.lead("k", lease_s=10)) is not None:
                break
        assert lease is not None
        await link.aclose()

    asyncio.run(run())


def test_states_keep_their_times_between_clocks(server):
    """Two machines whose monotonic clocks differ by days see a breaker rest until the same moment, to half a second."""

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        here = RedisState(Link(server.url), "breaker", BREAKERS, now_s=clock)
        there = RedisState(Link(server.url), "breaker", BREAKERS, now_s=lambda: clock() + 1_000_000.25)
        now_s = clock()
        opened = BreakerState(generation=3, open_until_s=now_s + 15, slots=((int(now_s), 5, 5),), lease_id="a", lease_until_s=now_s)
        await here.apply("k", lambda _: (opened, None))
        seen = await there.read("k")
        assert seen is not None
        assert seen.open_until_s == pytest.approx(now_s + 1_000_015.25, abs=1.01)
        assert seen.slots[0][0] == pytest.approx(int(now_s) + 1_000_000, abs=1)
        assert (seen.generation, seen.lease_id) == (3, "a")

    asyncio.run(run())


@given(
    slots=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 99), st.integers(0, 99)), max_size=3).map(tuple),
    bucket=st.none() | st.builds(Bucket, *(st.floats(0, 1e6) for _ in range(4))),
    by_s=st.integers(-(10**9), 10**9),
)
def test_states_survive_the_way_to_redis_and_back(slots, bucket, by_s):
    """Encoded, and moved there and back, a state is what it was, to a microsecond."""
    state = BucketState(slots, bucket, None)
    back = BUCKETS.moved(BUCKETS.decode(BUCKETS.encode(BUCKETS.moved(state, by_s))), -by_s)
    assert back.slots == slots
    assert (back.requests is None) == (bucket is None)
    if bucket and back.requests:
        assert back.requests.at_s == pytest.approx(bucket.at_s, abs=1e-6)
        assert back.requests.limit == bucket.limit


def test_a_damaged_state_is_none(server):
    """Where something else stands under a state's key, nothing is known, and the next change takes its place."""

    async def run() -> None:
        with server.client() as client:
            client.set("nbllm:breaker:k", "x" * 40)
        state = RedisState(Link(server.url), "breaker", BREAKERS)
        assert await state.read("k") is None
        await state.apply("k", lambda old: (BreakerState(generation=7), old))
        assert (await RedisState(Link(server.url), "breaker", BREAKERS).read("k") or BreakerState()).generation == 7

    asyncio.run(run())


def test_commands_that_come_together_go_out_together(server):
    """A hundred callers at once use one connection."""

    async def run() -> None:
        link = Link(server.url)
        await asyncio.gather(*(link.call("SET", f"k{number}", number) for number in range(100)))
        assert [int(one) for one in await asyncio.gather(*(link.call("GET", f"k{n}") for n in range(100)))] == list(range(100))
        with server.client() as client:
            assert len([one for one in client.client_list() if one["cmd"] == "get"]) == 1
        await link.aclose()

    asyncio.run(run())


def test_a_dead_connection_is_no_failure(server):
    """A Redis that was started anew while nobody asked it is asked on a new connection."""

    async def run() -> None:
        link = Link(server.url)
        assert await link.ping()
        server.stop()
        server.start()
        assert await link.call("PING")
        await link.aclose()

    asyncio.run(run())


def test_a_frozen_redis_costs_one_short_wait(server):
    """The first caller waits for the time of one command, those after it not at all, until it answers again."""

    async def run() -> None:
        link = Link(server.url, op_s=0.5, rest_s=1.0)
        assert await link.ping()
        server.freeze()
        try:
            watch = Stopwatch(others=True)
            with pytest.raises(RedisGone):
                await link.call("PING")
            assert watch.all_s > 0.4
            assert watch.s < 0.9
            watch = Stopwatch(others=True)
            for _ in range(20):
                with pytest.raises(RedisGone):
                    await link.call("PING")
            assert watch.s < 0.5
        finally:
            server.thaw()
        end_s = time.monotonic() + 30
        while not await link.ping():
            assert time.monotonic() < end_s
            await asyncio.sleep(0.05)
        await link.aclose()

    asyncio.run(run())


def test_a_loop_that_stood_still_does_not_blame_redis(server, monkeypatch):
    """An answer that came while this process was busy with something else is no failure of Redis."""

    async def run() -> None:
        link = Link(server.url, op_s=0.1)
        assert await link.ping()
        runner = link._runner()
        send_once, stalls = runner._send_once, [0.3]

        async def stalled(commands: Any) -> Any:
            if stalls:
                asyncio.get_running_loop().call_soon(time.sleep, stalls.pop())
            return await send_once(commands)

        monkeypatch.setattr(runner, "_send_once", stalled)
        assert await link.call("PING")
        assert link.up_for_s() > 0
        await link.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["", "http://localhost", "redis://", "localhost:6379"])
def test_another_address_is_refused(url):
    """At once, by name, before anything is asked."""
    with pytest.raises(ConfigurationError, match="no address of a Redis"):
        open_shared(url)


def test_a_wrong_password_is_said():
    """Also by the calls that come right after, and without the password."""
    with running_redis() as server:
        with server.client() as client:
            client.config_set("requirepass", "right-password-1")

        async def run() -> None:
            link = Link(server.url.replace("unix://", "unix://:wrong-password-1@"))
            for _ in range(2):
                with pytest.raises(RedisGone, match="refuses the user or the password") as caught:
                    await link.call("PING")
                assert "wrong-password-1" not in f"{caught.value!r} {caught.value} {link!r}"
            await link.aclose()

        asyncio.run(run())
