"""budget: never over a hard limit, for any number of callers and at any moment of a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.ports import Balance, Scope
from nbllm.core.reply import Reply
from nbllm.storage.memory import MemoryBudgets
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.spending import TEXT, Uses
from tests.pipeline.world import World, now_s, outcome


class Watched(MemoryBudgets):
    """Notes the most that was ever spent and reserved together on a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[str, Decimal] = {}

    def _add(self, names: Any, **amounts: Any) -> None:
        names = tuple(names)
        super()._add(names, **amounts)
        for name in names:
            held = self._of(name)
            self.most[name] = max(self.most.get(name, Decimal(0)), held.spent_usd + held.reserved_usd)


@pytest.mark.parametrize("scope", ["session", "day", "feature", "user"])
@pytest.mark.parametrize("honest", [True, False])
def test_peer_bug_a_budget_worth_two_calls_lets_two_through(scope: str, honest: bool) -> None:
    """200 callers at once on a budget worth two calls: none is over, whoever is refused is told so, nothing stays reserved."""

    async def run() -> None:
        settings: Mapping[str, Any] = {
            "session": {"budget.session_usd": "0.00415"},
            "day": {"budget.day_usd": "0.00415"},
            "feature": {"budget.features.f": "0.00415"},
            "user": {"budget.users.u": "0.00415"},
        }[scope]
        fake = FakeProvider if not honest else (lambda **more: Uses(10, 1000, **more))
        provider = fake(default=Script(pieces=["x"], first_after_s=1))
        world = World(provider, budgets=Watched(), settings=settings)
        results = await asyncio.gather(
            *(outcome(world.ask(f"question {n:03}", feature="f", user="u", max_tokens=1000)) for n in range(200))
        )
        done = [r for r in results if isinstance(r, Reply)]
        assert len(done) + sum(isinstance(r, errors.BudgetExceeded) for r in results) == 200
        assert len(done) >= 2
        limited = next(name for name in world.budgets.most if name.startswith(f"{scope}:"))
        assert world.budgets.most[limited] <= Decimal("0.00415")
        assert provider.calls == len(done)
        await world.close()

    run_virtual(run())


def test_two_callers_lower_beside_each_other() -> None:
    """Who is refused while others reserve beside it tries with what is left, a few times; never over."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["x"], first_after_s=1)), budgets=Watched())
        world.configure(**{"budget.session_usd": "0.01"})
        results = await asyncio.gather(*(outcome(world.ask(f"q{n}")) for n in range(20)))
        sent = [request.content.max_tokens for request in world.provider.requests]
        assert sum(isinstance(r, Reply) for r in results) == len(sent) >= 5
        assert all(limit is None or limit >= 256 for limit in sent)
        assert world.budgets.most["session:s"] <= Decimal("0.01")
        await world.close()

    run_virtual(run())


class Slow(MemoryBudgets):
    """A store that takes its time, before and after; who stops waiting changes nothing."""

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        await asyncio.sleep(1)
        reserved = await super().reserve(reservation_id, scopes, amount_usd)
        await asyncio.sleep(1)
        return reserved

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        booked = await super().settle(reservation_id, scopes, cost_usd)
        await asyncio.sleep(1)
        return booked


@pytest.mark.parametrize("cache", ["use", "off"])
@pytest.mark.parametrize("at_s", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5])
def test_cancelled_at_any_moment_nothing_stays_reserved(cache: str, at_s: float) -> None:
    """Cancelled while reserving, sending, receiving or settling: what was sent is booked at its estimate, the rest released."""

    async def run() -> None:
        fake = FakeProvider(Script(pieces=["one ", "two"], first_after_s=1, gap_s=1, end_after_s=0.5))
        world = World(fake, budgets=Slow(), settings={"budget_session_usd": "5"})
        began = now_s()
        call = world.start(TEXT, cache=cache, watched=True)
        await asyncio.sleep(at_s)
        call.cancel()
        result = await outcome(call)
        if not isinstance(result, Reply):
            assert now_s() - began <= at_s + 0.1
        await asyncio.sleep(5)
        costs = [a.cost_usd for a in world.ledger.attempts_by_id.values()]
        assert world.spent() == sum((c for c in costs if c is not None), Decimal(0))
        assert (world.spent() > 0) == (at_s > 2 or fake.calls > 0)
        await world.close()

    run_virtual(run())
