from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded
from nbllm.storage.memory import MemoryBudgets
from nbllm.storage.open import open_storage
from tests.conformance.conftest import Clock, on_redis

D = Decimal


def test_reserve_then_settle(backend):
    """A reservation is held until it is settled at what it truly cost."""

    async def run() -> None:
        scopes = [Scope("session:s", D(1)), Scope("day:d")]
        held = await backend.budgets.reserve("r", scopes, D("0.3"))
        assert held["session:s"] == Balance(D(0), D("0.3"))
        assert await backend.budgets.balance(["day:d"]) == {"day:d": Balance(D(0), D("0.3"))}
        after = await backend.budgets.settle("r", scopes, D("0.1"))
        assert after["session:s"] == Balance(D("0.1"), D(0))
        assert await backend.budgets.balance(["day:d", "never"]) == {"day:d": Balance(D("0.1"), D(0)), "never": Balance(D(0), D(0))}

    asyncio.run(run())


def test_all_scopes_or_none(backend):
    """When the second scope refuses, nothing is held in the first."""

    async def run() -> None:
        with pytest.raises(BudgetExceeded) as caught:
            await backend.budgets.reserve("r", [Scope("a", D(5)), Scope("b", D(1))], D(2))
        assert (caught.value.scope, caught.value.limit_usd, caught.value.needed_usd) == ("b", D(1), D(2))
        assert (await backend.budgets.balance(["a"]))["a"] == Balance(D(0), D(0))

    asyncio.run(run())


def test_exactly_the_limit_fits_and_a_picodollar_more_does_not(backend):
    """The limit itself may be spent."""

    async def run() -> None:
        scope = [Scope("s", D("0.3"))]
        await backend.budgets.reserve("a", scope, D("0.1"))
        with pytest.raises(BudgetExceeded):
            await backend.budgets.reserve("b", scope, D("0.200000000001"))
        await backend.budgets.reserve("c", scope, D("0.2"))

    asyncio.run(run())


def test_an_overrun_is_booked_in_full_and_blocks_the_next(backend):
    """Spent may pass the limit; then even an attempt that costs nothing is refused."""

    async def run() -> None:
        scope = [Scope("s", D(1))]
        await backend.budgets.reserve("a", scope, D("0.5"))
        after = await backend.budgets.settle("a", scope, D("1.5"))
        assert after["s"] == Balance(D("1.5"), D(0))
        with pytest.raises(BudgetExceeded):
            await backend.budgets.reserve("b", scope, D(0))

    asyncio.run(run())


def test_an_id_is_booked_once(backend):
    """A second settle, and a reserve after it, change nothing."""

    async def run() -> None:
        scope = [Scope("s", D(1))]
        await backend.budgets.reserve("a", scope, D("0.5"))
        await backend.budgets.reserve("a", scope, D("0.5"))
        assert (await backend.budgets.balance(["s"]))["s"] == Balance(D(0), D("0.5"))
        await backend.budgets.settle("a", scope, D("0.2"))
        await backend.budgets.settle("a", scope, D("0.2"))
        await backend.budgets.reserve("a", scope, D("0.5"))
        assert (await backend.budgets.balance(["s"]))["s"] == Balance(D("0.2"), D(0))

    asyncio.run(run())


def test_settling_without_a_reservation_books(backend):
    """Where no hard limit is set nothing is reserved, but what was spent counts."""

    async def run() -> None:
        await backend.budgets.settle("a", [Scope("s")], D("0.2"))
        assert (await backend.budgets.balance(["s"]))["s"] == Balance(D("0.2"), D(0))

    asyncio.run(run())


def test_two_hundred_callers_on_a_budget_worth_two(backend):
    """Exactly two get through, and never is more held than the limit."""

    async def run() -> None:
        scope = [Scope("s", D("0.25"))]

        async def call(number: int) -> bool:
            try:
                held = await backend.budgets.reserve(f"r{number}", scope, D("0.1"))
            except BudgetExceeded:
                return False
            assert held["s"].spent_usd + held["s"].reserved_usd <= D("0.25")
            await asyncio.sleep(0)
            await backend.budgets.settle(f"r{number}", scope, D("0.1"))
            return True

        assert sum(await asyncio.gather(*(call(number) for number in range(200)))) == 2
        assert (await backend.budgets.balance(["s"]))["s"] == Balance(D("0.2"), D(0))

    asyncio.run(run())


_MONEY = st.integers(0, 10**13).map(lambda pico: D(pico).scaleb(-12))
_STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle"]), st.integers(0, 5), st.sampled_from(["a", "b", "ab"]), _MONEY), max_size=25
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
@pytest.mark.parametrize("kind", ["disk", "redis"])
def test_each_backend_agrees_with_memory(request, tmp_path_factory, kind, steps):
    """Whatever is reserved and settled, both backends hold the same balances and refuse the same attempts."""
    storage = open_storage(tmp_path_factory.mktemp("home") / "home", session="s")
    held = storage.budgets if kind == "disk" else on_redis(request.getfixturevalue("redis_server"), Clock()).budgets
    limits = {"a": D(12), "b": None}

    async def run() -> None:
        for step, number, names, amount in steps:
            scopes = [Scope(name, limits[name]) for name in names]
            outcomes = []
            for budgets in (held, memory):
                try:
                    outcomes.append(await getattr(budgets, step)(f"r{number}", scopes, amount))
                except BudgetExceeded as exc:
                    outcomes.append(exc.scope)
            if isinstance(outcomes[1], Mapping):  # scopes without a limit may be left out
                outcomes = [{name: left for name, left in known.items() if limits[name] is not None} for known in outcomes]
            assert outcomes[0] == outcomes[1]
        assert await held.balance(["a", "b"]) == await memory.balance(["a", "b"])

    memory = MemoryBudgets()
    try:
        asyncio.run(run())
    finally:
        storage.close()
