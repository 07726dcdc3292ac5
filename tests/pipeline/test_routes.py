"""Routes with a strategy, on the whole road: whom they choose, why, and that asking again costs nothing."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.calibration import fit_labels
from nbllm.core.messages import AttemptStatus, Embed, NullSink
from nbllm.core.ports import RateLimits
from nbllm.core.pricing import Price
from nbllm.pipeline.road import Hit
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import rung
from tests.pipeline.routing import HELP, LARGE, SMALL, asked, calls, sure, swap_prices, world

LABELS = {"easy": SMALL, "hard": LARGE}
TASK = {"strategy": "task", "rules": [{"feature": "f", "use": LARGE}], "otherwise": SMALL}
CLASSIFIER = {"strategy": "classifier", "model": HELP, "labels": LABELS, "otherwise": SMALL}
WEIGHTED = {"strategy": "weighted", "weights": {SMALL: 1, LARGE: 1}}
CANARY = {"strategy": "canary", "stable": SMALL, "canary": LARGE, "share": 0.5}
CHEAPEST = {"strategy": "cheapest", "models": [SMALL, LARGE]}
FASTEST = {"strategy": "fastest", "models": [SMALL, LARGE], "min_calls": 1}
SPILL = {"strategy": "spill_over", "models": [SMALL, LARGE]}
LOGPROB = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "logprob", "min_logprob": -0.5}
VERIFIER = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "verifier", "verifier": HELP}
NESTED = {"strategy": "task", "rules": [{"contains": ["hello"], "use": "inner"}], "otherwise": LARGE}


def learned(folder: Path) -> dict[str, Any]:
    """A route on a plan that knows two kinds of vectors, as FakeProvider makes them of texts."""
    fake, texts = FakeProvider(), ["hello", *(f"t{n}" for n in range(19))]
    vectors = np.array(fake._embedded(Embed(texts=tuple(texts))).vectors)
    plan = fit_labels(vectors, ["hard" if n % 2 == 0 else "easy" for n in range(20)], method="nearest")
    plan = type(plan).from_json(plan.to_json().replace(f'"setting": {plan.setting}', '"setting": 1.0'))
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    path = str(folder / "plan.json")
    return {"strategy": "learned", "plan": path, "embedder": "help/e", "labels": LABELS, "otherwise": SMALL}


EVERY = {
    "fixed": [SMALL, LARGE],
    "task": TASK,
    "classifier": CLASSIFIER,
    "learned": None,
    "weighted": WEIGHTED,
    "canary": CANARY,
    "cheapest": CHEAPEST,
    "fastest": FASTEST,
    "spill_over": SPILL,
    "logprob": LOGPROB,
    "verifier": VERIFIER,
    "nested": NESTED,
}


@pytest.mark.parametrize("door", ["fast", "road"])
@pytest.mark.parametrize("name", EVERY)
def test_asking_again_sends_nothing(name: str, door: str, tmp_path: Path) -> None:
    """Every strategy, asked twice with prices, latencies, weights and limits turned round in between: the second run is free.

    By the fast door and by the road; for answers of either model, of helpers that said one thing or the other.
    """

    async def run(said: str, text: str) -> None:
        route = EVERY[name] or learned(tmp_path)
        slow = Script(pieces=["from small"], first_after_s=5)
        there = world({"r": route, "inner": LOGPROB}, small=sure("from small", -0.1 if said in ("easy", "yes") else -2), help=said)
        ask = there.door if door == "fast" else there.ask
        first = await ask(text, "r", feature="f", user="ann")
        assert first.source == "model"
        sent = calls(there)
        swap_prices(there)
        there.providers["small"]._default = slow
        there.configure(routes={"r": _turned(route), "inner": LOGPROB})
        for endpoint in ("small", "large"):
            there.endpoints = {**there.endpoints, endpoint: {"rpm": 1}}
        again = await ask(text, "r", feature="f", user="ann")
        assert calls(there) == sent
        assert (again.source, again.cost_usd, again.text) == ("cache", 0, first.text)
        assert again.accepted
        assert again.why.route == "r"
        await there.close()

    for said in ("yes", "no") if name == "verifier" else ("easy", "hard"):
        for text in ("hello", "t1"):
            run_virtual(run(said, text))


def _turned(route: Any) -> Any:
    """The same route with its numbers turned round."""
    if isinstance(route, list):
        return route
    turned = dict(route)
    turned |= {"weights": {SMALL: 1000, LARGE: 1}} if "weights" in route else {}
    turned |= {"share": 1 - route["share"]} if route.get("share") == 0.9 else {}
    return turned


def test_each_decision_has_its_reason() -> None:
    """The reply and the ledger say the route's name and why it chose as it did."""

    async def run() -> None:
        there = world({"task": TASK, "canary": {**CANARY, "share": 1}, "nested": NESTED, "inner": LOGPROB}, small=sure("a", -0.1))
        for n, (route, reason) in enumerate(
            {
                "task": "route task: rule 1 (feature f)",
                "canary": "route canary: canary for 1 of users",
                "nested": "route nested: rule 1 (contains 'hello') > inner: cascade: small/m accepted: "
                "mean log probability -0.100 >= -0.500",
            }.items()
        ):
            reply = await there.ask(f"hello {n}", route, feature="f", user="ann")
            assert (reply.why.route, reply.why.reason) == (route, reason)
            row = there.ledger.calls_by_id[reply.call_id]
            assert (row.why.route, row.reason, row.model) == (route, reason, route)
        assert reply.why.threshold == -0.5
        await there.close()

    run_virtual(run())


def test_rules_choose_and_fall_back() -> None:
    """A rule's models come first, `otherwise` behind them; without a rule that holds `otherwise` answers."""

    async def run() -> None:
        there = world({"r": TASK}, large=errors.ServerFailed)
        reply = await there.ask("a", "r", feature="f")
        assert (reply.rung, calls(there)) == (SMALL, {"large": 3, "small": 1})
        assert (await there.ask("b", "r")).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_rule_keeps_to_its_models() -> None:
    """An answer of a model that a rule avoids does not stand in for the rule's own."""

    async def run() -> None:
        rules = [{"feature": "careful", "use": LARGE}]
        there = world({"r": {**TASK, "rules": rules, "otherwise": "large/other"}})
        await there.ask("q", SMALL)
        await there.ask("q", "small/m")
        reply = await there.ask("q", "r", feature="careful")
        assert (reply.rung, reply.source) == (LARGE, "model")
        await there.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- helpers


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


# ---------------------------------------------------------------------------------------------------- numbers


def test_the_cheapest_healthy_model_answers() -> None:
    """By price; when its breaker opens, the next one; the reason tells."""

    async def run() -> None:
        there = world({"r": {**CHEAPEST, "models": [LARGE, SMALL]}})
        there.rungs = {LARGE: replace(rung("large"), price=Price(Decimal(9), Decimal(9)))}
        assert (await there.ask("a", "r")).rung == SMALL
        there.providers["small"]._default = errors.ServerFailed
        for n in range(3):
            await there.ask(f"b{n}", "r")
        sent = there.providers["small"].calls
        reply = await there.ask("c", "r")
        assert (reply.rung, there.providers["small"].calls) == (LARGE, sent)
        assert "small/m rests" in reply.why.reason
        await there.close()

    run_virtual(run())


def test_the_fastest_goes_by_what_the_ledger_has_seen() -> None:
    """Each model is measured first; then the one with the lower median answers, and a change is noticed as calls end."""

    async def run() -> None:
        there = world(
            {"r": {**FASTEST, "min_calls": 2}},
            small=Script(pieces=["s"], first_after_s=3),
            large=Script(pieces=["l"], first_after_s=1),
        )
        chosen = [(await there.ask(f"q{n}", "r")).rung for n in range(6)]
        assert chosen == [SMALL, SMALL, LARGE, LARGE, LARGE, LARGE]
        there.providers["large"]._default = Script(pieces=["l"], first_after_s=9)
        chosen = [(await there.ask(f"p{n}", "r")).rung for n in range(8)]
        assert chosen[-1] == SMALL
        await there.close()
        later = world({"r": FASTEST}, ledger=there.ledger)
        assert (await later.ask("x", "r")).rung == SMALL
        await later.close()

    run_virtual(run())


def test_a_full_endpoint_spills_over() -> None:
    """What does not fit under an endpoint's limits goes to the next one at once, without waiting; told by headers too."""

    async def run() -> None:
        there = world({"r": SPILL}, endpoints={"small": {"rpm": 2}})
        began_s = there.clock.now_s()
        replies = [await there.ask(f"q{n}", "r") for n in range(4)]
        assert [r.rung for r in replies] == [SMALL, SMALL, LARGE, LARGE]
        assert replies[2].why.reason == "route r: spilled over: small/m at the rate limit"
        assert there.clock.now_s() == began_s
        await asyncio.sleep(62)
        assert (await there.ask("later", "r")).rung == SMALL
        await there.close()
        limits = RateLimits(requests_limit=10, requests_left=0, requests_reset_s=30.0)
        told = world({"r": SPILL}, small=Script(pieces=["s"], limits=limits))
        assert [(await told.ask(f"q{n}", "r")).rung for n in range(2)] == [SMALL, LARGE]
        await told.close()

    run_virtual(run())


def test_all_slots_taken_spill_over() -> None:
    """max_concurrency counts: a second call at the same time goes to the next endpoint."""

    async def run() -> None:
        there = world({"r": SPILL}, endpoints={"small": {"max_concurrency": 1}}, small=Script(pieces=["s"], first_after_s=1))
        first = there.start("a", "r")
        await asyncio.sleep(0.5)
        assert (await there.ask("b", "r")).rung == LARGE
        assert (await first).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_burst_spills_over_too() -> None:
    """Calls that all saw the same room do not queue up for it: those that find it gone go to the next endpoint at once."""

    async def run() -> None:
        there = world({"r": SPILL, "by": {**TASK, "otherwise": "r"}}, endpoints={"small": {"rpm": 3}})
        began_s = there.clock.now_s()
        replies = await asyncio.gather(*(there.ask(f"q{n}", "r" if n % 2 else "by") for n in range(20)))
        assert sorted(r.rung for r in replies) == [LARGE] * 17 + [SMALL] * 3
        assert there.clock.now_s() == began_s
        await there.close()
        full = world({"r": SPILL}, endpoints={"small": {"rpm": 1}, "large": {"rpm": 1}})
        replies = await asyncio.gather(*(full.ask(f"q{n}", "r") for n in range(3)))
        assert len({r.call_id for r in replies}) == 3
        await full.close()

    run_virtual(run())


def test_a_ledger_that_cannot_be_read_is_no_reason_not_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Routes by numbers go on with what this process has seen."""

    async def run() -> None:
        there = world({"r": FASTEST})

        def broken(limit: int) -> Any:
            raise OSError("no disk")

        there.ledger.newest_answers = broken  # type: ignore[method-assign]
        assert (await there.ask("q", "r")).rung == SMALL
        await there.close()

    run_virtual(run())
    assert "could not be read" in caplog.text


# ---------------------------------------------------------------------------------------------------- doors and bad input


def test_the_fast_door_serves_routes() -> None:
    """A stored answer of a route is served without leaving the caller's thread; a miss is not looked for again."""

    async def run() -> None:
        there = world({"r": CHEAPEST})
        assert not isinstance(there.road.try_hit(there.request("q", "r")), Hit)
        await there.door("q", "r")
        hit = there.road.try_hit(there.request("q", "r"))
        assert isinstance(hit, Hit)
        assert hit.reply.why.reason == "route r: small/m holds the exact answer"
        row = there.ledger.calls_by_id[hit.reply.call_id]
        assert (row.why.route, row.key_hash, row.source) == ("r", next(iter(there.store.entries())).key, "cache")
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("cache", ["refresh", "off"])
def test_without_the_cache_a_route_decides_anew(cache: str) -> None:
    """Refresh and off take no stored answer: the strategy is asked."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help="hard")
        await there.ask("q", SMALL)
        reply = await there.ask("q", "r", cache=cache)
        assert (reply.rung, reply.source) == (LARGE, "model")
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("route", [CLASSIFIER, LOGPROB], ids=["classifier", "cascade"])
def test_routes_for_chats_refuse_embeddings(route: dict[str, Any]) -> None:
    """Texts to embed have nothing for these to go by: refused by name, nothing sent."""

    async def run() -> None:
        there = world({"r": route})
        with pytest.raises(errors.InvalidRequest, match="texts to embed"):
            await there.ask("", "r", content=Embed(texts=("a",)))
        assert calls(there) == {}
        await there.close()

    run_virtual(run())


def test_odd_requests_are_routed() -> None:
    """Messages without text, a megabyte, nothing but an image: every strategy answers."""
    image = ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},)
    tool = ({"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "x", "tool_call_id": "1"})
    rules = [{"matches": "a+b", "use": LARGE}, {"contains": ["zz"], "use": LARGE}, {"language": "de", "use": LARGE}]

    async def run() -> None:
        routes = {
            "task": {**TASK, "rules": rules},
            "classifier": CLASSIFIER,
            "weighted": WEIGHTED,
            "cheapest": CHEAPEST,
            "l": LOGPROB,
        }
        there = world(routes, help="easy")
        for route in routes:
            for messages in (image, tool, ({"role": "user", "content": "a" * 1_000_000},)):
                assert (await there.ask("", route, messages=messages, cache="refresh")).text
        long = [w for w in there.providers["help"].requests if "characters left out" in asked(w)]
        assert long
        assert all(len(asked(w)) < 5000 for w in long)
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["fast", "road"])
def test_a_model_that_nobody_answers_to_is_left_out(door: str) -> None:
    """A route of a file may name an endpoint that is not there yet: the others answer, and it is said."""

    async def run() -> None:
        gone = "unknown/m"
        routes = {
            "w": {"strategy": "weighted", "weights": {gone: 1000, SMALL: 1}},
            "low": {**CHEAPEST, "models": [gone, SMALL]},
            "task": {**TASK, "rules": [{"feature": "f", "use": gone}]},
            "none": {**CHEAPEST, "models": [gone]},
            "cascade": {**VERIFIER, "models": [SMALL, gone]},
        }
        there = world(routes)
        ask = there.door if door == "fast" else there.ask
        for route in ("w", "low", "task"):
            reply = await ask(f"q {route}", route, feature="f", user="ann")
            assert reply.rung == SMALL
            assert reply.notes == ("No endpoint answers to 'unknown/m'. The route went on without it.",)
        for route in ("none", "cascade"):
            with pytest.raises(errors.UnknownModel):
                await ask("x", route)
        await there.close()

    run_virtual(run())


def test_a_route_that_is_removed_under_way_is_an_error() -> None:
    """A route that settings lose between the fast door and the road is told as what it is now: no model."""

    async def run() -> None:
        there = world({"r": CLASSIFIER})
        opened = there.road.try_hit(there.request("q", "r"))
        assert not isinstance(opened, Hit)
        there.configure(routes={"r": None})
        with pytest.raises(errors.UnknownModel):
            await there.road(opened, NullSink())
        await there.close()

    run_virtual(run())


def test_many_calls_share_one_label() -> None:
    """500 identical calls at once: one label is asked for, one answer is bought."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help=Script(pieces=["hard"], first_after_s=1), large=Script(pieces=["x"], first_after_s=1))
        replies = await asyncio.gather(*(there.ask("q", "r") for _ in range(500)))
        assert {r.rung for r in replies} == {LARGE}
        assert calls(there) == {"help": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_reasons_hold_no_text_of_a_prompt() -> None:
    """What is asked and answered is not in the ledger's reasons, whatever the helpers say."""

    async def run() -> None:
        there = world({"r": CLASSIFIER, "v": VERIFIER}, help="SECRETWORD nothing", small="SECRETWORD")
        for route in ("r", "v"):
            await there.ask("SECRETWORD in a prompt", route)
        rows = json.dumps([str(row) for row in there.ledger.calls_by_id.values()])
        assert "SECRETWORD" not in rows
        await there.close()

    run_virtual(run())
