"""semantic: what is gone, blocked, stale or broken is a miss, said once, and the model answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.likening import ASKED, NEAR, NEARER, Likening
from tests.pipeline.test_semantic_serves import asked


def _model_answered(world: Likening, reply: Reply, note: str = "") -> None:
    assert (reply.text, reply.source) == ("second", "model")
    if note:
        assert [note in one for one in reply.notes].count(True) == 1, reply.notes
    else:
        assert reply.notes == ()


def test_an_answer_that_was_purged_takes_its_vector_with_it(tmp_path: Path) -> None:
    """The index never answers: what is not in the cache any more is no hit, and is forgotten."""
    world, reply = asked(tmp_path, prepared=lambda world: world.store.purge())
    _model_answered(world, reply)
    assert [row.question for row in world.index.rows] == [NEAR]


def test_an_answer_that_only_cannot_be_read_keeps_its_question(tmp_path: Path) -> None:
    """A cache that is locked, or a Redis that is away, is a miss; the index forgets nothing for it."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider("first", "second", "third"))
        await world.ask(ASKED)
        missing, get = world.store.missing, world.store.get
        world.store.get = lambda _: get("")

        async def away(_: Any) -> Any:
            raise errors.StorageError("Redis is gone.")

        world.store.missing = away
        assert (await world.ask(NEAR, cache="use")).source == "model"
        assert ASKED in [row.question for row in world.index.rows]
        world.store.missing, world.store.get = missing, get
        assert (await world.ask(NEARER)).source == "semantic"
        await world.close()

    run_virtual(run())


def test_questions_whose_answers_are_evicted_go_in_time(tmp_path: Path) -> None:
    """What the cache lets go of to keep its size leaves no question behind: each new one pays for a look at a few old ones."""

    async def run() -> None:
        world = Likening(tmp_path, "shadow", provider=FakeProvider(default="answer"))
        for number in range(30):
            await world.ask(f"Tell me of {'x' * number} things")
        world.store.purge()
        for number in range(18):
            await world.ask(f"And then of {'y' * number} others")
        assert not [row for row in world.index.rows if row.question.startswith("Tell")]
        assert len(world.index.rows) == 18
        await world.close()

    run_virtual(run())


def test_the_next_neighbour_is_tried(tmp_path: Path) -> None:
    """The nearest is gone; the second nearest answers."""

    async def run() -> None:
        world = Likening(tmp_path, "shadow", provider=FakeProvider("first", "second"))
        await world.ask(ASKED)
        await world.ask(NEAR)
        nearest = world.index.rows[0].key
        world.plan()
        world.configure(**{"semantic_cache.mode": "on"})
        world.store.purge(key_prefix=nearest)
        reply = await world.ask(NEARER)
        assert (reply.text, reply.why.matched_text) == ("second", NEAR)
        await world.close()

    run_virtual(run())


def test_an_answer_past_its_time_is_no_hit(tmp_path: Path) -> None:
    """Neither past its own ttl_s, nor past this request's, nor past the absolute age; a hit refreshes nothing."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider(default="answer"), settings={"semantic_cache.max_age_s": 100})
        await world.ask(ASKED)
        await asyncio.sleep(60)
        assert (await world.ask(NEAR, ttl_s=30)).source == "model"
        assert (await world.ask(NEARER)).source == "semantic"
        await asyncio.sleep(60)
        reply = await world.ask("how do I reset the password please?")
        assert reply.source == "model", "the first is past its time, though it was a hit a minute ago"
        assert ASKED not in [row.question for row in world.index.rows]
        await world.close()

    run_virtual(run())


def test_an_answer_past_its_own_time_is_forgotten(tmp_path: Path) -> None:
    """An entry that has expired takes its vector with it."""

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider(default="answer"))
        await world.ask(ASKED, ttl_s=30)
        await asyncio.sleep(60)
        assert (await world.ask(NEAR)).source == "model"
        assert [row.question for row in world.index.rows] == [NEAR]
        await world.close()

    run_virtual(run())


def test_a_blocked_pair_never_matches(tmp_path: Path) -> None:
    """What was marked wrong once is asked for ever after."""
    world, reply = asked(tmp_path, prepared=lambda world: world.matches.block(NEAR, ASKED))
    _model_answered(world, reply)


PLANS: dict[str, tuple[Any, str]] = {
    "no file": (lambda world: (world.folder / "plan.json").unlink(), "cannot be read"),
    "half a file": (lambda world: (world.folder / "plan.json").write_text('{"kind": "nb'), "is no JSON"),
    "another embedder": (lambda world: world.plan(embedder="other/1"), "embedder other/1"),
    "other guards": (lambda world: world.plan(guards="0 all"), "other guards"),
    "a larger index": (lambda world: world.plan(index_rows=-1), "grown"),
    "another scope": (lambda world: world.plan("other"), "was not made for one/m"),
    "imported pairs": (lambda world: world.plan(origin="imported", scopes=()), "accept_foreign"),
    "taken back": (lambda world: world.matches.take_back("p1", "wrong too often"), "taken back: wrong too often"),
    "none": (lambda world: world.configure(**{"semantic_cache.plan": None}), "there is no plan"),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_that_does_not_hold_serves_nothing(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back to shadow with one visible warning, which names the reason; matches are still recorded."""
    prepare, note = PLANS[what]
    monkeypatch.setattr("nbllm.core.semantic.plan.FEW_ROWS", 1)

    async def run() -> None:
        world = Likening(tmp_path, provider=FakeProvider("first", "second", "third", "fourth"))
        if what != "a larger index":
            await world.ask(ASKED)
        else:
            for text in ("a", "b", "c", "d"):
                await world.ask(f"Tell me about {text * 7}")
            world.provider = FakeProvider("first", "second", "third")
            await world.ask(ASKED)
        prepare(world)
        world.road.semantic.plans.changed()
        reply = await world.ask(NEAR)
        _model_answered(world, reply, note)
        assert "shadow" in "".join(reply.notes)
        assert [match.kind for match in world.matches.newest(5)] == ["shadow"]
        assert (await world.ask(NEARER)).notes == ()
        await world.close()

    run_virtual(run())


def test_imported_pairs_serve_when_they_are_accepted(tmp_path: Path) -> None:
    """Who says so takes a plan of imported pairs for their own traffic."""

    def prepare(world: Likening) -> None:
        world.plan(origin="imported", scopes=())
        (tmp_path / "plan.json").write_text(json.dumps(json.loads((tmp_path / "plan.json").read_text()) | {"scopes": []}))
        world.configure(**{"semantic_cache.accept_foreign": True})

    _, reply = asked(tmp_path, prepared=prepare)
    assert reply.source == "semantic"


def test_a_broken_index_is_a_miss(tmp_path: Path) -> None:
    """The model answers, and the reply says that nothing was looked for."""

    def prepare(world: Likening) -> None:
        world.index.trouble = errors.StorageError("vectors.db is damaged.")

    _, reply = asked(tmp_path, prepared=prepare)
    assert reply.text == "second"
    assert any("vectors.db is damaged" in note for note in reply.notes)


EMBEDDER = {"semantic_cache.embedder": "help/e"}


@pytest.mark.parametrize(
    ("script", "note"),
    [
        (errors.ServerFailed("down"), "No similar question was looked for"),
        (Script(hang=True), "no embedding within 0.5 s"),
    ],
)
def test_an_embedder_that_fails_is_a_miss(tmp_path: Path, script: Any, note: str) -> None:
    """Within its own time: the answer comes from the model, half a second later at most."""

    async def run() -> None:
        world = Likening(
            tmp_path, settings=EMBEDDER, providers={"one": FakeProvider(default="answer"), "help": FakeProvider(default=script)}
        )
        began = world.clock.now_s()
        reply = await world.ask(ASKED, retries=0)
        assert reply.text == "answer"
        assert any(note in one for one in reply.notes), reply.notes
        assert world.clock.now_s() - began < 1
        await world.close()

    run_virtual(run())


def test_the_embedding_is_on_the_bill(tmp_path: Path) -> None:
    """Its attempt is a row of the call, and what it costs is in the call's cost, for a hit too."""

    async def run() -> None:
        world = Likening(tmp_path, settings=EMBEDDER, providers={"one": FakeProvider(default="a"), "help": FakeProvider()})
        embedder = await world.road.semantic.embedding.identity("help/e")
        world.plan(embedder=embedder)
        await world.ask(ASKED)
        reply = await world.ask(NEAR)
        assert [attempt.purpose for attempt in reply.attempts][:1] == ["embed"]
        assert reply.cost_usd == sum(attempt.cost_usd or 0 for attempt in reply.attempts)
        assert reply.cost_usd > 0
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(("says", "source"), [("YES", "semantic"), ("NO.", "model"), ("Maybe", "model"), (None, "model")])
def test_a_judge_has_the_last_word(tmp_path: Path, says: str | None, source: str) -> None:
    """YES serves; NO, anything else, and a judge that fails is a miss."""

    async def run() -> None:
        judge = FakeProvider(default=says or errors.ServerFailed("down"))
        world = Likening(
            tmp_path,
            settings={"semantic_cache.judge": "help/judge"},
            providers={"one": FakeProvider("first", "second"), "help": judge},
        )
        world.plan()
        await world.ask(ASKED)
        reply = await world.ask(NEAR, retries=0)
        assert reply.source == source
        assert "judge" in [attempt.purpose for attempt in reply.attempts]
        await world.close()

    run_virtual(run())


def test_above_its_band_the_judge_is_not_asked(tmp_path: Path) -> None:
    """judge_below is where the grey band ends."""

    async def run() -> None:
        world = Likening(
            tmp_path,
            settings={"semantic_cache.judge": "help/judge", "semantic_cache.judge_below": 0.81},
            providers={"one": FakeProvider("first", "second"), "help": FakeProvider(default="NO")},
        )
        world.plan()
        await world.ask(ASKED)
        assert (await world.ask(NEAR)).source == "semantic"
        await world.close()

    run_virtual(run())


def test_one_user_cannot_fill_the_index(tmp_path: Path) -> None:
    """Beyond writes_per_minute a caller's answers are cached as ever, and not offered to others; other callers are not held up."""

    async def run() -> None:
        world = Likening(
            tmp_path, "shadow", settings={"semantic_cache.writes_per_minute": 3}, provider=FakeProvider(default="answer")
        )
        for number in range(10):
            await world.ask(f"Tell me of {'x' * number} things", user="mallory")
        assert len(world.index.rows) == 3
        await world.ask("And who else?", user="ann")
        await world.ask("And without a name?")
        assert len(world.index.rows) == 5
        assert len(list(world.store.entries())) == 12
        await world.close()

    run_virtual(run())


def test_an_unknown_guard_is_a_miss_with_its_name(tmp_path: Path) -> None:
    """A guard that is none stops the search, not the call; what there is is said."""

    async def run() -> None:
        world = Likening(tmp_path, "shadow", settings={"semantic_cache.guards": ("nope",)}, provider=FakeProvider(default="answer"))
        await world.ask(ASKED)
        reply = await world.ask(NEAR)
        assert reply.source == "model"
        assert any("names nope, which is no guard" in note for note in reply.notes)
        await world.close()

    run_virtual(run())


def test_in_shadow_a_slow_judge_costs_no_answer(tmp_path: Path) -> None:
    """The answer is there and paid for: a judge that never says anything does not turn it into a missed deadline."""

    async def run() -> None:
        world = Likening(
            tmp_path,
            "shadow",
            settings={"semantic_cache.judge": "help/judge"},
            providers={"one": FakeProvider("first", "second"), "help": FakeProvider(default=Script(hang=True))},
        )
        await world.ask(ASKED)
        reply = await world.ask(NEAR, deadline_s=2.0)
        assert reply.text == "second"
        assert any("took too long" in note for note in reply.notes)
        await world.close()

    run_virtual(run())
