"""semantic: when an answer to a similar question is served, and when not."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.likening import ASKED, FAR, NEAR, Likening


def asked(folder: Path, second: str = NEAR, mode: str = "on", prepared: Any = None, **options: Any) -> tuple[Likening, Reply]:
    """Ask one question, then another; return the world at rest and the second reply. prepared: called between the two."""

    async def run() -> tuple[Likening, Reply]:
        world = Likening(folder, mode, provider=FakeProvider("first", "second", "third"))
        await world.ask(ASKED)
        if prepared is not None:
            prepared(world)
        reply = await world.ask(second, **options)
        await world.close()
        return world, reply

    return run_virtual(run())


def test_a_similar_question_gets_the_stored_answer(tmp_path: Path) -> None:
    """Nothing is sent, nothing is paid, and the reply says whose answer it is, how near, under which bound."""
    world, reply = asked(tmp_path)
    assert (reply.text, reply.source) == ("first", "semantic")
    assert world.provider.calls == 1
    assert reply.cost_usd == Decimal(0)
    assert reply.saved_usd is not None
    assert reply.saved_usd > 0
    why = reply.why
    assert (why.matched_text, why.threshold, why.error_upper, why.plan_id) == (ASKED, 0.8, 0.04, "p1")
    assert 0.8 < why.similarity <= 1.0  # type: ignore[operator]
    assert why.guards
    assert all(verdict.passed for verdict in why.guards)
    row = world.ledger.calls_by_id[reply.call_id]
    assert (row.source, row.why.similarity, row.why.plan_id) == ("semantic", why.similarity, "p1")
    assert row.why.matched_text is None, "the ledger holds no texts"
    (match,) = world.matches.newest(5)
    assert (match.kind, match.query, match.question, match.would, match.got) == ("hit", NEAR, ASKED, "first", None)


def test_a_hit_is_never_an_entry(tmp_path: Path) -> None:
    """The second question's key holds nothing afterwards, the index no second row: no answer is passed on from hit to hit."""
    world, _ = asked(tmp_path)
    assert len(list(world.store.entries())) == 1
    assert [row.question for row in world.index.rows] == [ASKED]


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_nothing_is_served_unless_switched_on(tmp_path: Path, mode: str) -> None:
    """Off and shadow ask the model; shadow records what would have been served, with both answers."""
    world, reply = asked(tmp_path, mode=mode)
    assert (reply.text, reply.source) == ("second", "model")
    if mode == "off":
        assert world.matches.newest(5) == []
        assert world.index.rows == []
        assert world.index.searches == 0
        return
    (match,) = world.matches.newest(5)
    assert (match.kind, match.would, match.got, match.probability) == ("shadow", "first", "second", 1.0)
    assert world.matches.to_label(5) == [match]
    assert [row.question for row in world.index.rows] == [ASKED, NEAR]


NOT_SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "far": (FAR, {}),
    "another system prompt": (NEAR, {"messages": ({"role": "system", "content": "x"}, {"role": "user", "content": NEAR})}),
    "another temperature": (NEAR, {"temperature": 0.3}),
    "another sample": (NEAR, {"sample": 2}),
    "another tenant": (NEAR, {"partition": "b"}),
    "another schema": (NEAR, {"json_schema": {"type": "string"}}),
    "cache off": (NEAR, {"cache": "off"}),
    "refresh": (NEAR, {"cache": "refresh"}),
    "switched off": (NEAR, {"semantic": False}),
    "tools": (NEAR, {"tools": ({"type": "function", "function": {"name": "f"}},)}),
    "now": ("How can I reset my password now?", {}),
    "a guard": ("How can I not reset my password?", {}),
    "another number": ("How can I reset my 2 passwords?", {}),
}


@pytest.mark.parametrize("what", NOT_SERVED)
def test_what_is_not_served(tmp_path: Path, what: str) -> None:
    """Whatever else differs, and whatever the guards see, the model answers."""
    text, options = NOT_SERVED[what]
    world, reply = asked(tmp_path, text, **options)
    assert (reply.text, reply.source) == ("second", "model")
    assert world.provider.calls == 2


def test_two_models_do_not_share(tmp_path: Path) -> None:
    """A partition holds one model on one endpoint."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider("first", "second"))
        world.plan(*(world.question(ASKED, name).scope for name in ("one/m", "one/n")))
        await world.ask(ASKED, "one/m")
        assert (await world.ask(NEAR, "one/n")).source == "model"
        assert (await world.ask("How can I reset the password?", "one/n")).why.matched_text == NEAR
        await world.close()

    run_virtual(run())


def test_the_readers_own_schema_and_check_decide(tmp_path: Path) -> None:
    """A stored answer that fails this request's check is a miss, as for exact hits."""
    _, reply = asked(tmp_path, check=lambda text: text != "first")
    assert (reply.text, reply.source) == ("second", "model")


def test_below_the_threshold_the_model_answers(tmp_path: Path) -> None:
    """The plan's threshold is the line."""

    async def run() -> None:
        world = Likening(tmp_path, threshold=0.999, provider=FakeProvider("first", "second"))
        await world.ask(ASKED)
        assert (await world.ask(NEAR)).source == "model"
        await world.close()

    run_virtual(run())


def test_a_watcher_sees_the_hit(tmp_path: Path) -> None:
    """A stream gets the stored answer as one piece."""

    class Watching:
        def __init__(self) -> None:
            self.text = ""

        def started(self, attempt: Any) -> None:
            self.text += "<sent>"

        def delta(self, delta: Any) -> None:
            self.text += delta.text

        def restarted(self, reason: str) -> None:
            self.text = ""

    sink = Watching()
    asked(tmp_path, sink=sink, watched=True)
    assert sink.text == "first"


def test_many_who_ask_the_same_are_one(tmp_path: Path) -> None:
    """500 identical calls: one embedding, one search, one answer."""

    async def run() -> None:
        world = Likening(tmp_path, mode="shadow", provider=FakeProvider(default="only"))
        replies = await asyncio.gather(*(world.ask(ASKED) for _ in range(500)))
        assert {reply.text for reply in replies} == {"only"}
        assert world.provider.calls == 1
        assert world.index.searches == 1
        assert len(world.index.rows) == 1
        await world.close()

    run_virtual(run())


def test_some_hits_are_audited(tmp_path: Path) -> None:
    """A share of hits goes to the model all the same: the caller gets the model's answer, and both are offered for a label."""

    async def run() -> None:
        world = Likening(tmp_path, settings={"semantic_cache.audit_share": 1.0}, provider=FakeProvider("first", "second"))
        await world.ask(ASKED)
        reply = await world.ask(NEAR)
        assert (reply.text, reply.source) == ("second", "model")
        (match,) = world.matches.to_label(5)
        assert (match.kind, match.would, match.got, match.probability, match.plan_id) == ("audit", "first", "second", 1.0, "p1")
        await world.close()

    run_virtual(run())


def test_the_share_that_is_audited_is_the_share_that_was_set(tmp_path: Path) -> None:
    """Of a thousand hits about a tenth goes to the model, and each of those says with which probability."""

    async def run() -> None:
        world = Likening(
            tmp_path, settings={"semantic_cache.audit_share": 0.1}, jitter=Random(7).random, provider=FakeProvider(default="answer")
        )
        await world.ask(ASKED)
        for number in range(1000):
            await world.ask(f"How can I reset my password{'?' * (number + 2)}")
        audits = world.matches.newest(2000, kind="audit")
        assert 60 < len(audits) < 140
        assert {match.probability for match in audits} == {0.1}
        await world.close()

    run_virtual(run())


def test_a_failure_upstream_leaves_no_record(tmp_path: Path) -> None:
    """A call that failed is no match and no entry, and its error is the model's own."""

    async def run() -> None:
        world = Likening(tmp_path, "shadow", provider=FakeProvider("first", errors.ServerFailed("down")))
        await world.ask(ASKED)
        with pytest.raises(errors.NbllmError):
            await world.ask(NEAR, retries=0)
        assert world.matches.newest(5) == []
        assert len(world.index.rows) == 1
        await world.close()

    run_virtual(run())


def test_who_wants_no_similar_answer_joins_no_run_that_gives_one(tmp_path: Path) -> None:
    """semantic=False beside the same question without it, at the same time: each gets what it asked for."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider("first", "second"))
        await world.ask(ASKED)
        replies = await asyncio.gather(world.ask(NEAR), world.ask(NEAR, semantic=False))
        assert [reply.source for reply in replies] == ["semantic", "model"]
        await world.close()

    run_virtual(run())


def test_a_verdict_on_another_question_is_none_on_this_one(tmp_path: Path) -> None:
    """What a verifier said of an answer was said of its own question: it does not come along with a hit."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider("first", "second"))
        reply = await world.ask(ASKED)
        (entry,) = [await world.store.get(key) for key in (row.key for row in world.index.rows)]
        await world.store.put(replace(entry, answer={**entry.answer, "verdicts": {"criterion": True}}))
        assert (await world.ask(ASKED)).verdicts == {"criterion": True}
        reply = await world.ask(NEAR)
        assert (reply.source, reply.verdicts) == ("semantic", None)
        await world.close()

    run_virtual(run())


def test_a_question_with_a_key_takes_no_part(tmp_path: Path) -> None:
    """A key in a question is not embedded, not kept beside the vector, and not shown to whoever asks something similar."""

    async def run() -> None:
        world = Likening(tmp_path, mode="shadow", provider=FakeProvider(default="answer"))
        await world.ask(f"{ASKED} It is sk-proj-abcDEF1234567890abcdef1234567890XYZ")  # gitleaks:allow
        assert (world.index.searches, len(world.index.rows)) == (0, 0)
        await world.close()

    run_virtual(run())
