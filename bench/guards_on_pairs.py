"""What the guards change on real labelled question pairs: hit rate at equal true error, with and without them.

python -m bench.guards_on_pairs FOLDER      # the pairs and their embeddings; prints a table for docs/benchmarks.md

The whole set is the truth here: the best threshold for a true error is looked up, not calibrated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nbllm.calibration import calibrate_threshold
from nbllm.core.guards import check
from nbllm.core.semantic.lexical import embed

ERRORS = (0.05, 0.10, 0.15, 0.20)


def main(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "question_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    vectors = np.load(folder / "question_pairs_minilm.npz")
    same = np.array([row["same"] for row in rows])
    passed = np.array([all(one.passed for one in check(row["a"], row["b"])) for row in rows])
    scores = {
        "all-MiniLM-L6-v2": (vectors["a"].astype(np.float32) * vectors["b"].astype(np.float32)).sum(axis=1),
        "built-in lexical": np.array([embed(row["a"]) @ embed(row["b"]) for row in rows]),
    }
    everything = np.ones(len(rows), dtype=bool)
    print("| embedder | true error at most | hits without guards | with | calibrated at 95% without guards | with |")
    print("|---|---|---|---|---|---|")
    for name, score in scores.items():
        for most in ERRORS:
            plain, guarded = (_best(score, same, kept, most) for kept in (everything, passed))
            found = [_calibrated(score, same, kept, most) for kept in (everything, passed)]
            print(f"| {name} | {most:.0%} | {plain:.1%} | {guarded:.1%} | {found[0]} | {found[1]} |")
    near = scores["all-MiniLM-L6-v2"] >= 0.9
    right, wrong = passed[same & near].mean(), passed[~same & near].mean()
    print(f"\nOf pairs with a cosine of at least 0.9, guards pass {right:.1%} of the true and {wrong:.1%} of the false ones.")


def _best(score: NDArray[np.float32], same: NDArray[np.bool_], kept: NDArray[np.bool_], most: float) -> float:
    """Return the largest share of all pairs that a threshold may serve with at most this true error."""
    order = np.argsort(-score[kept])
    error = np.cumsum(~same[kept][order]) / np.arange(1, kept.sum() + 1)
    fine = np.flatnonzero(error <= most)
    return float(fine[-1] + 1) / len(score) if fine.size else 0.0


def _calibrated(score: NDArray[np.float32], same: NDArray[np.bool_], kept: NDArray[np.bool_], most: float) -> str:
    plan = calibrate_threshold(score[kept], same[kept], max_error=most)
    return "refused" if plan.hit_rate is None else f"{plan.hit_rate * kept.mean():.1%}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
