"""python -m tests.promises.tables: measures what calibrated thresholds are worth and writes it into docs/calibration.md."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nbllm.calibration import calibrate_threshold, level_of_look
from nbllm.calibration.binomial import lower_tail
from nbllm.calibration.looks import threshold_level
from nbllm.calibration.reasons import hits_needed, percent
from nbllm.calibration.sequences import loosest_rejected, share_of, starts_of
from tests.calibration.worlds import World, drawn, worlds
from tests.promises.pairs import question_pairs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"
LIMITS = (0.01, 0.05, 0.1, 0.2)
SHOWN = ("sharp", "label noise 5%", "heavy overlap", "ties", "1% base rate")
LEVEL = 0.05


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def needed() -> str:
    """How many hits it takes, by the error that they have."""
    level = share_of(threshold_level(level_of_look(0.95, 1)))
    rows = []
    for limit in LIMITS:
        counts = hits_needed(limit * np.array([0, 0.25, 0.5, 0.75]), limit, level)
        rows.append([percent(limit), *(f"{float(f'{count:.2g}'):,.0f}" for count in counts)])
    return table(("at most", "none wrong", "a quarter of it", "half of it", "three quarters of it"), rows)


def worth(draws: int, chosen: Callable[[float], Iterable[World]]) -> str:
    """How often a plan is found, what it serves and what is wrong with it, beside the best threshold that there is."""
    rows = []
    for limit in LIMITS:
        for truth in chosen(limit):
            for n in (500, 2_000):
                rng = np.random.default_rng(1)
                plans = [calibrate_threshold(*truth.draw(n, rng), max_error=limit) for _ in range(draws)]
                found = [plan.threshold for plan in plans if plan.threshold is not None]
                errors, hits = [truth.error(t) for t in found], [truth.hits(t) / truth.scores.size for t in found]
                seen = [f"{np.mean(hits):.1%}", f"{np.mean(errors):.1%}"] if found else ["", ""]
                wrong = f"{sum(error > limit for error in errors) / draws:.1%}"
                row = [truth.name, percent(limit), f"{n:,}", f"{len(found) / draws:.1%}", *seen, wrong]
                rows.append([*row, f"{truth.best_hit_rate(limit):.1%}"])
    heads = ("labels from", "at most", "labels", "plans found", "hits", "of these wrong", "promise broken", "best there is")
    return table(heads, rows)


Counts = NDArray[np.int64]
Rule = Callable[[Counts, Counts, float], int | None]


def _sequences(ranks: NDArray[np.int64], levels: NDArray[np.float64], errors: Counts, hits: Counts, limit: float) -> int | None:
    return loosest_rejected(lower_tail(errors, hits, limit), np.minimum(ranks, errors.size) - 1, levels)


def ours(errors: Counts, hits: Counts, limit: float) -> int | None:
    """Sequences from several starts that go on together."""
    ranks, levels = starts_of(hits.size, limit, LEVEL / (1 + LEVEL))
    return _sequences(ranks, levels, errors, hits, limit)


def apart(errors: Counts, hits: Counts, limit: float) -> int | None:
    """Sequences from 6, 15, 30 and 50 over the limit, each by itself."""
    ranks = [math.ceil(scale / limit) + 1 for scale in (6, 15, 30, 50)]
    ranks = [rank for rank in ranks if rank < hits.size] or [hits.size]
    p_values, found = lower_tail(errors, hits, limit), []
    for rank in ranks:
        failed = np.flatnonzero(p_values[rank - 1 :] > LEVEL / len(ranks))
        end = rank - 1 + int(failed[0]) if failed.size else hits.size
        found += [end - 1] if end >= rank else []
    return max(found, default=None)


def strictest(errors: Counts, hits: Counts, limit: float) -> int | None:
    """One sequence from the first rank at which it can pass."""
    first = math.ceil(math.log(LEVEL) / math.log1p(-limit)) + 1
    return _sequences(np.array([first]), np.array([LEVEL]), errors, hits, limit)


def grid(errors: Counts, hits: Counts, limit: float) -> int | None:
    """Bonferroni over 100 ranks."""
    ranks = np.unique(np.linspace(1, hits.size, 100).astype(np.int64)) - 1
    passed = ranks[lower_tail(errors[ranks], hits[ranks], limit) <= LEVEL / ranks.size]
    return int(passed.max()) if passed.size else None


RULES: dict[str, Rule] = {
    "starts that go on together (this)": ours,
    "the same level, starts 6, 15, 30, 50 apart": apart,
    "Bonferroni over 100 thresholds": grid,
    "one sequence from the strictest threshold": strictest,
}


def rules(draws: int) -> str:
    """What share of the hits there are each rule finds, all at the same level, on average."""
    scored = _found(draws, lambda limit: [w for w in worlds(limit) if w.name in SHOWN[:3] and w.best_hit_rate(limit)])
    blind = _found(draws, lambda limit: [_blind(limit)])
    rows = [(name, f"{np.mean(found):.1%}", f"{np.mean(blind[name]):.1%}") for name, found in scored.items()]
    return table(("rule", "sharp, noisy, blurred", "score says nothing, half the error"), rows)


def _blind(limit: float) -> World:
    rng = np.random.default_rng(5)
    return drawn("blind", rng.random(50_000), np.full(50_000, limit / 2), rng)


def _found(draws: int, chosen: Callable[[float], Iterable[World]]) -> dict[str, list[float]]:
    """Return by rule what share of the hits of the best threshold each draw's threshold has."""
    sums: dict[str, list[float]] = {name: [] for name in (*RULES, "half to choose, half to test")}
    for limit, n in itertools.product(LIMITS[1:], (500, 2_000)):
        for truth in chosen(limit):
            rng = np.random.default_rng(2)
            best = truth.best_hit_rate(limit) * truth.scores.size
            for _ in range(draws):
                scores, correct = truth.draw(n, rng)
                order = np.argsort(-scores, kind="stable")
                ranked, wrong = scores[order], ~correct[order]
                errors, hits = np.concatenate(([0], np.cumsum(wrong)))[:n], np.arange(n)
                for name, rule in RULES.items():
                    found = rule(errors, hits, limit)
                    sums[name].append(0.0 if found is None else truth.hits(np.nextafter(ranked[found], 2.0)) / best)
                cut = _halves(scores, correct, limit, rng)
                sums["half to choose, half to test"].append(0.0 if cut is None else truth.hits(cut) / best)
    return sums


def _halves(scores: NDArray[np.float64], correct: NDArray[np.bool_], limit: float, rng: np.random.Generator) -> float | None:
    """Choose on one half the loosest threshold that would pass there, and test that one alone on the other half."""
    mine = rng.permutation(scores.size)
    one, other = mine[: scores.size // 2], mine[scores.size // 2 :]
    order = one[np.argsort(-scores[one])]
    errors, hits = np.cumsum(~correct[order]), np.arange(1, order.size + 1)
    passed = np.flatnonzero(lower_tail(errors, hits, limit) <= LEVEL)
    if not passed.size:
        return None
    cut = float(scores[order[passed.max()]])
    served = scores[other] >= cut
    p = lower_tail(np.array([np.count_nonzero(served & ~correct[other])]), np.array([np.count_nonzero(served)]), limit)[0]
    return cut if p <= LEVEL else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.promises.tables")
    parser.add_argument("--draws", type=int, default=1_000)
    draws = parser.parse_args().draws
    parts = {
        "needed": needed(),
        "worlds": worth(draws, lambda limit: [w for w in worlds(limit) if w.name in SHOWN]),
        "pairs": worth(draws, lambda _: [question_pairs()]),
        "rules": rules(max(50, draws // 5)),
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, text in parts.items():
        head, _, rest = page.partition(f"<!-- {name} -->")
        page = f"{head}<!-- {name} -->\n{text}\n<!-- /{name} -->{rest.partition(f'<!-- /{name} -->')[2]}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except pytest.skip.Exception as skipped:
        raise SystemExit(str(skipped)) from None
