"""Cascades: what is accepted, and by whom."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus
from nbllm.core.meter_line import meter_line
from nbllm.pipeline.looking import TRUST_S
from nbllm.testing import Script, run_virtual
from tests.pipeline.making import INTEGER
from tests.pipeline.routing import (
    DOUBTFUL,
    LARGE,
    LOGPROB,
    RAISE,
    SMALL,
    VALID,
    VERIFIER,
    asked,
    asked_once,
    calls,
    sure,
    world,
)


@pytest.mark.parametrize(("logprob", "rung"), [(-0.4, SMALL), (-0.6, LARGE)])
def test_the_cut_off_decides(logprob: float, rung: str) -> None:
    """Above the cut-off the cheap answer is the answer; below it the next model's is, and the rejected one keeps its cost."""

    async def run() -> None:
        there, reply = await asked_once(LOGPROB, small=sure("from small", logprob))
        assert reply.rung == rung
        assert reply.accepted
        assert reply.why.threshold == -0.5
        assert reply.rejected == (rung == LARGE)
        assert reply.cost_usd == sum(a.cost_usd for a in reply.attempts)
        assert all(a.cost_usd > 0 for a in reply.attempts)
        assert [a.status for a in there.ledger.attempts_by_id.values()] == [AttemptStatus.DONE] * len(reply.attempts)
        if rung == LARGE:
            assert reply.why.reason.endswith("large/m, the last model after small/m: mean log probability -0.600 < -0.500")
            assert "1 rejected answer" in meter_line(reply)
            assert "failed attempt" not in meter_line(reply)

    run_virtual(run())


def test_earlier_models_are_asked_for_log_probabilities() -> None:
    """They are asked for where they decide, not of the last model, and a plain call's cache entry is another one."""

    async def run() -> None:
        there, _ = await asked_once(LOGPROB, small=DOUBTFUL)
        (small,), (large,) = (there.providers[name].requests for name in ("small", "large"))
        assert small.content.logprobs is True
        assert large.content.logprobs is None

    run_virtual(run())


def test_an_answer_without_log_probabilities_is_not_accepted() -> None:
    """It goes on to the next model, and a model that never gives any is warned of once."""

    async def run() -> None:
        there = world({"r": LOGPROB})
        replies = [await there.ask(f"q{n}", "r") for n in range(3)]
        assert [r.rung for r in replies] == [LARGE] * 3
        assert [len(r.notes) for r in replies] == [1, 0, 0]
        assert "gave no log probabilities" in replies[0].notes[0]
        await there.close()

    run_virtual(run())


def test_a_model_that_refuses_log_probabilities_is_passed_over() -> None:
    """A 400 over what only the cascade asks for is not the caller's mistake: the next model answers; over another it is."""

    async def run() -> None:
        for parameter in ("logprobs", None):
            refused = errors.BadParameter("logprobs is not supported", parameter=parameter)
            there, reply = await asked_once(LOGPROB, small=refused)
            assert (reply.rung, reply.accepted, calls(there)) == (LARGE, True, {"small": 1, "large": 1})
            assert "gave no log probabilities" in reply.notes[0]
        wrong = errors.BadParameter("temperature is too high", parameter="temperature")
        there, error = await asked_once(LOGPROB, small=wrong)
        assert isinstance(error, errors.BadParameter)
        assert calls(there) == {"small": 1}

    run_virtual(run())


def test_a_plan_gives_the_cut_off(tmp_path: Path) -> None:
    """The threshold, the bound on its error and its id come from the plan; a plan that was refused leaves the fixed ladder."""
    from nbllm.calibration import calibrate_threshold

    scores = [-0.1] * 300 + [-3.0] * 300
    plan = calibrate_threshold(scores, [True] * 300 + [False] * 300, max_error=0.1, seed=0)
    path = tmp_path / "cut.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    route = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "logprob", "plan": str(path)}

    async def run() -> None:
        there = world({"r": route}, small=sure("s", -0.1))
        reply = await there.ask("q", "r")
        assert (reply.rung, reply.why.threshold, reply.why.error_upper) == (SMALL, plan.threshold, plan.error_upper)
        assert reply.why.plan_id == plan.data_hash[:12]
        assert there.ledger.calls_by_id[reply.call_id].why.plan_id == reply.why.plan_id
        again = await there.door("q", "r")
        assert (again.source, again.why.threshold, again.why.plan_id) == ("cache", plan.threshold, reply.why.plan_id)
        refused = calibrate_threshold(scores, [False] * 600, max_error=0.1, seed=0)
        path.write_text(refused.to_json(), encoding="utf-8")
        await asyncio.sleep(TRUST_S)
        reply = await there.ask("p", "r")
        assert reply.rung == SMALL
        assert "holds no threshold" in reply.notes[0]
        await there.close()

    run_virtual(run())


def test_schema_and_check_of_the_call_count() -> None:
    """An answer that fails the call's schema or check goes to the next model instead of being repaired; the last one repairs."""

    async def run() -> None:
        there, reply = await asked_once(VALID, ask={"json_schema": INTEGER, "schema_type": INTEGER}, small="no number", large="7")
        assert (reply.rung, reply.data, reply.rejected) == (LARGE, 7, 1)
        assert calls(there) == {"small": 1, "large": 1}
        there, reply = await asked_once(VALID, ask={"check": lambda text: "large" in text})
        assert (reply.rung, calls(there)) == (LARGE, {"small": 1, "large": 1})
        there = world({"r": VALID}, small="no")
        there.providers["large"].enqueue("no", "8")
        reply = await there.ask("q", "r", json_schema=INTEGER, schema_type=INTEGER)
        assert (reply.data, reply.repairs) == (8, 1)
        await there.close()
        there, reply = await asked_once({**VALID, "repairs": 1}, ask={"check": lambda _: False})
        assert isinstance(reply, errors.AllRungsFailed | errors.ValidationFailed)
        assert calls(there) == {"small": 2, "large": 3}

    run_virtual(run())


def test_a_check_of_the_route_judges() -> None:
    """check= in code accepts or rejects; what it raises is a rejection; a rejected answer can still be the best one."""

    def raising(_: str) -> None:
        raise RuntimeError("no")

    async def run() -> None:
        for check, rung in ((lambda _: True, SMALL), (lambda _: False, LARGE), (raising, LARGE)):
            _, reply = await asked_once({**VALID, "check": check})
            assert reply.rung == rung
        _, reply = await asked_once({**VALID, "check": raising}, large=errors.ServerFailed)
        assert (reply.rung, reply.accepted) == (SMALL, False)

    run_virtual(run())


@pytest.mark.parametrize(("said", "rung"), [("YES", SMALL), ("No.", LARGE)])
def test_a_verifier_judges(said: str, rung: str) -> None:
    """It sees request and answer, its attempt is the call's, and its word decides."""

    async def run() -> None:
        there, reply = await asked_once({**VERIFIER, "instructions": "Be strict."}, help=said)
        assert (reply.rung, reply.accepted) == (rung, True)
        purposes = [a.purpose for a in reply.attempts]
        assert purposes == ["answer", "verify"] + ["answer"] * (rung == LARGE)
        assert reply.cost_usd == sum(a.cost_usd for a in reply.attempts)
        (wire,) = there.providers["help"].requests
        assert "from small" in asked(wire)
        assert "Be strict." in str(wire.content.messages)

    run_virtual(run())


@pytest.mark.parametrize("step", [errors.ServerFailed, "perhaps", Script(hang=True)], ids=["down", "no word", "silent"])
def test_a_failing_verifier_leaves_the_fixed_ladder(step: Any) -> None:
    """As on a fixed ladder the first answer is the answer, marked as not accepted, with a note; not with if_none="raise"."""

    async def run() -> None:
        there, reply = await asked_once(VERIFIER, help=step, ask={"deadline_s": 20})
        assert (reply.rung, reply.accepted) == (SMALL, False)
        (note,) = reply.notes
        assert "could not be verified" in note
        assert there.ledger.calls_by_id[reply.call_id].accepted is False
        there, reply = await asked_once({**VERIFIER, **RAISE}, help=step, ask={"deadline_s": 20})
        assert (reply.rung, reply.accepted) == (LARGE, True)

    run_virtual(run())
