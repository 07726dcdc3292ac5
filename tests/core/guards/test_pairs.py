"""Guards alone (threshold 0) on pairs that others wrote: those to tune on, and real labelled questions."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nbllm.core.guards import check

ROOT = Path(__file__).parents[3]
PAIRS = ROOT / "tests" / "data" / "guard_pairs"
SHARED = Path(os.environ.get("NBLLM_SHARED_DATA", ROOT.parent / "shared" / "data"))
SURE_COSINE = 0.9


def passes(one: str, other: str) -> bool:
    return all(verdict.passed for verdict in check(one, other))


@pytest.mark.parametrize(("file", "most_denials", "most_numbers"), [("tune", 0, 0), ("tune-2", 2, 0), ("tune-3", 0, 0)])
def test_pairs_to_tune_on(file: str, most_denials: int, most_numbers: int) -> None:
    """At most 5% of pairs with other names or opposites pass, and at least 80% of paraphrases. No pair that differs in a number or
    a denial does; of the second set these few do.

    The lists were tuned on these pairs: the figures say that nothing got lost since. What holds for other pairs is in
    tests/core/test_guards_sealed.py.
    """
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for line in (PAIRS / f"{file}.jsonl").read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        total[pair["kind"]] += 1
        passed[pair["kind"]] += passes(pair["a"], pair["b"])
    assert passed["numbers"] <= most_numbers
    assert passed["negation"] <= most_denials
    assert passed["names"] <= 0.05 * total["names"]
    assert passed["opposites"] <= 0.05 * total["opposites"]
    assert passed["paraphrase"] >= 0.8 * total["paraphrase"]


def test_real_pairs() -> None:
    """Of real questions with a cosine of 0.9 and more that mean the same, at least 80% pass; of those that do not, fewer do."""
    if not (SHARED / "question_pairs.jsonl").exists():
        pytest.skip(f"no labelled questions in {SHARED}: set NBLLM_SHARED_DATA")
    lines = (SHARED / "question_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = np.load(SHARED / "question_pairs_minilm.npz")
    cosine = (vectors["a"].astype(np.float32) * vectors["b"].astype(np.float32)).sum(axis=1)
    near = [pair for pair, score in zip(map(json.loads, lines), cosine, strict=True) if score >= SURE_COSINE]
    share = {
        same: np.mean([passes(pair["a"], pair["b"]) for pair in near if pair["same"] is same], dtype=float)
        for same in (True, False)
    }
    assert share[True] >= 0.8
    assert share[False] <= 0.65
