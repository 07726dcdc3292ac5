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
_HALVINGS = 24
_VALUES = 256
"""Weights are counted by value; where there are more values, by so many classes of nearly equal ones."""


def log_mean_exp(logs: Floats) -> Floats:
    """Return log(mean(exp(logs))) over the first axis."""
    top = logs.max(axis=0)
    result: Floats = top + np.log(np.mean(np.exp(logs - top), axis=0))
    return result


class Wagers:
    """Bets on labels in the order of their scores, highest first: what they say of the first 1, 2, ... n of them.

    wrong, weights: (n,); no weight can exceed max_weight.
    """

    def __init__(self, wrong: Bools, weights: Floats, max_weight: float) -> None:
        self._wrong = wrong
        self._stake = weights / max_weight
        self._won, self._lost, self._which = _classes(self._stake)

    def log_e(self, rate: float) -> Floats:
        """Return log e-values against "the error rate is above `rate`" of the first 0, 1, ..., n labels, shape (n + 1,)."""
        logs = np.zeros((BETS.size, self._wrong.size + 1))
        gain = np.where(self._wrong, -self._stake, self._stake * (rate / (1 - rate)))
        for row, bet in zip(logs, BETS, strict=True):
            np.cumsum(np.log1p(bet * gain), out=row[1:])
        return log_mean_exp(logs)

    def upper(self, sizes: Counts, levels: Floats) -> Floats:
        """Return upper bounds of the error rates of the first sizes[i] labels at levels[i], (m,); 1 where none is known.

        The smallest rate that the test refuses at that level, rounded upwards; the e-value grows with the rate.
        """
        right_n, wrong_n = self._counted(sizes)
        goal = -np.log(levels)
        lost = np.log1p(-BETS[:, None] * self._lost) @ wrong_n.T
        low, high = np.zeros(sizes.size), np.ones(sizes.size)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            won = np.log1p(BETS[:, None, None] * ((middle / (1 - middle))[:, None] * self._won))
            refused = log_mean_exp(lost + np.einsum("bmu,mu->bm", won, right_n)) >= goal
            low, high = np.where(refused, low, middle), np.where(refused, middle, high)
        return high

    def growth(self, sizes: Counts, rate: float) -> Floats:
        """Return by how much the best bet's log e-value against `rate` grows a label, (m,); below 0: too many errors."""
        right_n, wrong_n = self._counted(sizes)
        won = np.log1p(BETS[:, None] * (rate / (1 - rate) * self._won)) @ right_n.T
        result: Floats = (won + np.log1p(-BETS[:, None] * self._lost) @ wrong_n.T).max(axis=0) / sizes
        return result

    def _counted(self, sizes: Counts) -> tuple[Floats, Floats]:
        """Return how many right and wrong labels of each class are among the first sizes[i], (m, classes) each."""
        right_n, wrong_n = np.zeros((sizes.size, self._won.size)), np.zeros((sizes.size, self._won.size))
        for i, size in enumerate(sizes):
            which, wrong = self._which[:size], self._wrong[:size]
            wrong_n[i] = np.bincount(which[wrong], minlength=self._won.size)
            right_n[i] = np.bincount(which, minlength=self._won.size) - wrong_n[i]
        return right_n, wrong_n


def _classes(stake: Floats) -> tuple[Floats, Floats, Counts]:
    """Return classes of stakes: what one counts where it wins and where it loses, (u,) each, and the class of each label, (n,).

    A class counts as its smallest where it wins and as its greatest where it loses, so that the e-value is never too great.
    """
    values, which = np.unique(stake, return_inverse=True)
    if values.size <= _VALUES:
        return values, values, which
    edges = np.geomspace(values[0], values[-1], _VALUES + 1)
    edges[0], edges[-1] = values[0], values[-1]
    which = np.clip(np.searchsorted(edges, stake, side="right") - 1, 0, _VALUES - 1)
    return edges[:-1], edges[1:], which
