"""coalesce in one process: a budget that refuses concerns only the call whose budget it is."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from nbllm import errors
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.making import slow
from tests.pipeline.world import World, outcome


def test_a_budget_refusal_ends_only_that_waiter() -> None:
    """When the leader's own budget refuses, the next leads with its own; the leader alone gets BudgetExceeded."""

    async def run() -> None:
        world = World(FakeProvider(default=slow()))
        poor = [world.start("q", budget_usd=Decimal("0.000001")) for _ in range(2)]
        rich = [world.start("q") for _ in range(3)]
        for call in poor:
            assert isinstance(await outcome(call), errors.BudgetExceeded)
        assert [(await call).text for call in rich] == ["an answer"] * 3
        assert world.provider.calls == 1
        assert [(await call).coalesced for call in rich] == [False, True, True]
        await world.close()

    run_virtual(run())


def test_a_joiners_empty_budget_does_not_matter_to_it() -> None:
    """Who joins pays nothing, so a budget too small for the request refuses nothing."""

    async def run() -> None:
        world = World(FakeProvider(slow()))
        _, joined = await asyncio.gather(world.ask("q"), world.ask("q", budget_usd=Decimal("0.000001")))
        assert (joined.text, joined.cost_usd) == ("an answer", 0)
        await world.close()

    run_virtual(run())


def test_nobody_is_refused_for_a_budget_that_left() -> None:
    """A leader leaves while its budget is being asked: its refusal does not reach those who stayed."""

    async def run() -> None:
        from nbllm.storage.memory import MemoryBudgets

        class Slow(MemoryBudgets):
            async def reserve(self, *args: Any) -> Any:
                await asyncio.sleep(1)
                return await super().reserve(*args)

        world = World(FakeProvider(default="fine"), budgets=Slow())
        leader = world.start("q", budget_usd=Decimal("0.000001"))
        others = [world.start("q", budget_usd=Decimal(1)), world.start("q")]
        await asyncio.sleep(0.5)
        leader.cancel()
        assert [(await call).text for call in others] == ["fine"] * 2
        await world.close()

    run_virtual(run())


def test_every_budget_refuses() -> None:
    """When each waiter's own budget refuses, each gets its own BudgetExceeded, and nothing is sent."""

    async def run() -> None:
        world = World()
        limits = [Decimal(f"0.00000{n}") for n in range(1, 6)]
        results = await asyncio.gather(*(outcome(world.ask("q", budget_usd=limit)) for limit in limits))
        assert [r.limit_usd for r in results if isinstance(r, errors.BudgetExceeded)] == limits
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())
