"""What holds for every store of matches and labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nbllm.core.ports.matches import Matches
from nbllm.storage.home import Home
from nbllm.storage.matches import SqliteMatches
from nbllm.storage.memory_matches import MemoryMatches
from tests.storage.met import LABEL, MATCH


@pytest.fixture(params=["sqlite", "memory"])
def matches(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Matches]:
    store: Matches = SqliteMatches(Home(tmp_path / "home")) if request.param == "sqlite" else MemoryMatches()
    yield store
    store.close()


def test_a_match_comes_back_as_it_was(matches: Matches) -> None:
    """Every field is kept, the model's answer too when it comes later."""
    matches.note(replace(MATCH, failed=("numbers: 7 here, 17 there",), got=None))
    matches.finish("m1", "Later.")
    assert matches.of_call("c1") == replace(MATCH, failed=("numbers: 7 here, 17 there",), got="Later.")
    assert matches.newest(5) == [replace(MATCH, failed=("numbers: 7 here, 17 there",), got="Later.")]
    assert matches.newest(5, kind="hit") == []
    assert matches.of_call("c2") is None


def test_what_is_offered_for_labelling(matches: Matches) -> None:
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


def test_a_later_label_takes_the_place_of_the_first(matches: Matches) -> None:
    """Who changes their mind counts once; a judge's label stands beside a person's."""
    matches.note(MATCH)
    matches.label(LABEL)
    matches.label(replace(LABEL, label_id="l2", correct=False, at=3000.0))
    matches.label(replace(LABEL, label_id="l3", origin="judge", at=4000.0))
    assert [(one.label_id, one.correct) for one in matches.labels()] == [("l2", False), ("l3", True)]
    assert matches.labels(origin="judge") == [replace(LABEL, label_id="l3", origin="judge", at=4000.0)]


def test_blocked_pairs_stay_blocked(matches: Matches) -> None:
    """In either direction, however spaced or cased, also after everything was forgotten."""
    assert not matches.blocked("a b", "c")
    matches.block("A  b", "c")
    matches.note(MATCH)
    matches.label(LABEL)
    assert matches.forget() == 2
    assert matches.blocked("c", "a B")
    assert not matches.blocked("c", "a")
    assert matches.newest(5) == matches.labels() == []


def test_looks_are_counted_for_good(matches: Matches) -> None:
    """Each new look at a store of labels has the next number; the same look again is the same; another store has its own."""
    assert [matches.look("a", data) for data in ("1", "2", "1", "3")] == [1, 2, 1, 3]
    assert matches.look("b", "1") == 1
    matches.forget()
    assert matches.look("a", "4") == 4


def test_a_plan_is_taken_back_once(matches: Matches) -> None:
    """The first reason stands, and only who gave it is told that it was the first."""
    assert matches.taken_back("p") is None
    assert matches.take_back("p", "wrong too often")
    assert not matches.take_back("p", "again")
    assert matches.taken_back("p") == "wrong too often"
