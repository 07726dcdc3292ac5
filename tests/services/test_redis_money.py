"""Money on Redis: exact beyond what doubles can say, kept when processes die, when Redis goes, and when it forgot."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded, BudgetUnavailable
from nbllm.storage.redis_budgets import RedisBudgets
from nbllm.storage.redis_link import Link
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
        dead, living = (RedisBudgets(Link(server.url), life_s=2.0) for _ in range(2))
        scope = [Scope("s", D(10))]
        await dead.reserve("r", scope, D(2))
        await living.reserve("mine", scope, D(1))
        assert dead._beating is not None
        dead._beating.cancel()
        assert await living.sweep() == 0
        await asyncio.sleep(2.3)
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
        for _ in range(300):
            await asyncio.sleep(0.1)
            if not (refusing._due or allowing._due):
                break
        assert (await refusing.balance(["s"]))["s"] == Balance(D("0.35"), D(0))
        await asyncio.gather(refusing.aclose(), allowing.aclose())
        await link.aclose()

    asyncio.run(run())


def test_many_calls_while_redis_is_gone_are_booked_when_it_is_back(server):
    """With "allow", what 500 calls cost in an outage is booked to the picodollar, once each."""

    async def run() -> None:
        link = Link(server.url, rest_s=0.05)
        budgets = RedisBudgets(link, on_state_loss="allow")
        scope = [Scope("s", D(100))]
        server.stop()
        for number in range(500):
            await budgets.reserve(f"r{number}", scope, D("0.2"))
            await budgets.settle(f"r{number}", scope, D("0.1") + PICO)
        assert len(budgets._due) == 500
        server.start()
        for _ in range(300):
            await asyncio.sleep(0.1)
            if not budgets._due:
                break
        assert (await budgets.balance(["s"]))["s"] == Balance(50 + 500 * PICO, D(0))
        await budgets.aclose()
        await link.aclose()

    asyncio.run(run())
