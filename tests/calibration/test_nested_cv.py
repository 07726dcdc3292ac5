"""Out-of-fold ranks: fair to a router that knows nothing, and with the variance that they hide."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.calibration.nested_cv import Problem, final_fit, folds_of, outer_folds, pair_variance, partition, ranks_of
from nbllm.calibration.ridge import Floats


def noise(rng: np.random.Generator, n: int, d: int) -> Problem:
    return Problem(rng.standard_normal((n, d)), rng.standard_normal((n, 1)), rng.standard_normal(n), np.ones(n))


@given(n=st.integers(20, 400))
def test_folds_are_even_and_hold_at_least_five(n: int) -> None:
    """At most ten folds, none smaller than five prompts or larger than another by more than one."""
    k = outer_folds(n)
    sizes = np.bincount(folds_of(n, k, np.random.default_rng(n)))
    assert len(sizes) == k <= 10
    assert sizes.min() >= 5
    assert np.ptp(sizes) <= 1


@settings(max_examples=50)
@given(seed=st.integers(0, 999), n=st.integers(20, 60), levels=st.integers(1, 60))
def test_ranks_fill_each_fold_and_ties_share_their_places(seed: int, n: int, levels: int) -> None:
    """In each fold the prompts' places fill 0 to 1 by their counts, the highest score first, and equal scores have one place."""
    rng = np.random.default_rng(seed)
    scores, counts = rng.integers(0, levels, n).astype(float), rng.integers(1, 4, n).astype(float)
    fold = folds_of(n, 2, rng)
    ranks = ranks_of(scores, fold, counts)
    for k in range(2):
        rows = fold == k
        middle = (ranks.begins + ranks.ends)[rows] / 2
        np.testing.assert_allclose(counts[rows] @ middle / counts[rows].sum(), 0.5, atol=1e-12)
        for one in np.flatnonzero(rows):
            equal = rows & (scores == scores[one])
            higher = rows & (scores > scores[one])
            np.testing.assert_allclose(ranks.begins[one], counts[higher].sum() / counts[rows].sum(), atol=1e-12)
            np.testing.assert_allclose(ranks.ends[one] - ranks.begins[one], counts[equal].sum() / counts[rows].sum(), atol=1e-12)


def area(problem: Problem, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the area over random choice, its usual variance, and what pairs add to it."""
    part = partition(problem, rng)
    rank = 1 - (part.ranks.begins + part.ranks.ends) / 2
    terms: Floats = (rank - 0.5) * problem.y
    added = pair_variance(part, rank[:, None], problem.y, problem.counts)
    return float(terms.mean()), float(terms.var() / len(terms)), float(added[0])


def test_a_router_of_noise_is_neither_flattered_nor_punished() -> None:
    """Where there is nothing to learn the area over random choice is 0 on average, and its spread needs the pairs' part.

    60 sets of 60 rows: the mean is within three standard errors of 0, and the pairs add a good part of the usual variance, which
    they never exceed. That the sum is what is observed takes more sets: tests/promises.
    """
    rng = np.random.default_rng(11)
    found = np.array([area(noise(rng, 60, 10), rng) for _ in range(60)])
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / np.sqrt(60)
    usual, added = found[:, 1].mean(), found[:, 2].mean()
    assert 0.2 * usual < added < usual
    assert (found[:, 2] <= found[:, 1] * 1.5).all()


def test_scores_of_left_out_prompts_are_those_of_fitting_without_them() -> None:
    """The closed form gives each prompt the slope of a line that was fitted on the others."""
    problem = noise(np.random.default_rng(3), 40, 6)
    final = final_fit(problem, np.random.default_rng(0))
    from nbllm.calibration.ridge import decompose, solve

    whole = decompose(problem.x, problem.features, problem.y, problem.counts)
    for out in (0, 17, 39):
        kept = np.arange(40) != out
        fit = decompose(problem.x[kept], problem.features[kept], problem.y[kept], problem.counts[kept])
        line = solve(fit, final.penalty * (whole.scale / fit.scale) ** 2)
        score = line(problem.x[[out]], problem.features[[out]])[0] - problem.y[kept].mean() + problem.y.mean()
        np.testing.assert_allclose(final.left_out[out], score, atol=1e-9)
