"""Tails and bounds beside sums that are done one by one."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration.binomial import lower_bound, lower_tail, upper_bound


def summed(k: int, n: int, p: float) -> float:
    """P(X <= k), added up exactly with fsum."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@given(st.integers(1, 300), st.integers(0, 300), st.floats(0.001, 0.999))
def test_tails_are_those_of_the_plain_sum(n: int, k: int, p: float) -> None:
    """Below the mean the tail is exact, above it is 1, which refuses every test at a level below a half."""
    k = min(k, n)
    tail = lower_tail(np.array([k]), np.array([n]), p)[0]
    if k < p * n:
        assert math.isclose(tail, summed(k, n, p), rel_tol=1e-6, abs_tol=1e-200)
    else:
        assert tail == 1.0


@given(st.integers(1, 400), st.integers(0, 400), st.one_of(st.floats(1e-9, 0.4), st.sampled_from([1e-7, 1e-12, 1e-30])))
def test_bounds_are_where_the_tail_is_the_level(n: int, k: int, level: float) -> None:
    """Clopper-Pearson: at the upper bound the tail is the level, never above it; a lower bound is an upper one turned round."""
    k = min(k, n)
    upper = upper_bound(np.array([k]), np.array([n]), np.array([level]))[0]
    lower = lower_bound(np.array([k]), np.array([n]), np.array([level]))[0]
    assert 0 <= lower <= k / n <= upper <= 1
    if k == n:
        assert upper == 1
    elif upper < 1 - 1e-9:  # nearer to 1 a float has no digits left
        assert math.isclose(summed(k, n, upper), level, rel_tol=1e-5)
    assert math.isclose(lower, 1 - upper_bound(np.array([n - k]), np.array([n]), np.array([level]))[0], abs_tol=1e-12)


def test_large_counts_are_fast_and_right() -> None:
    """A million draws: the tail three standard deviations below the mean is that of the normal distribution, nearly."""
    n, p = 1_000_000, 0.05
    k = int(n * p - 3 * math.sqrt(n * p * (1 - p)))
    assert math.isclose(lower_tail(np.array([k]), np.array([n]), p)[0], 0.00135, rel_tol=0.02)
