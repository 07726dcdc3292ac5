"""The semantic cache as a user meets it: shadow, labels, a plan, hits, a wrong answer marked and gone."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client, errors
from nbllm.calibration import calibrate_threshold
from nbllm.core.messages import Embed, Ending
from nbllm.semantic_plans import Calibration
from nbllm.testing import FakeProvider
from tests.steady import STEADY

ROOM, VERB = ("kitchen", "garden", "office", "cellar", "attic"), ("paint", "clean", "light", "heat", "measure")


def client(tmp_path: Path, **more: object) -> Client:
    """A client that answers each question in its own words."""
    provider = FakeProvider(default=lambda wire: f"answer to {wire.content.messages[-1]['content']}")  # type: ignore[union-attr]
    return Client(
        home=tmp_path / "home",
        model="sim/small",
        providers={"simulated": provider},
        **{"semantic_cache.mode": "shadow", "semantic_cache.embed_timeout_s": 30.0, **more},  # type: ignore[arg-type]
    )


def pairs(count: int, *, wrong: float) -> list[tuple[str, str, bool]]:
    """Pairs of questions that look alike; a share of them is labelled as different."""
    chance = random.Random(1)
    made = []
    for number in range(count):
        verb, room = VERB[number % 5], ROOM[number // 5 % 5]
        tail = "?" * (1 + number % 3) + " " * (number % 2)
        made.append((f"How do I {verb} the {room}{tail}", f"How do I {verb} my {room}?", chance.random() >= wrong))
    return made


def test_from_shadow_to_a_wrong_answer_marked_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: what shadow met is labelled, calibrated, switched on, served with its bound, marked wrong, and gone."""
    monkeypatch.chdir(tmp_path)
    with client(tmp_path) as asking:
        for verb in VERB:
            for room in ROOM:
                asking.ask(f"How do I {verb} the {room}?")
                for how in ("my", "our", "your", "this"):
                    assert asking.ask(f"How do I {verb} {how} {room}?").source == "model"
        book = asking.semantic
        assert book.waiting() >= 80
        for match in book.to_label(200):
            assert match.got is not None
            book.label(match, match.query.split()[3::2] == match.question.split()[3::2])
        found = book.calibrate(max_error=0.1)
        assert found.plan.threshold is not None, found.plan.reason
        assert found.plan.origin == "audit"
        where = book.apply(found)
        assert where == tmp_path / "nbllm-semantic.json"
        plan = json.loads(where.read_text())
        assert plan["threshold"] == found.plan.threshold
        asking.configure(**STEADY)
        reply = asking.ask("How do I paint the kitchen ?")
        assert reply.source == "semantic"
        assert reply.why.matched_text == "How do I paint the kitchen?"
        assert reply.why.error_upper == found.plan.error_upper
        assert reply.cost_usd == 0
        marked = asking.semantic.mark(reply)
        assert (marked.evicted, marked.blocked) == (1, True)
        assert "never" in repr(marked)
        again = asking.ask("How do I paint the kitchen ?")
        assert again.why.matched_text != "How do I paint the kitchen?"
        assert [label.origin for label in book.labels()].count("marked") == 1
        usage = asking.usage("source")
        assert {row.group for row in usage} >= {"model", "semantic"}


def test_imported_pairs_make_a_foreign_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV is read, guards are run, and a plan from it serves only who says that pairs like these are good enough."""
    monkeypatch.chdir(tmp_path)
    rows = pairs(400, wrong=0.0)
    with Path("pairs.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["query", "question", "correct"])
        writer.writerows(rows)
        writer.writerow(["How do I heat 2 rooms?", "How do I heat 3 rooms?", "no"])
    with client(tmp_path) as asking:
        done = asking.semantic.import_pairs("pairs.csv")
        assert (done.labels, done.stopped) == (400, 1)
        found = asking.semantic.calibrate()
        assert found.plan.origin == "imported"
        with pytest.raises(errors.ConfigurationError, match="pairs like these"):
            asking.semantic.apply(found)
        asking.semantic.apply(found, accept_foreign=True)
        asking.ask("How do I paint the kitchen?")
        asking.configure(**STEADY)
        assert asking.ask("How do I paint the kitchen ?").source == "semantic"


def test_a_threshold_between_two_points_becomes_the_stricter_one() -> None:
    """A bound is of all hits down to its own threshold; below that, where nothing was bounded, it is not used."""
    numbers = random.Random(3)
    scores = [numbers.random() for _ in range(800)]
    plan = calibrate_threshold(scores, [numbers.random() < 0.5 + score / 2 for score in scores], max_error=0.2)
    found = Calibration(plan, "words", "guards", (), 10, 0)
    strict, loose = plan.curve[10], plan.curve[11]
    switched = found.semantic_plan((strict.threshold + loose.threshold) / 2)
    assert (switched.threshold, switched.error_upper) == (strict.threshold, strict.error_upper)
    assert switched.plan_id != plan.plan_id
    with pytest.raises(errors.ConfigurationError, match="Nothing is promised"):
        found.semantic_plan(2.0)


def test_bad_pairs_say_which_row(tmp_path: Path) -> None:
    """Nothing is imported when a row is none: the error names it, and what a row should be."""
    good = ("a question", "another", True)
    with client(tmp_path) as asking:
        for rows, word in (
            ([good, ("x", "y")], "Row 2 is no pair"),
            ([good, ("", "y", True)], "Row 2 has no two questions"),
            ([good, good, ("x", "y", "perhaps")], "Row 3 says neither"),
            ([], "no pairs"),
            (7, "holds no pairs"),
            ("none.csv", "cannot be read"),
        ):
            with pytest.raises(errors.InvalidRequest, match=word):
                asking.semantic.import_pairs(rows)
        assert asking.semantic.labels() == []


def test_too_few_labels_are_refused_in_words(tmp_path: Path) -> None:
    """No labels at all, and three of them: what is missing is said, and nothing is switched on."""
    with client(tmp_path) as asking:
        with pytest.raises(errors.InvalidRequest, match="no labels"):
            asking.semantic.calibrate()
        asking.semantic.import_pairs(pairs(3, wrong=0.0))
        found = asking.semantic.calibrate()
        assert found.plan.threshold is None
        assert "label" in str(found)
        with pytest.raises(errors.ConfigurationError, match="no plan"):
            asking.semantic.apply(found, accept_foreign=True)
        assert asking.settings.semantic_cache.mode == "shadow"


def test_the_same_look_is_free_and_a_new_one_is_not(tmp_path: Path) -> None:
    """Looking again at the same labels says the same; labelling more and looking again spends level."""
    with client(tmp_path) as asking:
        asking.semantic.import_pairs(pairs(100, wrong=0.2))
        first = asking.semantic.calibrate()
        assert asking.semantic.calibrate().plan.look == first.plan.look == 1
        asking.semantic.import_pairs(pairs(100, wrong=0.2))
        second = asking.semantic.calibrate()
        assert second.plan.look == 2
        assert second.plan.level < first.plan.level
        asking.configure(**{"semantic_cache.guards": ["numbers"]})
        asking.semantic.import_pairs(pairs(100, wrong=0.2))
        assert asking.semantic.calibrate().plan.look == 3, "who tries other guards, or another embedder, has looked once more"
        asking.configure(**{"semantic_cache.guards": ["all"]})
        assert asking.semantic.calibrate().plan.look == 2, "the same look is still free"


def test_audits_that_speak_against_a_plan_take_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a plan on, wrong audits turn it back to shadow, with one warning that has the numbers."""
    monkeypatch.chdir(tmp_path)
    with client(tmp_path) as asking:
        asking.semantic.import_pairs(pairs(400, wrong=0.0))
        asking.semantic.apply(asking.semantic.calibrate(max_error=0.02), accept_foreign=True)
        asking.configure(**{"semantic_cache.audit_share": 1.0})
        asking.ask("How do I paint the kitchen?")
        warned: list[str] = []
        for number in range(40):
            asking.ask(f"How do I paint the kitchen {'?' * (number + 1)}")
            for match in asking.semantic.to_label(5):
                assert match.kind == "audit"
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    asking.semantic.label(match, correct=False)
                warned += [str(one.message) for one in caught]
            if warned:
                break
        assert len(warned) == 1
        assert "back in shadow" in warned[0]
        with pytest.warns(nbllm.NbllmWarning, match="taken back"):
            reply = asking.ask("How do I paint the kitchen !")
        assert reply.source == "model"


def test_marking_a_models_own_answer_takes_it_out_of_the_cache(tmp_path: Path) -> None:
    """A wrong answer that no other question got is asked for anew; an unknown call is an error."""
    with client(tmp_path) as asking:
        reply = asking.ask("How do I paint the kitchen?")
        assert asking.ask("How do I paint the kitchen?").source == "cache"
        assert asking.semantic.mark(reply.call_id).evicted == 1
        assert asking.ask("How do I paint the kitchen?").source == "model"
        assert asking.semantic.mark(reply, wrong=False).evicted == 0
        with pytest.raises(errors.InvalidRequest, match="No call 'nobody'"):
            asking.semantic.mark("nobody")


def test_purging_leaves_no_question_behind(tmp_path: Path) -> None:
    """The index forgets what the cache forgets."""
    with client(tmp_path) as asking:
        asking.ask("How do I paint the kitchen?")
        asking.ask("Where is the garden?")
        assert asking.semantic.purge(tag="none") == 0
        assert asking.semantic.purge() == 2
        assert asking._run(lambda house: house.storage.index.count()) == 0
        assert asking.semantic.forget() >= 0


def test_two_processes_worth_of_clients_share_what_was_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one client stored, labelled and switched on, another on the same home serves."""
    monkeypatch.chdir(tmp_path)
    with client(tmp_path) as first:
        first.ask("How do I paint the kitchen?")
        first.semantic.import_pairs(pairs(400, wrong=0.0))
        where = first.semantic.apply(first.semantic.calibrate(), accept_foreign=True)
    settings = {"semantic_cache.mode": "on", "semantic_cache.plan": str(where), "semantic_cache.accept_foreign": True}
    with client(tmp_path, **{**settings, **STEADY}) as second:
        assert second.ask("How do I paint the kitchen ?").source == "semantic"


@pytest.mark.parametrize("vector", ["longer", "zeros"])
def test_an_embedder_that_changes_is_a_miss_with_a_note(tmp_path: Path, vector: str) -> None:
    """Another dimension than before, or zeros: the model answers, the reply says what is wrong, and nothing is lost."""

    def answer(wire: Any) -> Any:
        if not isinstance(wire.content, Embed):
            return f"answer to {wire.content.messages[-1]['content']}"
        size = 0.0 if changed and vector == "zeros" else 1.0
        return Ending(finish_reason="stop", vectors=((size,) * (16 if changed and vector == "longer" else 8),))

    changed = False
    provider = FakeProvider(default=answer)
    with Client(home=tmp_path / "home", model="sim/small", providers={"simulated": provider}) as asking:
        asking.configure(**{"semantic_cache.mode": "shadow", "semantic_cache.embedder": "sim/small"})
        asking.ask("How do I paint the kitchen?")
        changed = True
        with pytest.warns(nbllm.NbllmWarning, match="zeros" if vector == "zeros" else "dimension|numbers"):
            reply = asking.ask("How do I paint the garden?")
        assert reply.text == "answer to How do I paint the garden?"
        changed = False
        asking.ask("How do I paint the office?")
        assert [match.question for match in asking.semantic.matches()] == ["How do I paint the kitchen?"]


def test_questions_of_any_size_are_answered(tmp_path: Path) -> None:
    """A question of a megabyte takes no part, and is answered like any other."""
    with client(tmp_path) as asking:
        assert asking.ask("word " * 200_000).text.startswith("answer to word")
        assert asking._run(lambda house: house.storage.index.count()) == 0


def test_a_label_of_what_was_not_offered_is_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit that somebody came upon, and labels, counts as marked: it calibrates nothing."""
    monkeypatch.chdir(tmp_path)
    with client(tmp_path) as asking:
        asking.semantic.import_pairs(pairs(400, wrong=0.0))
        asking.semantic.apply(asking.semantic.calibrate(), accept_foreign=True)
        asking.configure(**STEADY)
        asking.ask("How do I paint the kitchen?")
        assert asking.ask("How do I paint the kitchen ?").source == "semantic"
        (hit,) = asking.semantic.matches(kind="hit")
        asking.semantic.label(hit, True)
        assert [label.match_id for label in asking.semantic.labels(origin="marked")] == [hit.match_id]
        assert asking.semantic.calibrate().plan.origin == "imported"


def test_a_call_that_shared_a_run_can_be_marked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six equal calls share a hit; whichever of them is marked, the pair is blocked and the answer gone."""
    monkeypatch.chdir(tmp_path)
    with client(tmp_path) as asking:
        asking.semantic.import_pairs(pairs(400, wrong=0.0))
        asking.semantic.apply(asking.semantic.calibrate(), accept_foreign=True)
        asking.configure(**STEADY)
        asking.ask("How do I paint the kitchen?")

        async def six() -> list[nbllm.Reply]:
            return await asyncio.gather(*(asking.aask("How do I paint the kitchen ?") for _ in range(6)))

        replies = asyncio.run(six())
        assert {reply.source for reply in replies} == {"semantic"}
        for reply in replies[::-1]:
            assert asking.semantic.mark(reply).blocked
        assert asking.ask("How do I paint the kitchen ?").source == "model"
        assert {match.would for match in asking.semantic.matches(kind="hit")} == {""}, "a wrong answer leaves no copy behind"


def test_what_is_picked_by_hand_is_no_sample(tmp_path: Path) -> None:
    """A label of a match before its turn, or of no match at all, calibrates nothing."""
    with client(tmp_path) as asking:
        for verb in VERB:
            for room in ROOM:
                asking.ask(f"How do I {verb} the {room}?")
                for how in ("my", "our", "your", "this", "that", "his"):
                    asking.ask(f"How do I {verb} {how} {room}?")
        offered = asking.semantic.to_label(1000)
        assert len(offered) > 110
        asking.semantic.label(offered[-1], correct=True)
        asking.semantic.label(offered[0], correct=True)
        asking.semantic.label(offered[0], correct=False)
        assert [(label.origin, label.correct) for label in asking.semantic.labels()] == [("marked", True), ("audit", False)]
        with pytest.raises(errors.InvalidRequest, match="no match"):
            asking.semantic.label(None, correct=True)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidRequest, match="No call"):
            asking.semantic.mark(None)  # type: ignore[arg-type]
