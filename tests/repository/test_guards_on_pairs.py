"""The arithmetic behind the tables of guards and judge in docs/benchmarks.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.guards_on_pairs import JUDGES, judged
from bench.pair_hits import best

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize(("sensitivity", "specificity"), JUDGES)
def test_a_simulated_judge_is_wrong_as_often_as_stated(sensitivity: float, specificity: float) -> None:
    """It says yes to that share of same pairs and no to that share of others, the same with the same seed, others with another."""
    same = np.arange(100_000) % 3 == 0
    said = judged(same, sensitivity, specificity, seed=1)
    assert said[same].mean() == pytest.approx(sensitivity, abs=0.01)
    assert 1 - said[~same].mean() == pytest.approx(specificity, abs=0.01)
    assert (said == judged(same, sensitivity, specificity, seed=1)).all()
    assert (said != judged(same, sensitivity, specificity, seed=2)).any()


@given(pairs=PAIRS, most=st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_the_best_threshold_is_the_best_of_all_cuts(pairs: list[tuple[int, bool, bool]], most: float) -> None:
    """Held against every cut of the ordered pairs: none serves more with so small an error; what a judge stops is not served."""
    score, same, kept = (np.array(column) for column in zip(*pairs, strict=True))
    score = score.astype(float)
    order = [place for place in np.argsort(-score, kind="stable") if kept[place]]
    cuts = [n for n in range(1, len(order) + 1) if sum(not same[place] for place in order[:n]) / n <= most]
    share, threshold = best(score, same, kept, most)
    assert share == pytest.approx(max(cuts, default=0) / len(pairs))
    assert threshold == (score[order[max(cuts) - 1]] if cuts else np.inf)


def test_a_perfect_judge_serves_all_that_is_the_same() -> None:
    """Never wrong: at no error allowed, every pair with the same answer is a hit, whatever its similarity."""
    rng = np.random.default_rng(0)
    score, same = rng.random(500), rng.random(500) < 0.4
    share, _ = best(score, same, judged(same, 1.0, 1.0, seed=3), 0.0)
    assert share == pytest.approx(same.mean())
