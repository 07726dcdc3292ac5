"""budget: max_tokens is lowered to what fits, and what an unknown price or limit leads to."""

from __future__ import annotations

from decimal import Decimal

import pytest

from nbllm import errors
from nbllm.core.pricing import Price
from nbllm.testing import run_virtual
from tests.pipeline.making import priced_like, rung
from tests.pipeline.spending import TEXT, worst
from tests.pipeline.world import World

# ---------------------------------------------------------------------------------------------------- lowering


def test_max_tokens_is_lowered_to_what_fits_and_said_once() -> None:
    """When only the room for the answer does not fit, max_tokens on the wire is lowered to exactly what does."""

    async def run() -> None:
        world = World()
        for tokens in (256, 300, 999):
            limit = worst(world, tokens)
            reply = await world.ask(TEXT, budget_usd=limit, cache="off")
            assert world.provider.requests[-1].content.max_tokens == tokens
            notes = [note for note in reply.notes if "max_tokens" in note]
            assert len(notes) == 1
            assert f"lowered to {tokens}" in notes[0]
        reply = await world.ask(TEXT, budget_usd=worst(world, 1000), cache="off")
        assert world.provider.requests[-1].content.max_tokens is None
        assert not reply.notes
        await world.close()

    run_virtual(run())


def test_under_256_tokens_it_is_refused() -> None:
    """An answer cut that short is of no use: the attempt is refused, the error says what there is and what was needed."""

    async def run() -> None:
        world = World()
        limit = worst(world, 255)
        with pytest.raises(errors.BudgetExceeded, match="Nothing was sent") as caught:
            await world.ask(TEXT, budget_usd=limit)
        error = caught.value
        assert (error.limit_usd, error.spent_usd, error.reserved_usd) == (limit, 0, 0)
        assert error.needed_usd > limit
        assert error.scope.startswith("request:")
        assert error.hint
        assert world.provider.calls == 0
        assert not any("lowered" in note for note in getattr(error, "__notes__", []))
        reply = await world.ask(TEXT, budget_usd=worst(world, 100), max_tokens=100)
        assert not reply.notes, "who asks for little gets it"
        await world.close()

    run_virtual(run())


def test_the_question_itself_must_fit() -> None:
    """An input that alone costs more than there is cannot be helped by lowering anything."""

    async def run() -> None:
        world = World()
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("x" * 10_000, budget_usd=Decimal("0.005"))
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


def test_lowering_does_not_change_the_key() -> None:
    """A complete answer under a lowered limit is a hit for the same question afterwards."""

    async def run() -> None:
        world = World()
        assert (await world.ask(TEXT, budget_usd=worst(world, 300))).notes
        assert (await world.ask(TEXT)).source == "cache"
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- prices


def test_an_unpriced_model_under_a_hard_budget_is_refused() -> None:
    """Unknown is not 0: with a hard budget such a model is refused with what to do; without one it is called, cost unknown."""

    async def run() -> None:
        world = World(rungs={"one/m": priced_like(rung(), price=None)})
        with pytest.raises(errors.UnpricedModel, match="price of one/m is unknown") as caught:
            await world.ask(TEXT, budget_usd=Decimal(5))
        assert "input_usd_per_mtok" in caught.value.hint
        assert "so the request budget cannot hold" in str(caught.value), "the scope's id is ours and says nothing to anybody"
        assert world.provider.calls == 0
        reply = await world.ask(TEXT)
        assert (reply.cost_usd, reply.cost_basis) == (None, "unknown")
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("limits", [(None, None), (None, 4096), (100, 4096)])
def test_a_price_of_zero_is_a_price(limits: tuple[int | None, int | None]) -> None:
    """A model of one's own, stated at 0, is called under a hard budget, its limit on tokens known or not."""

    async def run() -> None:
        free = priced_like(rung(), price=Price(Decimal(0), Decimal(0)), max_output_tokens=limits[0], context_tokens=limits[1])
        world = World(rungs={"one/m": free}, settings={"budget_session_usd": "0.01"})
        reply = await world.ask(TEXT)
        assert (reply.cost_usd, reply.cost_basis) == (0, "exact")
        assert world.provider.requests[0].content.max_tokens is None
        assert not reply.notes
        await world.close()

    run_virtual(run())


def test_without_any_known_limit_the_budget_sets_one() -> None:
    """Nobody knows how long the answer may be: max_tokens is what nearly every server takes, less where the budget holds less."""

    async def run() -> None:
        world = World(rungs={"one/m": priced_like(rung(), max_output_tokens=None, context_tokens=None)})
        rich = await world.ask(TEXT, budget_usd=worst(world, 2_000_000))
        assert world.provider.requests[0].content.max_tokens == 4096
        assert "max_tokens was set to 4096" in rich.notes[0]
        poor = await world.ask(TEXT, budget_usd=worst(world, 3000), sample=1)
        assert world.provider.requests[1].content.max_tokens == 3000
        assert "lowered to 3000" in poor.notes[0]
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("other", budget_usd=worst(world, 200))
        await world.close()

    run_virtual(run())
