"""The promise of the guards, on pairs that were written without sight of them and kept sealed while they were tuned.

Only counts leave this file: whoever tunes the guards must not read sealed pairs, in a failing test's output either.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from nbllm.core.guards import check

SEALED = Path(__file__).parents[1] / "data" / "guard_pairs" / "sealed.jsonl"


def counts() -> tuple[Counter[str], Counter[str]]:
    """Return pairs of each kind, and those of them that all guards let pass (threshold 0: no score is looked at)."""
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for line in SEALED.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        total[pair["kind"]] += 1
        passed[pair["kind"]] += all(verdict.passed for verdict in check(pair["a"], pair["b"]))
    return total, passed


def test_sealed_pairs() -> None:
    """No sealed pair that differs in a denial or a number passes, at most 5% of names and opposites do, and 80% of paraphrases do."""
    total, passed = counts()
    said = ", ".join(f"{kind}: {passed[kind]} of {total[kind]} pass" for kind in sorted(total))
    assert {kind: total[kind] for kind in ("negation", "numbers", "names", "opposites")} == dict.fromkeys(
        ("negation", "numbers", "names", "opposites"), 150
    ), said
    assert total["paraphrase"] == 300, said
    assert passed["negation"] == passed["numbers"] == 0, said
    assert passed["names"] <= 0.05 * total["names"], said
    assert passed["opposites"] <= 0.05 * total["opposites"], said
    assert passed["paraphrase"] >= 0.8 * total["paraphrase"], said
