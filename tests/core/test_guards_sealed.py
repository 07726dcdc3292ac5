"""The promise of the guards, on pairs that were written without sight of them and kept sealed while they were tuned.

Only counts leave this file: whoever tunes the guards must not read sealed pairs, in a failing test's output either.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from nbllm.core.guards import check

PAIRS = Path(__file__).parents[1] / "data" / "guard_pairs"
MOST_FALSE_PASSES = 0.05
LEAST_PARAPHRASES = 0.8


@cache
def counts(name: str) -> tuple[Counter[str], Counter[str]]:
    """Return pairs of each kind, and those of them that all guards let pass (threshold 0: no score is looked at)."""
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for line in (PAIRS / name).read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        total[pair["kind"]] += 1
        passed[pair["kind"]] += all(verdict.passed for verdict in check(pair["a"], pair["b"]))
    return total, passed


KEPT = pytest.mark.parametrize("name", ["sealed.jsonl", "sealed-3.jsonl"])
"""The half that was sealed first, and a fourth set, of which nobody who works on the guards has read a pair."""


@KEPT
def test_the_sealed_pairs_are_whole(name: str) -> None:
    """The figures are about 150 pairs of each kind and 300 paraphrases; none was taken out."""
    assert counts(name)[0] == {"negation": 150, "numbers": 150, "names": 150, "opposites": 150, "paraphrase": 300}


@KEPT
def test_no_denial_passes(name: str) -> None:
    """No sealed pair passes of which one question denies what the other asks."""
    assert counts(name)[1]["negation"] == 0


@KEPT
def test_no_other_number_passes(name: str) -> None:
    """No sealed pair passes that differs in a number, a unit or a date."""
    assert counts(name)[1]["numbers"] == 0


@KEPT
@pytest.mark.parametrize("kind", ["names", "opposites"])
def test_few_other_names_and_opposites_pass(name: str, kind: str) -> None:
    """At most 5% of sealed pairs pass that name something else, or the opposite."""
    total, passed = counts(name)
    assert passed[kind] <= MOST_FALSE_PASSES * total[kind]


@KEPT
def test_paraphrases_pass(name: str) -> None:
    """At least 80% of sealed paraphrases pass: the guards do not refuse everything."""
    total, passed = counts(name)
    assert passed["paraphrase"] >= LEAST_PARAPHRASES * total["paraphrase"]


HARDER = {"negation": 1, "numbers": 0, "names": 4, "opposites": 5}
"""False passes of 75 each in the second sealed half, as docs/semantic-cache.md owns up to: more than is promised of the first."""


@pytest.mark.parametrize("kind", sorted(HARDER))
def test_the_harder_sealed_half_lets_no_more_pass_than_is_said(kind: str) -> None:
    """What the documentation owns up to is an upper bound: a change of the guards that lets more pass is seen."""
    total, passed = counts("sealed-2.jsonl")
    assert total[kind] == 75
    assert passed[kind] <= HARDER[kind]


def test_seven_in_ten_of_the_harder_paraphrases_pass() -> None:
    """And no fewer of the paraphrases pass than it says."""
    total, passed = counts("sealed-2.jsonl")
    assert (total["paraphrase"], passed["paraphrase"] >= 104) == (150, True)
