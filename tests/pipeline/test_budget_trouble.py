"""budget: a store that is out of reach sends nothing that it should have checked."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm import errors
from nbllm.storage.memory import MemoryBudgets
from nbllm.testing import run_virtual
from tests.pipeline.spending import TEXT
from tests.pipeline.world import World


class Down(MemoryBudgets):
    """A store that fails where it is told to."""

    def __init__(self, *fails: str) -> None:
        super().__init__()
        self.fails = fails

    async def reserve(self, *args: Any) -> Any:
        if "reserve" in self.fails:
            raise errors.BudgetUnavailable("The budget cannot be checked: locked. Nothing was sent.")
        return await super().reserve(*args)

    async def settle(self, *args: Any) -> Any:
        if "settle" in self.fails:
            raise errors.BudgetUnavailable("The budget cannot be checked: locked. Nothing was sent.")
        return await super().settle(*args)


def test_a_budget_that_cannot_be_checked_sends_nothing() -> None:
    """A hard budget whose store is out of reach: BudgetUnavailable before anything is sent."""

    async def run() -> None:
        world = World(budgets=Down("reserve"), settings={"budget_session_usd": "5"})
        with pytest.raises(errors.BudgetUnavailable):
            await world.ask(TEXT, "one/m", "two/m", static="sorry")
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


def test_without_a_hard_budget_nothing_has_to_be_checked() -> None:
    """No limit, nothing to reserve: a store that is out of reach does not stop the call."""

    async def run() -> None:
        world = World(budgets=Down("reserve"))
        assert (await world.ask(TEXT)).text == "ok"
        await world.close()

    run_virtual(run())


def test_an_answer_that_cannot_be_booked_is_delivered_with_a_note() -> None:
    """After the send the answer is paid for: it is delivered with a note; the reservation blocks rather than lets through."""

    async def run() -> None:
        world = World(budgets=Down("settle"), settings={"budget_session_usd": "5"})
        reply = await world.ask(TEXT)
        assert reply.text == "ok"
        assert any("could not be booked" in note and "Nothing was sent" not in note for note in reply.notes)
        assert world.reserved()["session:s"] > 0
        await world.road.aclose()

    run_virtual(run())
