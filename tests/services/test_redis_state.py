"""What the ports on Redis promise beyond what all backends promise: exact money, damage, dead processes, a Redis that forgot."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core.breaker import BreakerState
from nbllm.core.ports import Balance, Scope
from nbllm.core.throttle import Bucket, BucketState
from nbllm.errors import BudgetExceeded, BudgetUnavailable, ConfigurationError
from nbllm.storage.redis_budgets import RedisBudgets
from nbllm.storage.redis_flights import RedisFlights
from nbllm.storage.redis_link import Link, RedisGone
from nbllm.storage.redis_responses import RedisResponseStore
from nbllm.storage.redis_shared import open_shared
from nbllm.storage.redis_states import BREAKERS, BUCKETS, RedisState
from tests.conformance.test_response_store import entry
from tests.redis_server import RedisServer

D = Decimal
PICO = D(1).scaleb(-12)
FROM_2_53 = st.integers(2**53 - 3, 2**60).map(lambda pico: pico * PICO)


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    """An empty Redis."""
    redis_server.flush()
    return redis_server


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spent=FROM_2_53, amount=FROM_2_53, beyond=st.integers(-2, 2))
def test_money_is_exact_where_doubles_are_not(server, spent, amount, beyond):
    """Above 2^53 picodollars, too, what fits to the picodollar is let through and one more is not."""
    server.flush()

    async def run() -> None:
        budgets = RedisBudgets(Link(server.url))
        await budgets.settle("first", [Scope("s", D(10**7))], spent)
        limit = spent + amount + beyond * PICO
        if beyond < 0:
            with pytest.raises(BudgetExceeded):
                await budgets.reserve("r", [Scope("s", limit)], amount)
            assert (await budgets.balance(["s"]))["s"] == Balance(spent, D(0))
        else:
            held = await budgets.reserve("r", [Scope("s", limit)], amount)
            assert held["s"] == Balance(spent, amount)
        await budgets.aclose()

    asyncio.run(run())


def test_more_money_than_fits_stays_at_the_most(server):
    """Sums beyond nine million dollars neither wrap around nor fail."""

    async def run() -> None:
        budgets = RedisBudgets(Link(server.url))
        for number in range(4):
            await budgets.settle(f"r{number}", [Scope("s", D(1))], D("Infinity"))
        assert (await budgets.balance(["s"]))["s"].spent_usd == (2**63 - 1) * PICO
        with pytest.raises(BudgetExceeded):
            await budgets.reserve("r", [Scope("s", D(10**6))], D(0))
        await budgets.aclose()

    asyncio.run(run())


def test_what_a_dead_process_reserved_is_spent_in_full(server):
    """Not before it has given no sign of life for its time; a late word of it adds only what it cost beyond that."""

    async def run() -> None:
        dead, living = (RedisBudgets(Link(server.url), life_s=0.2) for _ in range(2))
        scope = [Scope("s", D(10))]
        await dead.reserve("r", scope, D(2))
        await living.reserve("mine", scope, D(1))
        assert dead._beating is not None
        dead._beating.cancel()
        assert await living.sweep() == 0
        await asyncio.sleep(0.3)
        assert await living.sweep() == 1
        assert (await living.balance(["s"]))["s"] == Balance(D(2), D(1)), "what the living one holds is still held"
        await dead.settle("r", scope, D("0.5"))
        assert (await living.balance(["s"]))["s"].spent_usd == D(2)
        await living.settle("mine", scope, D("0.25"))
        assert (await living.balance(["s"]))["s"] == Balance(D("2.25"), D(0))
        await asyncio.gather(dead.aclose(), living.aclose())

    asyncio.run(run())


def test_an_overrun_of_what_was_swept_is_booked(server):
    """An attempt that cost more than was reserved for it costs that, whoever thought its process dead."""

    async def run() -> None:
        budgets = RedisBudgets(Link(server.url), life_s=0.1)
        scope = [Scope("s", D(10))]
        await budgets.reserve("r", scope, D(2))
        assert budgets._beating is not None
        budgets._beating.cancel()
        await asyncio.sleep(0.15)
        assert await budgets.sweep() == 1
        await budgets.settle("r", scope, D(3))
        await budgets.settle("r", scope, D(3))
        assert (await budgets.balance(["s"]))["s"] == Balance(D(3), D(0))
        await budgets.aclose()

    asyncio.run(run())


def test_a_redis_that_forgot_is_told_what_was_spent(server):
    """What a process knows to be spent holds although Redis came back empty."""

    async def run() -> None:
        budgets = RedisBudgets(Link(server.url))
        scope = [Scope("s", D(1))]
        await budgets.reserve("a", scope, D("0.5"))
        await budgets.settle("a", scope, D("0.5"))
        await budgets.reserve("open", scope, D("0.2"))
        server.flush()
        with pytest.raises(BudgetExceeded):
            await budgets.reserve("b", scope, D("0.6"))
        await budgets.settle("open", scope, D("0.2"))
        assert (await budgets.balance(["s"]))["s"] == Balance(D("0.7"), D(0))
        await budgets.aclose()

    asyncio.run(run())


def test_money_while_redis_is_gone_and_after(server):
    """Nothing may be reserved, or all with "allow"; what was spent meanwhile is booked when Redis is back, once."""

    async def run() -> None:
        link = Link(server.url, rest_s=0.05)
        refusing, allowing = RedisBudgets(link), RedisBudgets(link, on_state_loss="allow")
        scope = [Scope("s", D(1))]
        await refusing.reserve("held", scope, D("0.3"))
        server.stop()
        with pytest.raises(BudgetUnavailable, match="does not answer"):
            await refusing.reserve("r", scope, D("0.1"))
        with pytest.raises(BudgetUnavailable):
            await refusing.settle("held", scope, D("0.25"))
        assert await allowing.reserve("free", scope, D("0.1")) == {}
        assert await allowing.settle("free", scope, D("0.1")) == {}
        server.start()
        for _ in range(60):
            await asyncio.sleep(0.1)
            if not (refusing._due or allowing._due):
                break
        assert (await refusing.balance(["s"]))["s"] == Balance(D("0.35"), D(0))
        await asyncio.gather(refusing.aclose(), allowing.aclose())
        await link.aclose()

    asyncio.run(run())


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
        clock = asyncio.get_running_loop().time
        link = Link(server.url, op_s=0.15, rest_s=0.1)
        assert await link.ping()
        server.freeze()
        try:
            began_s = clock()
            with pytest.raises(RedisGone):
                await link.call("PING")
            assert 0.1 < clock() - began_s < 0.4
            began_s = clock()
            for _ in range(20):
                with pytest.raises(RedisGone):
                    await link.call("PING")
            assert clock() - began_s < 0.05
        finally:
            server.thaw()
        await asyncio.sleep(0.15)
        assert await link.ping()
        await link.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["", "http://localhost", "redis://", "localhost:6379"])
def test_another_address_is_refused(url):
    """At once, by name, before anything is asked."""
    with pytest.raises(ConfigurationError, match="no address of a Redis"):
        open_shared(url)
