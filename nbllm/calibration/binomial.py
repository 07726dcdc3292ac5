"""Exact binomial tails and Clopper-Pearson bounds, for arrays, in numpy."""

from __future__ import annotations

import functools
import math

import numpy as np

from nbllm.calibration.checks import Counts, Floats

_ROWS, _TERMS = 2_048, 64
_NEGLIGIBLE = 1e-15
_STEPS, _CLOSE = 60, 1e-9
_BELOW_1 = 1 - 1e-15


@functools.lru_cache(maxsize=2)
def _log_factorials(up_to: int) -> Floats:
    return np.array([math.lgamma(i + 1.0) for i in range(up_to + 1)])


def log_factorials(n: int) -> Floats:
    """Return log(i!) for i = 0 ... at least n."""
    return _log_factorials(1 << max(10, int(n).bit_length()))


def lower_tail(k: Counts, n: Counts, p: Floats | float) -> Floats:
    """Return P(X <= k) for X ~ Binomial(n, p), element by element; shapes (m,), 0 <= k <= n, 0 < p < 1.

    Exact up to rounding where k < p * n, by adding up probabilities from k downwards until they no longer matter. Elsewhere the
    tail is at least about a half and 1 is returned: no test at a level below a half needs it.
    """
    return np.exp(_log_lower_tail(k, n, np.broadcast_to(np.asarray(p, dtype=np.float64), k.shape)))


def _log_lower_tail(k: Counts, n: Counts, p: Floats) -> Floats:
    """Return the logarithm of the lower tail, which is finite where the tail itself is too small for a float."""
    tail = np.zeros(k.shape)
    inside = np.flatnonzero((k < p * n) & (n > 0))
    if inside.size:
        logs = log_factorials(int(n[inside].max()))
        for begin in range(0, inside.size, _ROWS):
            rows = inside[begin : begin + _ROWS]
            tail[rows] = _log_sum(k[rows], n[rows], p[rows], logs)
    return np.minimum(tail, 0.0)


def _log_sum(k: Counts, n: Counts, p: Floats, logs: Floats) -> Floats:
    """Return log P(X = k) plus log(1 + P(X = k-1) / P(X = k) + ...), added up in blocks of terms."""
    total, last = np.ones(k.size), np.ones(k.size)
    odds = (1 - p) / p
    going = np.arange(k.size)
    done = 0
    while going.size:
        i = done + np.arange(_TERMS)
        left = np.maximum(k[going, None] - i, 0)
        terms = last[going, None] * np.cumprod(left / (n[going, None] - k[going, None] + 1 + i) * odds[going, None], axis=1)
        total[going] += terms.sum(axis=1)
        last[going] = terms[:, -1]
        # Ratios fall from term to term, so what is left is less than a geometric series of the last ratio.
        ratio = np.maximum(k[going] - done - _TERMS, 0) / (n[going] - k[going] + 1 + done + _TERMS) * odds[going]
        going = going[last[going] * ratio > _NEGLIGIBLE * total[going] * (1 - ratio)]
        done += _TERMS
    result: Floats = logs[n] - logs[k] - logs[n - k] + k * np.log(p) + (n - k) * np.log1p(-p) + np.log(total)
    return result


def upper_bound(k: Counts, n: Counts, level: Floats) -> Floats:
    """Return the one-sided Clopper-Pearson upper bound of an error rate after k errors among n, at levels (m,) below a half.

    The smallest p with P(Binomial(n, p) <= k) <= level (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934); 1 where n is 0 or
    all are errors. By Newton's method on the logarithm of the tail, which is concave in p: each step lands on or above the bound.
    """
    bound = np.ones(k.shape)
    known = np.flatnonzero((n > 0) & (k < n))
    if not known.size:
        return bound
    k, n, goal = k[known], n[known], np.log(level[known])
    logs = log_factorials(int(n.max()))
    log_ways = logs[n] - logs[k] - logs[n - k]
    p: Floats = (k + 1.0) / (n + 1.0)
    for _ in range(_STEPS):
        tail = _log_lower_tail(k, n, p)
        # d/dp P(X <= k) = -(n - k) * (n over k) * p^k * (1 - p)^(n - k - 1)
        slope = -np.exp(np.log(n - k) + log_ways + k * np.log(p) + (n - k - 1) * np.log1p(-p) - tail)
        step = (goal - tail) / slope
        p = np.minimum(np.where(p + step < 1, p + step, (p + 1) / 2), _BELOW_1)
        if np.all(np.abs(step) <= _CLOSE * np.minimum(p, 1 - p)):
            break
    bound[known] = np.where(p < _BELOW_1, p, 1.0)
    return bound


def lower_bound(k: Counts, n: Counts, level: Floats) -> Floats:
    """Return the one-sided Clopper-Pearson lower bound: the upper bound of the other outcome, turned round."""
    result: Floats = 1 - upper_bound(n - k, n, level)
    return result
