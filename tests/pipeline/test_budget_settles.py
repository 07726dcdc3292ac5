"""budget: reserved before, settled after, released in any case; one warning at the soft limit."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.spending import TEXT, Uses, worst
from tests.pipeline.world import World, outcome

# ---------------------------------------------------------------------------------------------------- reserve and settle


@pytest.mark.parametrize("limited", [False, True])
def test_the_true_cost_is_booked_once_on_every_scope(limited: bool) -> None:
    """Session, day, feature, user and request each get the attempt's cost, limited or not; nothing stays reserved."""

    async def run() -> None:
        world = World(Uses(100, 50), settings={"budget_session_usd": "5"} if limited else {})
        reply = await world.ask(TEXT, feature="f", user="u", budget_usd=Decimal(1))
        cost = Decimal("0.0002")
        assert reply.cost_usd == cost
        names = [name for name, balance in world.budgets._balances.items() if balance.spent_usd == cost]
        assert sorted(name.partition(":")[0] for name in names) == ["day", "feature", "request", "session", "user"]
        assert "day:2026-01-01" in names
        await world.close()

    run_virtual(run())


def test_the_worst_case_is_reserved_while_it_runs() -> None:
    """While a request is out, its bytes as input and its limit on output are held against the budget."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["x"], first_after_s=1)), settings={"budget_session_usd": "5"})
        call = world.start(TEXT, max_tokens=300)
        await asyncio.sleep(0.5)
        assert world.reserved()["session:s"] == worst(world, 300)
        reply = await call
        assert reply.attempts[0].worst_case_usd == worst(world, 300)
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    "fault",
    [
        errors.ServerFailed("no", status=500),
        errors.BadParameter("no", status=400),
        errors.ConnectionFailed("no", whole_endpoint=True),
        Script(pieces=["half"], then=errors.StreamInterrupted),
        RuntimeError("bug"),
    ],
)
def test_a_failure_releases_what_it_did_not_cost(fault: Any) -> None:
    """Failed attempts keep what they cost and release the rest; retries reserve and settle each for itself."""

    async def run() -> None:
        world = World(FakeProvider(default=fault), settings={"budget_session_usd": "5"})
        await outcome(world.ask(TEXT, watched=True))
        costs = [a.cost_usd for a in world.ledger.attempts_by_id.values()]
        assert world.spent() == sum((c for c in costs if c is not None), Decimal(0))
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


def test_an_overrun_is_booked_in_full_and_blocks_the_next() -> None:
    """A provider that ignores max_tokens costs what it costs; the budget is over, and the next attempt is refused."""

    async def run() -> None:
        world = World(Uses(100, 50_000), settings={"budget_session_usd": "0.01"})
        reply = await world.ask(TEXT, max_tokens=100)
        assert reply.cost_usd == world.spent() == Decimal("0.1001")
        with pytest.raises(errors.BudgetExceeded) as caught:
            await world.ask("next", max_tokens=1)
        assert caught.value.spent_usd == Decimal("0.1001")
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


def test_every_attempt_is_asked_about() -> None:
    """No retry escapes the budget: when what is left does not hold another try, it is refused."""

    async def run() -> None:
        half = Script(pieces=["word " * 400], then=errors.StreamInterrupted)
        world = World(FakeProvider(default=half), settings={"budget_session_usd": "0.0025"})
        with pytest.raises(errors.BudgetExceeded):
            await world.ask(TEXT, max_tokens=1000, watched=True, retries=10)
        assert world.provider.calls == 2
        assert world.spent() <= Decimal("0.0025")
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- soft limits


def test_one_warning_at_the_soft_limit() -> None:
    """The attempt that crosses 80% carries the one warning; those before and after it do not."""

    async def run() -> None:
        world = World(Uses(0, 1000), settings={"budget_session_usd": "0.02"})
        notes = [(await world.ask(f"q{n}", max_tokens=1000)).notes for n in range(9)]
        assert [any("soft limit" in note for note in said) for said in notes] == [False] * 7 + [True, False]
        (said,) = [note for note in notes[7] if "soft" in note]
        assert "session" in said
        assert "$0.016 of $0.02" in said
        await world.close()

    run_virtual(run())


def test_one_warning_of_concurrent_calls() -> None:
    """Of calls that cross the soft limit together one carries the warning."""

    async def run() -> None:
        world = World(Uses(0, 1000, default=Script(pieces=["x"], first_after_s=1)), settings={"budget_session_usd": "0.1"})
        replies = await asyncio.gather(*(world.ask(f"q{n}", max_tokens=1000) for n in range(45)))
        assert sum(any("soft limit" in note for note in reply.notes) for reply in replies) == 1
        await world.close()

    run_virtual(run())
