"""Cascades: what is accepted, what a watcher sees, what is kept, and what happens when nobody's answer is accepted."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Delta, Ending
from nbllm.core.meter_line import meter_line
from nbllm.core.reply import Reply
from nbllm.pipeline.road import Hit
from nbllm.testing import Script, run_virtual
from tests.pipeline.making import INTEGER
from tests.pipeline.routing import HELP, LARGE, SMALL, Seeing, asked, calls, sure, world
from tests.pipeline.spending import Uses
from tests.pipeline.world import World, outcome

LOGPROB = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "logprob", "min_logprob": -0.5}
VALID = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "valid"}
VERIFIER = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "verifier", "verifier": HELP}
RAISE = {"if_none": "raise"}
DOUBTFUL = sure("doubtful", -2)


async def asked_once(route: dict[str, Any], *, ask: dict[str, Any] | None = None, **there: Any) -> tuple[World, Any]:
    """One call of a cascade, and the world at rest."""
    made = world({"r": route}, **there)
    reply = await outcome(made.ask("q", "r", **(ask or {})))
    await made.close()
    return made, reply


# ---------------------------------------------------------------------------------------------------- acceptance


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


# ---------------------------------------------------------------------------------------------------- watchers


def spoken(logprob: float) -> Script:
    """An answer in three pieces, with some thinking, a second apart."""
    said = ("one ", "two ", "three")
    pieces = [Delta(reasoning="hm"), *(Delta(text=text, logprobs=({"logprob": logprob},)) for text in said)]
    return Script(pieces=pieces, first_after_s=1, gap_s=1)


@pytest.mark.parametrize("accept", [True, False])
def test_nothing_is_seen_before_it_is_accepted(accept: bool) -> None:
    """No piece of an answer that may be rejected reaches a watcher, thinking included; the last model streams live."""

    async def run() -> None:
        there = world(
            {"r": LOGPROB}, small=spoken(-0.1 if accept else -9), large=Script(pieces=["a", "b"], first_after_s=1, gap_s=1)
        )
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="raise")
        if accept:
            assert [at for at, _ in watcher.texts] == [4.0]
            assert watcher.text.endswith("one two three")
            assert reply.held_s == pytest.approx(3)
        else:
            assert watcher.texts == [(5.0, "a"), (6.0, "b")]
            assert reply.held_s == pytest.approx(4)
        assert watcher.restarts == []
        assert f"held back {reply.held_s:.0f}" in meter_line(reply)
        await there.close()

    run_virtual(run())


def test_a_fixed_ladder_holds_nothing_back() -> None:
    """Without a cascade the first piece is seen when it comes, and nothing is said of holding."""

    async def run() -> None:
        there = world({"r": [SMALL, LARGE]}, small=spoken(-9))
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True)
        assert watcher.texts[0][0] == 1.0
        assert reply.held_s is None
        await there.close()

    run_virtual(run())


def test_a_broken_early_stream_is_nobodys_loss() -> None:
    """An early answer that breaks off was not seen: the next model answers, even for who cannot take pieces back."""

    async def run() -> None:
        broken = Script(pieces=["half"], then=errors.StreamInterrupted)
        there = world({"r": LOGPROB}, small=broken)
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="raise")
        assert (reply.rung, watcher.text, watcher.restarts) == (LARGE, "from large", [])
        await there.close()

    run_virtual(run())


def test_a_last_stream_that_breaks_gives_way_to_the_best_answer() -> None:
    """With restart the pieces are taken back and the best answer stands there; with raise the break is raised with its partial."""

    async def run() -> None:
        broken = Script(pieces=["half"], then=errors.StreamInterrupted)
        there = world({"r": LOGPROB}, small=DOUBTFUL, large=broken)
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="restart")
        assert (reply.text, reply.accepted, watcher.text) == ("doubtful", False, "doubtful")
        assert watcher.restarts[-1] == "fallback"
        with pytest.raises(errors.StreamInterrupted) as caught:
            await there.ask("p", "r", sink=Seeing(there), watched=True, on_interrupt="raise")
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        await there.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- nobody was accepted

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


# ---------------------------------------------------------------------------------------------------- what is kept


def test_a_rejected_answer_is_kept_as_what_it_is() -> None:
    """It is the cheap model's answer, which a call of that model may have; the cascade neither serves nor buys it again."""

    async def run() -> None:
        there = world({"r": VALID | {"check": lambda text: "large" in text}})
        assert (await there.ask("q", "r")).rung == LARGE
        direct = await there.ask("q", SMALL)
        assert (direct.source, direct.text) == ("cache", "from small")
        assert (await there.ask("q", "r")).source == "cache"
        assert calls(there) == {"small": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_a_verdict_is_kept_with_its_answer() -> None:
    """Yes and no are kept with the entry, by who was asked what; another verifier has to be asked anew."""

    async def run() -> None:
        there = world({"r": VERIFIER, "strict": {**VERIFIER, "instructions": "Be strict."}}, help="yes")
        await there.ask("q", "r")
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert list(entry.answer["verdicts"].values()) == [True]
        assert isinstance(there.road.try_hit(there.request("q", "r")), Hit)
        assert not isinstance(there.road.try_hit(there.request("q", "strict")), Hit)
        there.providers["help"]._default = "no"
        reply = await there.ask("q", "strict")
        assert (reply.rung, calls(there)) == (LARGE, {"small": 1, "help": 2, "large": 1})
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert sorted(entry.answer["verdicts"].values()) == [False, True]
        assert (await there.door("q", "r")).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_moved_cut_off_judges_kept_answers_anew() -> None:
    """The log probabilities are kept with the answer: a lower cut-off serves it, a higher one does not, neither buys it again."""

    async def run() -> None:
        there = world({"r": LOGPROB}, small=sure("s", -0.4))
        assert (await there.ask("q", "r")).rung == SMALL
        there.configure(routes={"r": {**LOGPROB, "min_logprob": -0.1}})
        assert (await there.ask("q", "r")).rung == LARGE
        there.configure(routes={"r": LOGPROB})
        reply = await there.door("q", "r")
        assert (reply.rung, reply.source) == (SMALL, "cache")
        assert calls(there) == {"small": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_identical_cascades_share_their_runs() -> None:
    """50 at once: each model is asked once, the verifier once, and everybody has an answer."""

    async def run() -> None:
        there = world({"r": VERIFIER}, small=Script(pieces=["s"], first_after_s=1), help=Script(pieces=["no"], first_after_s=1))
        replies = await asyncio.gather(*(there.ask("q", "r") for _ in range(50)))
        assert {r.text for r in replies} == {"from large"}
        assert calls(there) == {"small": 1, "help": 1, "large": 1}
        assert all(r.accepted for r in replies)
        await there.close()

    run_virtual(run())


def test_kept_entries_stay_what_they_were() -> None:
    """Keeping a verdict changes nothing else of an entry: age, time to live, cost, tags."""

    async def run() -> None:
        there = world({"r": VERIFIER}, help=Script(pieces=["yes"], first_after_s=5))
        await there.ask("q", "r", ttl_s=60.0, tags=("t",), feature="f")
        (entry,) = [e for e in there.store.entries() if e.model == SMALL]
        assert entry.expires_at == entry.created_at + 60
        assert entry.tags == ("t", "feature:f")
        assert entry.cost_usd is not None
        assert json.loads(json.dumps(entry.answer["verdicts"]))
        await there.close()

    run_virtual(run())
