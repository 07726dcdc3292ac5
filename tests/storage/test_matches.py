"""semantic.db: what was met, what people say of it."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from nbllm.core.ports.matches import Label, Match
from nbllm.storage.home import Home
from nbllm.storage.matches import SqliteMatches

MATCH = Match(
    match_id="m1", at=float(int(time.time())), call_id="c1", kind="shadow", rung="lab/m", scope="s", embedder="lexical/1", guards="1 all",
    query="How do I log in?", question="How can I log in?", key="k1", score=0.93, would="Like this.", got="Like that.",
    probability=1.0, order=0.5,
)  # fmt: skip
LABEL = Label(
    label_id="l1", at=2000.0, correct=True, origin="audit", score=0.93, scope="s", embedder="lexical/1", guards="1 all",
    query="How do I log in?", question="How can I log in?", probability=1.0, match_id="m1",
)  # fmt: skip


@pytest.fixture
def matches(tmp_path: Path):
    store = SqliteMatches(Home(tmp_path / "home"))
    yield store
    store.close()


def test_a_match_comes_back_as_it_was(matches: SqliteMatches) -> None:
    """Every field is kept, the model's answer too when it comes later."""
    matches.note(replace(MATCH, failed=("numbers: 7 here, 17 there",), got=None))
    matches.finish("m1", "Later.")
    assert matches.of_call("c1") == replace(MATCH, failed=("numbers: 7 here, 17 there",), got="Later.")
    assert matches.newest(5) == [replace(MATCH, failed=("numbers: 7 here, 17 there",), got="Later.")]
    assert matches.newest(5, kind="hit") == []
    assert matches.of_call("c2") is None


def test_what_is_offered_for_labelling(matches: SqliteMatches) -> None:
    """In random order; not what a guard stopped, what was not sampled, what is below, or what a person has labelled."""
    for name, change in {
        "late": {"order": 0.9},
        "early": {"order": 0.1},
        "stopped": {"failed": ("negation: not",)},
        "served": {"probability": None},
        "below": {"score": 0.4},
        "done": {},
        "judged": {"order": 0.95},
    }.items():
        matches.note(replace(MATCH, match_id=name, **change))
    matches.label(replace(LABEL, match_id="done"))
    matches.label(replace(LABEL, label_id="l2", match_id="judged", origin="judge"))
    assert [one.match_id for one in matches.to_label(10, at_least=0.5)] == ["early", "late", "judged"]
    assert [one.match_id for one in matches.to_label(1)] == ["early"]
    assert matches.to_label(10, scope="other") == []
    assert matches.unread() == 4


def test_a_later_label_takes_the_place_of_the_first(matches: SqliteMatches) -> None:
    """Who changes their mind counts once; a judge's label stands beside a person's."""
    matches.note(MATCH)
    matches.label(LABEL)
    matches.label(replace(LABEL, label_id="l2", correct=False, at=3000.0))
    matches.label(replace(LABEL, label_id="l3", origin="judge", at=4000.0))
    assert [(one.label_id, one.correct) for one in matches.labels()] == [("l2", False), ("l3", True)]
    assert matches.labels(origin="judge") == [replace(LABEL, label_id="l3", origin="judge", at=4000.0)]


def test_blocked_pairs_stay_blocked(matches: SqliteMatches) -> None:
    """In either direction, however spaced or cased, also after everything was forgotten."""
    assert not matches.blocked("a b", "c")
    matches.block("A  b", "c")
    matches.note(MATCH)
    matches.label(LABEL)
    assert matches.forget() == 2
    assert matches.blocked("c", "a B")
    assert not matches.blocked("c", "a")
    assert matches.newest(5) == matches.labels() == []


def test_forgotten_and_secret_texts_are_not_in_the_files(matches: SqliteMatches, tmp_path: Path) -> None:
    """Texts are redacted before they are written, and overwritten when they are forgotten."""
    secret = "sk-proj-" + "a1B2c3D4" * 6
    for number in range(30):
        matches.note(replace(MATCH, match_id=str(number), query=f"my key is {secret}", would="remember-me " * 200))
    assert secret not in str(matches.newest(50))
    matches.forget()
    matches.close()
    for path in (tmp_path / "home").rglob("*.db*"):
        assert b"remember-me" not in path.read_bytes()
        assert secret.encode() not in path.read_bytes()


def test_looks_are_counted_for_good(matches: SqliteMatches, tmp_path: Path) -> None:
    """Each new look at a store of labels has the next number; the same look again is the same; another store has its own."""
    assert [matches.look("a", data) for data in ("1", "2", "1", "3")] == [1, 2, 1, 3]
    assert matches.look("b", "1") == 1
    matches.forget()
    assert matches.look("a", "4") == 4


def test_a_plan_is_taken_back_once(matches: SqliteMatches) -> None:
    """The first reason stands, and only who gave it is told that it was the first."""
    assert matches.taken_back("p") is None
    assert matches.take_back("p", "wrong too often")
    assert not matches.take_back("p", "again")
    assert matches.taken_back("p") == "wrong too often"


def test_the_oldest_without_a_label_go_first(tmp_path: Path) -> None:
    """The store is bounded; what somebody labelled is kept."""
    matches = SqliteMatches(Home(tmp_path / "home"), most=100)
    matches.note(replace(MATCH, at=4e9 - 1e6))
    matches.label(LABEL)
    for number in range(450):
        written = matches.note(replace(MATCH, match_id=str(number), at=4e9 + number))
    assert written is not None
    written.result(10)
    kept = {one.match_id for one in matches.newest(1000)}
    assert "m1" in kept
    assert "449" in kept
    assert "0" not in kept
    assert len(kept) <= 100 + 200
    matches.close()


def _work(home: str, number: int) -> None:
    matches = SqliteMatches(Home(home))
    for count in range(50):
        matches.note(replace(MATCH, match_id=f"{number}-{count}"))
        matches.look("shared", f"{number}-{count}")
    matches.close()


def test_processes_share_it(tmp_path: Path) -> None:
    """Four processes write at once: nothing is lost, and no two looks have the same number."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(str(tmp_path / "home"), number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    matches = SqliteMatches(Home(tmp_path / "home"))
    assert len(matches.newest(1000)) == 200
    assert matches.look("shared", "new") == 201
    matches.close()
