"""Cascades in which nobody's answer is accepted: the best one so far, or the error."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Ending
from nbllm.core.reply import Reply
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import (
    DOUBTFUL,
    LARGE,
    LOGPROB,
    RAISE,
    SMALL,
    VERIFIER,
    asked_once,
    calls,
    sure,
    world,
)
from tests.pipeline.spending import Uses
from tests.pipeline.world import outcome

ENDS: dict[str, Any] = {
    "down": errors.ServerFailed,
    "refused": errors.Refused,
    "no key": errors.AuthenticationFailed,
    "bad parameter": errors.BadParameter,
    "silent": Script(hang=True),
    "nothing said": Ending(finish_reason="length"),
}


@pytest.mark.parametrize("step", ENDS.values(), ids=ENDS)
def test_the_best_answer_so_far_is_returned(step: Any) -> None:
    """Whatever ends the last model, the best answer so far is returned, marked, in time; or with if_none="raise" the error is."""

    async def run() -> None:
        there, reply = await asked_once(LOGPROB, small=DOUBTFUL, large=step, ask={"deadline_s": 30})
        assert (reply.rung, reply.text, reply.accepted) == (SMALL, "doubtful", False)
        assert "No answer was accepted" in reply.notes[-1]
        row = there.ledger.calls_by_id[reply.call_id]
        assert (row.status, row.accepted) == (AttemptStatus.DONE, False)
        there, error = await asked_once({**LOGPROB, **RAISE}, small=DOUBTFUL, large=step, ask={"deadline_s": 30})
        assert isinstance(error, errors.CallFailed), error

    run_virtual(run())


def test_a_budget_that_is_used_up_leaves_the_best_answer() -> None:
    """Each attempt reserves; where the next one does not fit the best answer is returned, or the refusal raised."""

    async def run() -> None:
        for extra in ({}, RAISE):
            there = world({"r": {**LOGPROB, **extra}}, settings={"budget_request_usd": "0.0025"})
            there.providers = {**there.providers, "small": Uses(1, 1000, default=DOUBTFUL)}
            result = await outcome(there.ask("q", "r", max_tokens=1000))
            assert calls(there) == {"small": 1}
            if extra:
                assert isinstance(result, errors.BudgetExceeded)
            else:
                assert isinstance(result, Reply)
                assert (result.text, result.accepted) == ("doubtful", False)
                assert "budget" in result.notes[-1]
            await there.close()

    run_virtual(run())


def test_the_best_of_several_is_the_best() -> None:
    """Of several rejected answers the one with the highest score is returned, not the last."""

    async def run() -> None:
        there = world(
            {"r": {**LOGPROB, "models": [SMALL, "help/m", LARGE]}},
            small=sure("better", -1),
            help=sure("worse", -5),
            large=errors.Refused,
        )
        reply = await there.ask("q", "r")
        assert (reply.text, reply.accepted, reply.rejected) == ("better", False, 2)
        await there.close()

    run_virtual(run())


def test_nobody_answered_at_all() -> None:
    """Without any answer the error is that of a ladder: every cause, and stale or static stand behind it."""

    async def run() -> None:
        _, error = await asked_once(LOGPROB, small=errors.ServerFailed, large=errors.ServerFailed)
        assert isinstance(error, errors.AllRungsFailed)
        assert {type(e) for e in error.exceptions} == {errors.ServerFailed}
        _, reply = await asked_once(LOGPROB, small=errors.ServerFailed, large=errors.ServerFailed, ask={"static": "later"})
        assert (reply.text, reply.source) == ("later", "static")
        _, error = await asked_once(LOGPROB, small=Script(hang=True), large=Script(hang=True), ask={"deadline_s": 3})
        assert isinstance(error, errors.DeadlineExceeded | errors.AllRungsFailed), error

    run_virtual(run())


def test_cancelling_ends_it() -> None:
    """A cancelled cascade leaves nothing open, wherever it was: at the first model, at the verifier, at the last."""

    async def run() -> None:
        slow = Script(pieces=["x"], first_after_s=1)
        for after_s in (0.5, 1.5, 2.5):
            there = world({"r": VERIFIER}, small=slow, help=Script(pieces=["no"], first_after_s=1), large=slow)
            task = there.start("q", "r", budget_usd=Decimal(1))
            await asyncio.sleep(after_s)
            task.cancel()
            assert isinstance(await outcome(task), asyncio.CancelledError)
            await there.close()

    run_virtual(run())
