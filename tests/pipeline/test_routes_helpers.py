"""Routes that ask a helper: a classifier's label, a plan on embeddings, and what happens when these fail."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Embed
from nbllm.core.pricing import Price
from nbllm.pipeline.looking import TRUST_S
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import rung
from tests.pipeline.routing import (
    CLASSIFIER,
    HELP,
    LARGE,
    LOGPROB,
    NESTED,
    SMALL,
    calls,
    learned,
    sure,
    world,
)


@pytest.mark.parametrize(("said", "rung_id"), [("easy", SMALL), ("It is HARD.", LARGE)])
def test_a_classifier_chooses(said: str, rung_id: str) -> None:
    """The label that the small model names chooses; the question holds the request and the labels; its cost is the call's."""

    async def run() -> None:
        there = world({"r": {**CLASSIFIER, "instructions": "Sums are easy."}}, help=said)
        reply = await there.ask("what is 1 + 1?", "r")
        assert reply.rung == rung_id
        assert reply.notes == ()
        assert [a.purpose for a in reply.attempts] == ["classify", "answer"]
        assert reply.cost_usd == sum(a.cost_usd for a in reply.attempts)  # type: ignore[misc]
        (wire,) = there.providers["help"].requests
        shown = str(wire.content.messages)  # type: ignore[union-attr]
        assert "what is 1 + 1?" in shown
        assert "Sums are easy." in shown
        assert "- easy" in shown
        await there.close()

    run_virtual(run())


def test_a_label_is_kept() -> None:
    """The same text asked in another way (another system prompt) needs no second label."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help="hard")
        await there.ask("q", "r")
        other = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"})
        reply = await there.ask("", "r", messages=other)
        assert reply.rung == LARGE
        assert calls(there) == {"help": 1, "large": 2}
        await there.close()

    run_virtual(run())


def test_what_is_no_label_is_not_kept() -> None:
    """A classifier that rambled is asked again for the same text; what it says then counts."""

    async def run() -> None:
        there = world({"r": CLASSIFIER})
        there.providers["help"].enqueue("well, let me see", "hard")
        assert (await there.ask("q", "r", cache="refresh")).rung == SMALL
        other = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"})
        assert (await there.ask("", "r", messages=other)).rung == LARGE
        assert [entry.answer["text"] for entry in there.store.entries() if entry.model == HELP] == ["hard"]
        await there.close()

    run_virtual(run())


def test_nobody_stands_behind_a_cascade() -> None:
    """The last model of a cascade that a rule chose is the last one: it needs no judge, and `otherwise` is not asked after it."""

    async def run() -> None:
        inner = {**LOGPROB, "models": [SMALL, HELP]}
        there = world({"r": {**NESTED, "otherwise": LARGE}, "inner": inner}, small=sure("s", -9))
        reply = await there.ask("hello", "r")
        assert (reply.rung, reply.rejected, calls(there)) == (HELP, 1, {"small": 1, "help": 1})
        await there.close()

    run_virtual(run())


FAILING = {
    "down": errors.ServerFailed,
    "no key": errors.AuthenticationFailed,
    "no label": "no idea",
    "nothing": Script(hang=True),
    "cut": Script(pieces=["ha"], then=errors.StreamInterrupted),
}


@pytest.mark.parametrize(
    ("kind", "step"),
    [("classifier", name) for name in FAILING] + [("learned", name) for name in FAILING if name != "no label"],
)
def test_a_failing_helper_leaves_the_fixed_ladder(kind: str, step: str, tmp_path: Path) -> None:
    """Whatever happens to the helper: `otherwise` answers, one note says why, and the deadline holds."""

    async def run() -> None:
        route = CLASSIFIER if kind == "classifier" else learned(tmp_path)
        there = world({"r": {**route, "otherwise": [LARGE, SMALL]}}, help=FAILING[step])
        began_s = there.clock.now_s()
        reply = await there.ask("q", "r", deadline_s=20)
        assert reply.rung == LARGE
        assert there.clock.now_s() - began_s < 10.1
        (note,) = reply.notes
        assert "fixed ladder" in note
        assert "the fixed ladder, because the" in reply.why.reason
        helping = [a for a in there.ledger.attempts_by_id.values() if a.purpose != "answer"]
        assert helping
        assert all(a.status is not AttemptStatus.OPEN for a in helping)
        await there.close()

    run_virtual(run())


def test_no_helper_is_asked_past_a_budget() -> None:
    """A helper that no budget has room for is not sent; the ladder answers if there is room for it."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help="hard")
        there.rungs = {HELP: replace(rung("help"), price=Price(Decimal(10_000), Decimal(10_000)))}
        reply = await there.ask("q", "r", budget_usd=Decimal("0.5"))
        assert (reply.rung, calls(there)) == (SMALL, {"small": 1})
        assert "fixed ladder" in reply.notes[0]
        await there.close()

    run_virtual(run())


def test_a_plan_of_labels_chooses(tmp_path: Path) -> None:
    """The embedding of the text, looked up in the plan, chooses; a plan that is gone or spoilt leaves the fixed ladder."""

    async def run() -> None:
        route = learned(tmp_path)
        there = world({"r": route})
        reply = await there.ask("hello", "r")
        assert reply.rung == LARGE
        assert "label 'hard' with a share of 1.00 by nearest" in reply.why.reason
        assert [a.purpose for a in reply.attempts] == ["embed", "answer"]
        assert (await there.ask("t0", "r")).rung == SMALL
        (tmp_path / "plan.json").write_text('{"kind": "nbllm label plan 1"', encoding="utf-8")
        await asyncio.sleep(TRUST_S)
        reply = await there.ask("t1", "r")
        assert reply.rung == SMALL
        assert "is no JSON" in reply.notes[0]
        (tmp_path / "plan.json").unlink()
        assert "cannot be read" in (await there.ask("t2", "r")).notes[0]
        await there.close()

    run_virtual(run())


def test_an_embedder_of_another_size_is_no_embedder_of_the_plan(tmp_path: Path) -> None:
    """Vectors of other dimensions than the plan's leave the fixed ladder, with the reason."""

    async def run() -> None:
        there = world({"r": learned(tmp_path)})
        there.providers = {**there.providers, "help": FakeProvider(dimensions=5)}
        reply = await there.ask("hello", "r")
        assert reply.rung == SMALL
        assert "5 dimensions" in reply.notes[0]
        await there.close()

    run_virtual(run())


def test_a_plan_of_calibrate_route_chooses(tmp_path: Path) -> None:
    """A RoutePlan routes by its own numbers, at its own share or at the route's; its id is with the reply."""
    from nbllm.calibration import RoutePlan, calibrate_route

    draw, fake = np.random.default_rng(0), FakeProvider()
    prompts = [f"prompt {n}" for n in range(120)]
    vectors = np.array(fake._embedded(Embed(texts=tuple(prompts))).vectors)
    gain = vectors[:, 0] * 3
    plan = calibrate_route(prompts, vectors, draw.normal(0, 0.1, 120), gain, np.full(120, 0.001), np.full(120, 0.01), seed=0)
    assert isinstance(plan, RoutePlan)
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    labels = {"weak": SMALL, "strong": LARGE}
    route = {"strategy": "learned", "plan": str(tmp_path / "plan.json"), "embedder": "help/e", "labels": labels, "otherwise": SMALL}

    async def run() -> None:
        there = world(
            {"r": {**route, "strong_share": 0.3}, "all": {**route, "strong_share": 1.0}, "none": {**route, "strong_share": 0.0}}
        )
        expected = plan.choose(strong_share=0.3).route(prompts, vectors).strong
        for text, strong in list(zip(prompts, expected, strict=True))[:20]:
            reply = await there.ask(text, "r", cache="refresh")
            assert reply.rung == (LARGE if strong else SMALL)
            assert "by a predicted gain of" in reply.why.reason
        assert (await there.ask("x", "all")).rung == LARGE
        assert (await there.ask("x", "none", cache="refresh")).rung == SMALL
        await there.close()

    run_virtual(run())
