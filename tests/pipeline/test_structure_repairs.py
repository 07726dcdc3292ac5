"""structure: validated or not delivered; repairs counted, capped, paid for and in time."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Ending
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import ASK
from tests.pipeline.world import World, now_s, outcome


def test_a_valid_answer_has_data() -> None:
    """`.data` is built from the text; the reply says that nothing was repaired and what repairing cost: nothing."""

    async def run() -> None:
        world = World(FakeProvider("7"))
        reply = await world.ask("q", **ASK)
        assert (reply.data, reply.text, reply.repairs, reply.repair_cost_usd) == (7, "7", 0, 0)
        await world.close()

    run_virtual(run())


def test_an_answer_that_fails_is_asked_for_again_with_the_error() -> None:
    """The second request shows the model its answer and what was wrong; attempts are marked, the cost of repairing is stated."""

    async def run() -> None:
        world = World(FakeProvider("seven", "7"))
        reply = await world.ask("q", **ASK)
        assert (reply.data, reply.repairs) == (7, 1)
        assert [a.purpose for a in reply.attempts] == ["answer", "repair"]
        assert reply.repair_cost_usd == reply.attempts[1].cost_usd
        assert reply.cost_usd == sum(a.cost_usd for a in reply.attempts if a.cost_usd is not None) == world.spent()
        messages = world.provider.requests[1].content.messages
        assert [m["role"] for m in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"] == "seven"
        assert "did not pass validation" in messages[2]["content"]
        assert "no JSON" in messages[2]["content"]
        (row,) = world.ledger.calls_by_id.values()
        assert row.repairs == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_repairs_are_capped(repairs: int) -> None:
    """At most `repairs` more requests; then ValidationFailed with the last answer, its problem and what it all cost."""

    async def run() -> None:
        world = World(FakeProvider(default="never a number"))
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", **ASK, repairs=repairs)
        assert world.provider.calls == repairs + 1
        assert caught.value.text == "never a number"
        assert caught.value.problem
        assert caught.value.spent_usd == world.spent() > 0
        assert f"{repairs} repair" in str(caught.value)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_a_repaired_answer_is_kept_under_the_question() -> None:
    """The answer of a repair is a hit for the original question; the hit says cost 0 and no repairs of its own."""

    async def run() -> None:
        world = World(FakeProvider("seven", "7"))
        await world.ask("q", **ASK)
        hit = await world.ask("q", **ASK)
        assert (hit.data, hit.source, hit.cost_usd, hit.repairs) == (7, "cache", 0, 0)
        await world.close()

    run_virtual(run())


def test_repairs_end_with_the_deadline() -> None:
    """Repairing is inside the deadline."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["no"], first_after_s=1)))
        began = now_s()
        assert isinstance(await outcome(world.ask("q", **ASK, deadline_s=2.5, repairs=20)), errors.DeadlineExceeded)
        assert now_s() - began <= 2.6
        assert world.provider.calls == 3
        await world.close()

    run_virtual(run())


def test_repairs_end_with_the_budget() -> None:
    """No repair escapes the budget: one that does not fit is refused, and the answer so far was not good enough."""

    async def run() -> None:
        world = World(FakeProvider(default="no"))
        worst = Decimal("0.0021")
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("q", **ASK, repairs=20, budget_usd=worst, max_tokens=1000)
        assert 1 <= world.provider.calls < 20
        assert world.spent() <= worst
        await world.close()

    run_virtual(run())


def test_each_repair_may_be_retried() -> None:
    """A repair is a request like any other: what fails on the wire is sent again."""

    async def run() -> None:
        world = World(FakeProvider("seven", errors.ServerFailed("no", status=500), "7"))
        reply = await world.ask("q", **ASK)
        assert reply.data == 7
        assert [a.purpose for a in reply.attempts] == ["answer", "repair", "repair"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("repairs", [0, 2])
def test_a_truncated_answer_is_not_repaired(repairs: int) -> None:
    """Asking again cannot help an answer that the limit on tokens cut; the error says to raise it."""

    async def run() -> None:
        class Cut(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                ending = await super().send(wire, progress)
                return Ending(finish_reason="length", usage=ending.usage)

        world = World(Cut(default="[1, 2"))
        schema = {"type": "array"}
        with pytest.raises(errors.ValidationFailed, match="cut by the limit") as caught:
            await world.ask("q", json_schema=schema, schema_type=schema, repairs=repairs)
        assert world.provider.calls == 1
        assert "max_tokens" in caught.value.hint
        await world.close()

    run_virtual(run())
