"""Ridge regression with a few features that are not penalised, and its exact cross-validation. Pure numpy.

One eigendecomposition of the smaller Gram matrix (rows x rows where there are more columns than rows: the dual form) serves every
penalty. What a model fitted without a block F of rows would have missed on F has a closed form: with M the symmetric matrix that
turns y into residuals, the held-out residuals are solve(M[F, F], (M y)[F]). It follows from the inverse of a partitioned matrix, is
exact for a fixed penalty, and is the well-known r_i / (1 - h_ii) for a block of one row (T. Hastie, R. Tibshirani, J. Friedman, The
Elements of Statistical Learning, 2nd ed., section 7.10 and exercise 7.3).

A row may stand for several equal ones: `counts` weighs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = 1e-12
"""A share of the variance below which a column or a target counts as constant: what is left is rounding."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A weighted least-squares problem, decomposed once. n rows, p free features, k directions of the penalised ones.

    varied (p,): which free features are not constant here; q (n, p+1), r: QR of those with an intercept; through (p+1, d): their
    coefficients on each penalised column; x (n, d): the penalised columns with the free ones taken out, scaled so that a row's mean
    squared length is 1; u (n, k), s2 (k,): their left singular vectors and squared singular values; y, y_left (n,): the target,
    weighted, before and after the free features.
    """

    varied: NDArray[np.bool_]
    q: Floats
    r: Floats
    through: Floats
    x: Floats
    scale: float
    u: Floats
    s2: Floats
    y: Floats
    y_left: Floats


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted line: score = intercept + free @ features + penalised @ columns."""

    intercept: float
    free: Floats
    penalised: Floats

    def __call__(self, x: Floats, features: Floats) -> Floats:
        """Return the scores (n,) of penalised columns (n, d) and free features (n, p)."""
        scores: Floats = self.intercept + features @ self.free + x @ self.penalised
        return scores


def decompose(x: Floats, features: Floats, y: Floats, counts: Floats) -> Fit:
    """Prepare the fit of y (n,) on penalised columns x (n, d) and free features (n, p)."""
    root = np.sqrt(counts)[:, None]
    varied = np.ptp(features, axis=0) > TINY * np.max(np.abs(features), axis=0, initial=0.0)
    q, r = np.linalg.qr(np.column_stack((np.ones(len(y)), features[:, varied])) * root)
    weighted, target = x * root, y * root[:, 0]
    through = q.T @ weighted
    left = weighted - q @ through
    target_left = target - q @ (q.T @ target)
    if target_left @ target_left <= TINY * max(1.0, float(target @ target)):
        target_left = np.zeros_like(target_left)
    energy = float(np.sum(left**2))
    if energy <= TINY * float(np.sum(weighted**2)):
        return Fit(varied, q, r, through, left, 1.0, np.zeros((len(y), 0)), np.zeros(0), target, target_left)
    scale = float(np.sqrt(energy / counts.sum()))
    left /= scale
    u, s2 = _directions(left)
    return Fit(varied, q, r, through, left, scale, u, s2, target, target_left)


def _directions(x: Floats) -> tuple[Floats, Floats]:
    n, d = x.shape
    if n <= d:
        s2, u = np.linalg.eigh(x @ x.T)
    else:
        s2, v = np.linalg.eigh(x.T @ x)
    kept = s2 > TINY * s2[-1]
    s2 = s2[kept]
    return (u[:, kept] if n <= d else (x @ v[:, kept]) / np.sqrt(s2)), s2


def solve(fit: Fit, penalty: float) -> Line:
    """Return the line for one penalty; an infinite one uses the free features alone."""
    free, penalised, aligned = np.zeros(len(fit.varied)), np.zeros(fit.x.shape[1]), fit.q.T @ fit.y
    if aligned[1:] @ aligned[1:] <= TINY * (fit.y @ fit.y):
        aligned[1:] = 0.0  # a constant target has no slope, not even one of rounding errors
    if np.isfinite(penalty) and fit.s2.size and fit.y_left.any():
        penalised = fit.x.T @ (fit.u @ ((fit.u.T @ fit.y_left) / (fit.s2 + penalty))) / fit.scale
    line = np.linalg.solve(fit.r, aligned - fit.through @ penalised)
    free[fit.varied] = line[1:]
    return Line(float(line[0]), free, penalised)


def held_out_errors(fit: Fit, blocks: Sequence[Ints], penalties: Floats) -> Floats:
    """Return for each penalty the sum of squared errors on rows that were held out, block by block."""
    aligned = fit.u.T @ fit.y_left
    errors = np.zeros(len(penalties))
    for rows in blocks:
        u, y = fit.u[rows], fit.y_left[rows]
        free = np.eye(len(rows)) * (1 + 1e-9) - fit.q[rows] @ fit.q[rows].T
        for at, penalty in enumerate(penalties):
            shrunk = np.zeros_like(fit.s2) if np.isinf(penalty) else fit.s2 / (fit.s2 + penalty)
            missed = np.linalg.solve(free - (u * shrunk) @ u.T, y - u @ (shrunk * aligned))
            errors[at] += missed @ missed
    return errors


def smoother_basis(fit: Fit, penalty: float, x: Floats, features: Floats) -> Floats:
    """Return vectors phi (n, k) with: score(i) = constant + sum over the rows j of the fit of counts_j * phi_i . phi_j * y_j."""
    q = np.linalg.solve(fit.r.T, np.column_stack((np.ones(len(x)), features[:, fit.varied])).T).T.astype(np.float64, copy=False)
    if np.isinf(penalty) or not fit.s2.size:
        return q[:, 1:]
    left = (x - q @ fit.through) / fit.scale
    right = fit.u / np.sqrt(fit.s2 * (fit.s2 + penalty))
    dual = fit.x.shape[0] < fit.x.shape[1]
    z = (left @ fit.x.T) @ right if dual else left @ (fit.x.T @ right)
    return np.hstack((q[:, 1:], z))


def penalties_for(n: int) -> Floats:
    """Return the penalties to choose from for n rows: from nearly none to far above every eigenvalue, then infinite."""
    grid: Floats = np.append(np.geomspace(0.01, 10.0 * n, 13), np.inf)
    return grid
