"""Multinomial logistic regression with an L2 penalty, minimised by L-BFGS. Small on purpose: a few thousand rows, a few labels.

L-BFGS with the two-loop recursion and a backtracking line search, after J. Nocedal and S. Wright, Numerical Optimization (2nd ed.),
algorithms 7.4 and 3.1. The loss is convex, so there is one minimum and nothing depends on a start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MEMORY = 8
_STEPS = 200
_ENOUGH = 1e-5
"""Largest derivative at which it ends, in nats a row."""


def fit(x: Floats, codes: Ints, labels: int, penalty: float) -> Floats:
    """Return the weights, shape (labels, d + 1), the last column the intercept, which is not penalised.

    x: (n, d). codes: (n,), 0 to labels - 1. The mean log loss plus penalty / 2 x the squared weights is minimised.
    """
    rows = np.hstack([x, np.ones((len(x), 1))])
    wanted = np.eye(labels)[codes]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(labels, -1)
        scores = rows @ weights.T
        top = scores.max(axis=1, keepdims=True)
        logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        plain = weights[:, :-1]
        slope = (np.exp(logs) - wanted).T @ rows / len(rows)
        slope[:, :-1] += penalty * plain
        return float(-(logs * wanted).sum() / len(rows) + penalty / 2 * (plain**2).sum()), slope.ravel()

    return _minimised(loss, np.zeros(labels * rows.shape[1])).reshape(labels, -1)


def shares(weights: Floats, x: Floats) -> Floats:
    """Return each row's probability of each label, (n, labels)."""
    scores = x @ weights[:, :-1].T + weights[:, -1]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def _minimised(of: Callable[[Floats], tuple[float, Floats]], at: Floats) -> Floats:
    value, slope = of(at)
    known: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
    for _ in range(_STEPS):
        if np.abs(slope).max() < _ENOUGH:
            break
        way = _direction(slope, known)
        length, down = 1.0, float(slope @ way)
        while True:
            there = at + length * way
            reached, new_slope = of(there)
            if reached <= value + 1e-4 * length * down or length < 1e-10:
                break
            length /= 2
        step, change = there - at, new_slope - slope
        if step @ change > 1e-12:
            known.append((step, change))
        at, value, slope = there, reached, new_slope
    return at


def _direction(slope: Floats, known: deque[tuple[Floats, Floats]]) -> Floats:
    """Return the way down that the last steps suggest (the two-loop recursion)."""
    way = slope.copy()
    pulls = []
    for step, change in reversed(known):
        pull = (step @ way) / (step @ change)
        pulls.append(pull)
        way -= pull * change
    if known:
        step, change = known[-1]
        way *= (step @ change) / (change @ change)
    for (step, change), pull in zip(known, reversed(pulls), strict=True):
        way += (pull - (change @ way) / (step @ change)) * step
    return -way
