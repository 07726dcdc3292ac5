"""Routes and the semantic cache: every route may get a similar question's answer, and a cascade judges it like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Ending, Usage
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.likening import ASKED, NEAR, Likening
from tests.pipeline.routing import (
    CANARY,
    CLASSIFIER,
    DOUBTFUL,
    HELP,
    LARGE,
    LOGPROB,
    SMALL,
    TASK,
    VALID,
    VERIFIER,
    WEIGHTED,
    Seeing,
    calls,
    sure,
)


def likening(folder: Path, route: dict[str, Any], served: Sequence[str] = (SMALL,), **steps: Any) -> Likening:
    """A world whose plan covers the models in `served`, asked as a cascade by log probability asks them and plainly."""
    answers = {"small": "from small", "large": "from large", "help": "from help", **steps}
    providers = {name: FakeProvider(default=step) for name, step in answers.items()}
    there = Likening(folder, providers=providers, settings={"routes": {"r": route}})
    scopes = {there.question(ASKED, name, logprobs=asked).scope for name in served for asked in (True, None)}
    there.plan(*sorted(scopes))
    return there


def entries(there: Likening, model: str) -> list[str]:
    """The keys of the stored answers of a model."""
    return [entry.key for entry in there.store.entries() if entry.model == model]


YES = {"the cut-off": LOGPROB, "a check": {**VALID, "check": lambda text: "small" in text}, "a verifier": VERIFIER}


@pytest.mark.parametrize("accept", YES)
def test_a_cascade_accepts_a_similar_questions_answer(tmp_path: Path, accept: str) -> None:
    """The reply says both, route and match; what accepting it cost is its cost; it is no entry, and a second run sends nothing."""

    async def run() -> None:
        there = likening(tmp_path, YES[accept], small=sure("from small", -0.1), help="yes")
        await there.ask(ASKED, "r")
        reply = await there.ask(NEAR, "r")
        assert (reply.text, reply.rung, reply.source, reply.rejected) == ("from small", SMALL, "semantic", 0)
        assert (reply.why.route, reply.why.matched_text, reply.why.plan_id) == ("r", ASKED, "p1")
        assert reply.why.reason.startswith("route r: cascade: small/m accepted: ")
        assert [a.purpose for a in reply.attempts] == (["verify"] if accept == "a verifier" else [])
        assert reply.cost_usd == sum((a.cost_usd or Decimal(0) for a in reply.attempts), Decimal(0))
        sent = calls(there)
        assert sent == {"small": 1} | ({"help": 2} if accept == "a verifier" else {})
        again = await there.door(NEAR, "r")
        assert (again.text, again.source, again.cost_usd, calls(there)) == ("from small", "semantic", Decimal(0), sent)
        assert len(entries(there, SMALL)) == 1
        await there.close()

    run_virtual(run())


NO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the cut-off": (LOGPROB, {"small": DOUBTFUL}),
    "a check": ({**VALID, "check": lambda text: "large" in text}, {}),
    "a verifier": (VERIFIER, {"help": "no"}),
}


@pytest.mark.parametrize("accept", NO)
def test_a_rejected_hit_goes_on_to_the_next_model(tmp_path: Path, accept: str) -> None:
    """Nobody sees it, its reason does not stick to the answer, it is no entry, and only what was asked is paid for."""

    async def run() -> None:
        route, steps = NO[accept]
        there = likening(tmp_path, route, **steps)
        await there.ask(ASKED, "r")
        sink = Seeing(there)
        reply = await there.ask(NEAR, "r", watched=True, sink=sink)
        assert (reply.text, reply.rung, reply.source, reply.rejected) == ("from large", LARGE, "model", 1)
        assert sink.text == "from large"
        assert (reply.why.matched_text, reply.why.similarity, reply.why.guards) == (None, None, None)
        assert (reply.why.route, reply.saved_usd, reply.accepted) == ("r", None, True)
        assert reply.why.reason.startswith("route r: cascade: large/m, the last model after small/m: ")
        assert reply.why.error_upper is None
        assert [a.rung for a in reply.attempts] == ([HELP, LARGE] if accept == "a verifier" else [LARGE])
        assert reply.cost_usd == sum((a.cost_usd or Decimal(0) for a in reply.attempts), Decimal(0))
        assert (len(entries(there, SMALL)), len(entries(there, LARGE))) == (1, 2)
        sent = calls(there)
        again = await there.door(NEAR, "r")
        assert (again.text, again.source, again.cost_usd, calls(there)) == ("from large", "cache", Decimal(0), sent)
        await there.close()

    run_virtual(run())


def test_the_next_model_may_have_a_hit_too(tmp_path: Path) -> None:
    """The cheap model's is rejected, the last one's needs no judge: nothing is sent, and the match that is named is the last's."""

    async def run() -> None:
        there = likening(tmp_path, LOGPROB, served=(SMALL, LARGE), small=DOUBTFUL)
        await there.ask(ASKED, "r")
        for _ in range(2):
            reply = await there.ask(NEAR, "r")
            assert (reply.text, reply.rung, reply.source, reply.rejected) == ("from large", LARGE, "semantic", 1)
            assert (reply.why.matched_text, reply.cost_usd) == (ASKED, Decimal(0))
            assert calls(there) == {"small": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_a_rejected_hit_may_be_the_best_answer_that_there_is(tmp_path: Path) -> None:
    """When the last model fails, it is returned, marked, and the call's row names the question and the model that it was for."""

    async def run() -> None:
        there = likening(tmp_path, LOGPROB, small=DOUBTFUL)
        await there.ask(ASKED, "r")
        there.providers["large"].enqueue(errors.AuthenticationFailed("no key"))
        reply = await there.ask(NEAR, "r")
        assert (reply.text, reply.source, reply.accepted, reply.why.matched_text) == ("doubtful", "semantic", False, ASKED)
        asked = there.request(NEAR, logprobs=True)
        assert there.ledger.calls_by_id[reply.call_id].key_hash == fingerprint(asked.content, there.rung(SMALL))
        await there.close()

    run_virtual(run())


def test_a_verdict_on_a_hit_is_kept_with_no_other_answer(tmp_path: Path) -> None:
    """The question has an expired answer of its own: what is said of the similar question's answer was not said of that one."""

    async def run() -> None:
        there = likening(tmp_path, VERIFIER, help="no")
        await there.ask(NEAR, SMALL, ttl_s=0.001, semantic=False)
        await there.ask(ASKED, SMALL)
        await asyncio.sleep(1)
        reply = await there.ask(NEAR, "r", ttl_s=10)
        assert (reply.rung, reply.rejected) == (LARGE, 1)
        assert [a.purpose for a in reply.attempts] == ["verify", "answer"]
        assert [entry.answer.get("verdicts") for entry in there.store.entries() if entry.model == SMALL] == [None, None]
        await there.close()

    run_virtual(run())


OTHERS = {
    "task": TASK,
    "weighted": {**WEIGHTED, "weights": {SMALL: 1, LARGE: 0}},
    "canary": {**CANARY, "share": 0.0},
    "classifier": CLASSIFIER,
}


@pytest.mark.parametrize("strategy", OTHERS)
def test_any_route_may_get_a_similar_questions_answer(tmp_path: Path, strategy: str) -> None:
    """The model that the route chose has one: route, reason and match are said together, and a second run sends nothing."""

    async def run() -> None:
        there = likening(tmp_path, OTHERS[strategy], help="easy")
        first = await there.ask(ASKED, "r")
        reply = await there.ask(NEAR, "r")
        assert (reply.text, reply.rung, reply.source) == ("from small", SMALL, "semantic")
        assert (reply.why.route, reply.why.matched_text, reply.why.threshold) == ("r", ASKED, 0.8)
        assert reply.why.reason == first.why.reason
        sent = calls(there)
        assert sent == {"small": 1} | ({"help": 2} if strategy == "classifier" else {})
        again = await there.door(NEAR, "r")
        assert (again.source, again.cost_usd, calls(there)) == ("semantic", Decimal(0), sent)
        await there.close()

    run_virtual(run())


def test_run_all_in_another_process_embeds_nothing_again(tmp_path: Path) -> None:
    """A hit leaves no entry of its own, but the embedding that found it is kept like a classifier's label or a judge's word."""

    async def run() -> None:
        embedder = {"semantic_cache.embedder": "help/e"}
        texts = [ASKED, ASKED.lower()]
        providers = {name: FakeProvider() for name in ("small", "help")}
        one = Likening(tmp_path, providers=providers, settings=embedder)
        providers["help"].enqueue(*(vectors_of(text) for text in texts))
        name = await one.road.semantic.embedding.identity("help/e")
        one.plan(one.question(ASKED, SMALL).scope, embedder=name)
        assert [(await one.ask(text, SMALL)).source for text in texts] == ["model", "semantic"]
        two = Likening(tmp_path, providers=providers, settings=embedder, store=one.store, index=one.index)
        two.plan(one.question(ASKED, SMALL).scope, embedder=name)
        assert [(await two.door(text, SMALL)).source for text in texts] == ["cache", "semantic"]
        assert calls(two) == {"small": 1, "help": 2}
        await one.close()
        await two.close()

    run_virtual(run())


def vectors_of(text: str) -> Ending:
    """Vectors that are near each other, whatever the text."""
    return Ending(finish_reason="stop", usage=Usage(input_tokens=3), vectors=((1.0, len(text) / 1000),))
