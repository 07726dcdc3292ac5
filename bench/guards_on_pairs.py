"""What guards, and a judge, change on real labelled question pairs: hit rate at equal true error.

python -m bench.guards_on_pairs FOLDER                  # the pairs and their embeddings; prints the tables of docs/benchmarks.md
python -m bench.guards_on_pairs FOLDER --judge MODEL    # what this model is worth as judge: it is asked (bench/judge_on_pairs.py)

The whole set is the truth here: the best threshold for a true error is looked up; beside it, what calibration finds with 95%
confidence. Without --judge the judge is SIMULATED: the label itself, said wrongly as often as stated, by a seeded chance that is
the same for easy and hard pairs. It is no model, and shows what a judge of that quality would change, not that there is one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.judge_on_pairs import Asking, measure
from bench.pair_hits import Flags, Scores, best, calibrated, shown
from nbllm.core.guards import check
from nbllm.core.semantic.lexical import embed
from nbllm.errors import NbllmError

ERRORS = (0.05, 0.10, 0.15, 0.20)
JUDGES = ((0.8, 0.8), (0.9, 0.9), (0.95, 0.95), (0.8, 0.95), (0.95, 0.8))
"""Sensitivity: of pairs with the same answer, the share to which it says yes. Specificity: of the others, that to which no."""
BANDS = (None, 0.95)
"""judge_below: the judge is asked below this similarity; None: always."""
JUDGED_ERRORS = (0.05, 0.10)
DRAWS = 50
"""Judges are simulated so often, and their numbers averaged."""


def main(argv: Sequence[str] | None = None) -> None:
    given = _arguments(argv)
    lines = (given.folder / "question_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = np.load(given.folder / "question_pairs_minilm.npz")
    minilm = (vectors["a"].astype(np.float32) * vectors["b"].astype(np.float32)).sum(axis=1)
    rows = [json.loads(line) for line in lines]
    if given.sample is not None and given.sample < len(rows):
        drawn = np.sort(np.random.default_rng(given.seed).permutation(len(rows))[: given.sample])
        rows, minilm = [rows[place] for place in drawn], minilm[drawn]
    same = np.array([row["same"] for row in rows])
    passed = np.array([all(one.passed for one in check(row["a"], row["b"])) for row in rows])
    if given.judge is not None:
        asking = Asking(given.judge, given.judge_url, given.at_once, given.log_odds, given.home)
        try:
            measure([(row["a"], row["b"]) for row in rows], minilm, same, passed, asking)
        except NbllmError as exc:
            raise SystemExit(f"The judge could not be measured: {exc}") from exc
        return
    lexical = np.array([embed(row["a"]) @ embed(row["b"]) for row in rows])
    _guards({"all-MiniLM-L6-v2": minilm, "built-in lexical": lexical}, same, passed)
    _judges(minilm, same, passed)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.guards_on_pairs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds question_pairs.jsonl ({a, b, same}) and question_pairs_minilm.npz (a, b)")
    parser.add_argument("--judge", metavar="MODEL", help="model id, as in semantic_cache.judge; with --judge-url its name there")
    parser.add_argument("--judge-url", metavar="URL", help="a server in OpenAI's shape, up to /v1, that the settings do not know")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many of the pairs, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that sample (0)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="questions under way at once (1)")
    parser.add_argument("--log-odds", action="store_true", help="also look at the log probabilities of YES and NO")
    parser.add_argument("--home", type=Path, help="keeps the answers, so that a second run asks for none (nbllm's own home)")
    return parser.parse_args(argv)


def _guards(scores: dict[str, Scores], same: Flags, passed: Flags) -> None:
    everything = np.ones(len(same), dtype=bool)
    print("| embedder | true error at most | hits without guards | with | calibrated at 95% without guards | with |")
    print("|---|---|---|---|---|---|")
    for name, score in scores.items():
        for most in ERRORS:
            plain, guarded = (best(score, same, kept, most)[0] for kept in (everything, passed))
            found = [shown(calibrated(score, same, kept, most)) for kept in (everything, passed)]
            print(f"| {name} | {most:.0%} | {plain:.1%} | {guarded:.1%} | {found[0]} | {found[1]} |")
    near = scores["all-MiniLM-L6-v2"] >= 0.9
    right, wrong = passed[same & near].mean(), passed[~same & near].mean()
    print(f"\nOf pairs with a cosine of at least 0.9, guards pass {right:.1%} of the true and {wrong:.1%} of the false ones.\n")


def _judges(score: Scores, same: Flags, passed: Flags) -> None:
    heads = "".join(f" at most {most:.0%} wrong: hits | judgements | calibrated at 95% |" for most in JUDGED_ERRORS)
    print(f"| SIMULATED judge: yes to same, no to others | asked |{heads}")
    print("|---|---|" + "---|---|---|" * len(JUDGED_ERRORS))
    alone = [f"{best(score, same, passed, m)[0]:.1%} | none | {shown(calibrated(score, same, passed, m))}" for m in JUDGED_ERRORS]
    print(f"| guards alone | | {' | '.join(alone)} |")
    for below in BANDS:
        for judge in JUDGES:
            cells = [_judge(score, same, passed, most, below, *judge) for most in JUDGED_ERRORS]
            when = "always" if below is None else f"below {below}"
            print(f"| {judge[0]:.0%}, {judge[1]:.0%} | {when} | {' | '.join(cells)} |")


def _judge(score: Scores, same: Flags, passed: Flags, most: float, below: float | None, *judge: float) -> str:
    """Return three cells: mean hits and judgements of many simulated judges, and what calibration finds, in how many of them."""
    hits, asked, plans = [], [], []
    upto = np.inf if below is None else below
    for seed in range(DRAWS):
        kept = passed & (judged(same, *judge, seed=seed) | (score >= upto))
        share, threshold = best(score, same, kept, most)
        hits.append(share)
        asked.append(np.mean(passed & (score >= threshold) & (score < upto)))
        plans.append(calibrated(score, same, kept, most))
    found = [plan for plan in plans if plan is not None]
    plan = f"{np.mean(found):.1%} in {len(found) / DRAWS:.0%}" if found else "refused"
    return f"{np.mean(hits):.1%} | {np.mean(asked):.0%} | {plan}"


def judged(same: Flags, sensitivity: float, specificity: float, *, seed: int) -> Flags:
    """Return what a simulated judge says of each pair: the label, wrong with the stated chances, each pair by itself."""
    draw = np.random.default_rng(seed).random(len(same))
    return np.where(same, draw < sensitivity, draw >= specificity)


if __name__ == "__main__":
    main()
