"""The regression under a route: exact where it says so."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration.compress import EXACT, KEPT, compress
from nbllm.calibration.ridge import Floats, decompose, held_out_errors, penalties_for, smoother_basis, solve

SEEDS = st.integers(0, 10_000)


def made(seed: int, n: int, d: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, 1)), rng.standard_normal(n)


def by_hand(x: Floats, features: Floats, y: Floats, penalty: float) -> Floats:
    """Return the coefficients (1 + p + d) from the normal equations, intercept and free features unpenalised."""
    design = np.column_stack((np.ones(len(y)), features, x))
    free = 1 + features.shape[1]
    ridge = np.diag(np.concatenate((np.zeros(free), np.full(x.shape[1], penalty))))
    return np.linalg.solve(design.T @ design + ridge, design.T @ y)


@given(seed=SEEDS, n=st.integers(8, 30), d=st.integers(1, 60), penalty=st.floats(0.05, 100))
def test_the_line_is_that_of_the_normal_equations(seed: int, n: int, d: int, penalty: float) -> None:
    """With fewer columns than rows and with more, the fitted line minimises squared error plus penalty on the embedding alone."""
    x, features, y = made(seed, n, d)
    fit = decompose(x, features, y, np.ones(n))
    line = solve(fit, penalty)
    wanted = by_hand(x, features, y, penalty * fit.scale**2)
    np.testing.assert_allclose([line.intercept, *line.free, *line.penalised], wanted, atol=1e-6)


@given(seed=SEEDS, n=st.integers(12, 30), d=st.integers(1, 60), penalty=st.floats(0.1, 100), held=st.integers(1, 5))
def test_held_out_errors_are_those_of_fitting_again(seed: int, n: int, d: int, penalty: float, held: int) -> None:
    """The closed form gives the error of a model that was really fitted without the block."""
    x, features, y = made(seed, n, d)
    fit = decompose(x, features, y, np.ones(n))
    out = np.arange(held)
    coefficients = by_hand(x[held:], features[held:], y[held:], penalty * fit.scale**2)
    missed = y[:held] - np.column_stack((np.ones(held), features[:held], x[:held])) @ coefficients
    found = held_out_errors(fit, [out], np.array([penalty]))
    np.testing.assert_allclose(found, [missed @ missed], rtol=1e-5, atol=1e-8)


@given(seed=SEEDS, d=st.integers(1, 40), penalty=st.floats(0.1, 100))
def test_counts_are_repeated_rows(seed: int, d: int, penalty: float) -> None:
    """A row that counts three times is the same as three equal rows."""
    x, features, y = made(seed, 15, d)
    counts = np.random.default_rng(seed).integers(1, 4, 15)
    weighted = decompose(x, features, y, counts.astype(float))
    repeated = decompose(*(np.repeat(one, counts, axis=0) for one in (x, features, y)), np.ones(counts.sum()))
    ours, theirs = solve(weighted, penalty), solve(repeated, penalty)
    np.testing.assert_allclose(ours.penalised, theirs.penalised, atol=1e-7)
    np.testing.assert_allclose([ours.intercept, *ours.free], [theirs.intercept, *theirs.free], atol=1e-7)


@given(seed=SEEDS, d=st.integers(1, 40), penalty=st.floats(0.1, 100))
def test_the_smoother_says_what_each_row_contributes(seed: int, d: int, penalty: float) -> None:
    """Scores of new rows are a constant plus the smoother times the training targets."""
    x, features, y = made(seed, 20, d)
    fit = decompose(x[:14], features[:14], y[:14], np.ones(14))
    basis = smoother_basis(fit, penalty, x, features)
    left = solve(fit, penalty)(x[14:], features[14:]) - basis[14:] @ basis[:14].T @ y[:14]
    np.testing.assert_allclose(left, left[0], atol=1e-7)


def test_nothing_to_learn_gives_a_flat_line() -> None:
    """Constant targets, equal embeddings and equal lengths each give no slope, not one made of rounding errors."""
    x, features, y = made(0, 30, 40)
    flat = solve(decompose(x, features, np.full(30, 0.1), np.ones(30)), 1.0)
    assert not flat.penalised.any()
    assert not flat.free.any()
    equal = solve(decompose(np.tile(x[:1], (30, 1)), np.full((30, 1), 3.7), y, np.ones(30)), 1.0)
    assert np.ptp(equal(np.tile(x[:1], (30, 1)), np.full((30, 1), 3.7))) < 1e-12
    zeros = solve(decompose(np.zeros((30, 4)), features, y, np.ones(30)), 1.0)
    assert not zeros.penalised.any()


def test_the_penalties_reach_from_almost_none_to_length_alone() -> None:
    """The grid ends with an infinite penalty, which is the length alone, and covers the size of every problem."""
    grid = penalties_for(500)
    assert grid[0] < 0.1
    assert grid[-2] > 500
    assert np.isinf(grid[-1])


def test_wide_embeddings_of_few_rows_lose_nothing() -> None:
    """With more columns than rows the span of the rows is kept: every distance is what it was."""
    x = np.random.default_rng(0).standard_normal((50, 1500))
    narrow, directions = compress(x, np.random.default_rng(0))
    assert directions is not None
    assert narrow.shape[1] < 50
    np.testing.assert_allclose(narrow, (x - x.mean(axis=0)) @ directions, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(x[:1] - x, axis=1), np.linalg.norm(narrow[:1] - narrow, axis=1), rtol=1e-9)


def test_many_wide_embeddings_keep_the_directions_with_the_most_variance() -> None:
    """Beyond that the leading directions are kept, nearly all of the variance where it lies in few of them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EXACT + 40, 60)) @ rng.standard_normal((60, EXACT + 32)) + 0.01 * rng.standard_normal(
        (EXACT + 40, EXACT + 32)
    )
    narrow, directions = compress(x, rng)
    assert narrow.shape[1] == KEPT
    assert directions is not None
    np.testing.assert_allclose(directions.T @ directions, np.eye(KEPT), atol=1e-9)
    assert narrow.var(axis=0).sum() > 0.999 * x.var(axis=0).sum()
