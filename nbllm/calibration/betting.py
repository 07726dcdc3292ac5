"""Tests and bounds for labels that count unequally: e-values by betting.

A label that was selected with probability p counts 1 / p. The error rate of a set of hits is then E[w * wrong] / E[w], and it is
above r exactly when E[w * (wrong - r)] > 0. Under that hypothesis 1 - b * w * (wrong - r) has an expectation below 1 for every
bet b > 0, so the product over independent labels is an e-value: the money of somebody who bets on fewer errors and, if the
hypothesis holds, has no more than he began with on average (I. Waudby-Smith and A. Ramdas, Estimating means of bounded random
variables by betting, JRSS B 86, 2024). A mean over several fixed bets is an e-value too, does not depend on the order of labels,
and loses at most the logarithm of their number. 1 / e is a p-value by Markov's inequality.
"""

from __future__ import annotations

import numpy as np

from nbllm.calibration.checks import Bools, Counts, Floats

BETS = np.array([0.01, 0.02, 0.04, 0.07, 0.11, 0.16, 0.22, 0.29, 0.37, 0.46, 0.55, 0.64, 0.73, 0.81, 0.88, 0.94])
"""Bets as parts of the most that can be bet without going broke on the heaviest label. The best one is about 1 - error / r."""
_HALVINGS = 18
_FEW = 4  # weights are counted by value where there are so many labels to a value


def log_mean_exp(logs: Floats) -> Floats:
    """Return log(mean(exp(logs))) over the first axis."""
    top = logs.max(axis=0)
    result: Floats = top + np.log(np.mean(np.exp(logs - top), axis=0))
    return result


def prefix_log_e(wrong: Bools, weights: Floats, rate: float, max_weight: float) -> Floats:
    """Return log e-values against "the error rate is above `rate`" of the first 0, 1, ..., n labels, shape (n + 1,)."""
    logs = np.zeros((BETS.size, wrong.size + 1))
    stake = weights / max_weight
    lost, won = np.where(wrong, stake, 0.0), np.where(wrong, 0.0, stake * (rate / (1 - rate)))
    for row, bet in zip(logs, BETS, strict=True):
        np.cumsum(np.log1p(bet * (won - lost)), out=row[1:])
    return log_mean_exp(logs)


def growth(wrong: Bools, weights: Floats, rate: float, max_weight: float) -> float:
    """Return by how much the best bet's log e-value against `rate` grows a label; negative where the error is too high."""
    stake, right_n, wrong_n = _counted(weights / max_weight, wrong)
    lost, won = np.log1p(-BETS[:, None] * stake), np.log1p(BETS[:, None] * stake * (rate / (1 - rate)))
    return float((lost @ wrong_n + won @ right_n).max() / wrong.size)


def upper_bounds(wrong: Bools, weights: Floats, sizes: Counts, levels: Floats, max_weight: float) -> Floats:
    """Return upper bounds of the error rate of the first sizes[i] labels at level levels[i], shape (m,); 1 where none is known.

    The smallest rate that the test above refuses at that level, rounded upwards; the e-value grows with the rate.
    """
    bounds = np.ones(sizes.size)
    for i, size in enumerate(sizes):
        stake, right_n, wrong_n = _counted(weights[:size] / max_weight, wrong[:size])
        lost = np.log1p(-BETS[:, None] * stake) @ wrong_n
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            log_e = log_mean_exp(lost + np.log1p(BETS[:, None] * stake * (middle / (1 - middle))) @ right_n)
            low, high = (low, middle) if log_e >= -np.log(levels[i]) else (middle, high)
        bounds[i] = high
    return bounds


def _counted(stake: Floats, wrong: Bools) -> tuple[Floats, Floats, Floats]:
    """Return stakes and how many right and wrong labels have each."""
    values, which = np.unique(stake, return_inverse=True)
    if values.size * _FEW > stake.size:
        return stake, (~wrong).astype(np.float64), wrong.astype(np.float64)
    wrong_n = np.bincount(which[wrong], minlength=values.size).astype(np.float64)
    return values, np.bincount(which, minlength=values.size) - wrong_n, wrong_n
