"""Scores of rows that the scoring model has not seen, by nested cross-validation.

The outer folds give out-of-fold scores; inside each, an inner cross-validation on its training rows alone chooses the penalty (S.
Varma and R. Simon, BMC Bioinformatics 7:91, 2006: choosing and judging on the same folds flatters). Rows are compared within their
fold only, as ranks: scores of different models are on different scales, and pooling them biases what is measured against a router
that knows nothing (G. Forman and M. Scholz, SIGKDD Explorations 12(1), 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbllm.calibration.ridge import (
    Fit,
    Floats,
    Ints,
    Line,
    decompose,
    held_out_errors,
    penalties_for,
    smoother_basis,
    solve,
)

PAIRS = 2_000
"""Prompts among which pairs are looked at for the variance; beyond that a random subset, scaled up."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is regressed, one row a prompt: columns x (U, d), free features (U, p), mean gain y (U,), counts (U,)."""

    x: Floats
    features: Floats
    y: Floats
    counts: Floats


@dataclass(frozen=True, slots=True)
class Ranks:
    """From which share of strong calls on a prompt is sent to the strong model, within its fold (U,).

    Between `begins` and `ends` it is sent with a probability that grows evenly: prompts of equal score share their places.
    """

    begins: Floats
    ends: Floats


@dataclass(frozen=True, slots=True)
class Partition:
    """One outer cross-validation: ranks by the router and by length alone. fold, standard (U,), pairs: for pair_variance."""

    ranks: Ranks
    length_ranks: Ranks
    fold: Ints
    standard: Floats
    pairs: Floats


@dataclass(frozen=True, slots=True)
class Final:
    """The line fitted on everything, its penalty, and the scores that it gives to each prompt when that one is left out (U,)."""

    line: Line
    penalty: float
    left_out: Floats


def folds_of(n: int, k: int, rng: np.random.Generator) -> Ints:
    """Return a random fold 0 to k-1 for each of n, all of nearly equal size."""
    folds = np.empty(n, dtype=np.int64)
    folds[rng.permutation(n)] = np.arange(n) % k
    return folds


def outer_folds(units: int) -> int:
    """Return how many outer folds: ten, fewer where a fold would have less than five prompts."""
    return max(2, min(10, units // 5))


def repeats_for(units: int) -> int:
    """Return over how many random partitions is averaged: fewer rows depend more on the cut."""
    return 5 if units <= 250 else 3 if units <= 1_000 else 2 if units <= 3_000 else 1


def choose_penalty(fit: Fit, rng: np.random.Generator, times: int = 1) -> float:
    """Return the penalty with the least squared error on inner folds of the fit's own rows."""
    n = len(fit.y)
    penalties = penalties_for(n)
    k = max(min(5, n), -(-n // 100))
    errors = np.zeros(len(penalties))
    for _ in range(times):
        folds = folds_of(n, k, rng)
        errors += held_out_errors(fit, [np.flatnonzero(folds == fold) for fold in range(k)], penalties)
    return float(penalties[int(np.argmin(errors))])


def final_fit(problem: Problem, rng: np.random.Generator) -> Final:
    """Fit everything, with the penalty of three inner cross-validations.

    A prompt's score when it is left out has a closed form (see ridge) and is spread as the scores of new prompts are; scores of the
    rows that a model was trained on are further apart. The intercept is that of all: one row's part in it says nothing about it.
    """
    fit = decompose(problem.x, problem.features, problem.y, problem.counts)
    penalty = choose_penalty(fit, rng, times=3)
    line = solve(fit, penalty)
    shrunk = np.zeros_like(fit.s2) if np.isinf(penalty) else fit.s2 / (fit.s2 + penalty)
    leverage = np.sum(fit.q**2, axis=1) + fit.u**2 @ shrunk
    missed = (problem.y - line(problem.x, problem.features)) / np.maximum(1 - leverage, 1e-6)
    total = problem.counts.sum()
    mean = float(problem.counts @ problem.y) / total
    others = (mean * total - problem.counts * problem.y) / (total - problem.counts)
    return Final(line, penalty, problem.y - missed + mean - others)


def partition(problem: Problem, rng: np.random.Generator) -> Partition:
    """Cut the prompts into outer folds once and score each fold by models that have not seen it."""
    units = len(problem.y)
    fold = folds_of(units, outer_folds(units), rng)
    scores, length = np.empty(units), np.empty(units)
    sample = np.sort(rng.permutation(units)[:PAIRS])
    smoother = np.zeros((len(sample), len(sample)))
    for k in range(int(fold.max()) + 1):
        out, kept = fold == k, fold != k
        fit = decompose(problem.x[kept], problem.features[kept], problem.y[kept], problem.counts[kept])
        penalty = choose_penalty(fit, rng)
        x, features = problem.x[out], problem.features[out]
        scores[out] = solve(fit, penalty)(x, features)
        length[out] = solve(fit, np.inf)(x, features)
        here = fold[sample] == k
        basis = smoother_basis(fit, penalty, problem.x[sample], problem.features[sample])
        smoother[np.ix_(here, ~here)] = basis[here] @ basis[~here].T
    return Partition(
        ranks=ranks_of(scores, fold, problem.counts),
        length_ranks=ranks_of(length, fold, problem.counts),
        fold=fold,
        standard=_slopes(scores, fold),
        pairs=_pairs(smoother, sample, fold, problem),
    )


def ranks_of(scores: Floats, fold: Ints, counts: Floats) -> Ranks:
    """Return the ranks of scores within their folds, from the highest down."""
    begins, ends = np.empty(len(scores)), np.empty(len(scores))
    for k in range(int(fold.max()) + 1):
        rows = np.flatnonzero(fold == k)
        levels, level = np.unique(-_rounded(scores[rows]), return_inverse=True)
        weights = np.bincount(level, weights=counts[rows], minlength=len(levels))
        until = np.cumsum(weights) / weights.sum()
        begins[rows] = np.concatenate(([0.0], until[:-1]))[level]
        ends[rows] = until[level]
    return Ranks(begins, ends)


def _rounded(scores: Floats) -> Floats:
    """Take rounding errors off the scores, so that what is equal on paper ties."""
    size = float(np.max(np.abs(scores), initial=0.0))
    if size == 0.0:
        return scores
    rounded: Floats = np.round(scores / size, 10)
    return rounded


def _slopes(scores: Floats, fold: Ints) -> Floats:
    """Return (score - fold's mean) / fold's sum of squares: its product with any function of the ranks is that one's slope."""
    slopes = np.zeros(len(scores))
    for k in range(int(fold.max()) + 1):
        rows = fold == k
        left = scores[rows] - scores[rows].mean()
        size = float(left @ left)
        if size > 0:
            slopes[rows] = left / size
    return slopes


def _pairs(smoother: Floats, sample: Ints, fold: Ints, problem: Problem) -> Floats:
    """Return the matrix (folds, folds) of what pairs of rows in two folds add to the variance, before the slopes."""
    total = problem.counts.sum()
    centred = problem.y - float(problem.counts @ problem.y) / total
    weight = (problem.counts * centred)[sample] ** 2
    products = smoother * smoother.T * weight[:, None] * weight[None, :]
    member = np.equal.outer(np.arange(int(fold.max()) + 1), fold[sample]).astype(np.float64)
    found: Floats = member @ products @ member.T * (len(fold) / len(sample)) ** 2 / total**2
    return found


def pair_variance(part: Partition, sent: Floats, gain: Floats, counts: Floats) -> Floats:
    """Return the variance (t,) that the usual standard error misses of mean(gain * sent), sent (U, t) by the out-of-fold ranks.

    gain (U,): summed over the rows of each prompt, counts of them.

    Row i is scored by a model that row j trained, and row j by one that row i trained, and both by the same product of their
    noise: out-of-fold means are U-statistics of degree two (W. Hoeffding, Annals of Mathematical Statistics 19, 1948), and treating
    the scores as fixed counts each such pair's variance once where it counts twice. With c_ij what training row j adds to row i's
    term, to first order slope * gain_i * H_ij * gain_j with H the out-of-fold smoother, the missing part is the sum of c_ij c_ji.
    It is at most what is counted already; where scores hardly differ the first order alone would say more.
    """
    slopes = np.zeros((len(part.pairs), sent.shape[1]))
    for k in range(len(part.pairs)):
        rows = part.fold == k
        slopes[k] = part.standard[rows] @ sent[rows]
    missing = np.maximum(np.einsum("kt,kl,lt->t", slopes, part.pairs, slopes), 0.0)
    shares = counts @ sent / counts.sum()
    usual: Floats = np.square(gain) @ np.square(sent - shares) / counts.sum() ** 2
    hidden: Floats = np.minimum(missing, usual)
    return hidden
