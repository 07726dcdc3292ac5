"""Hits at an equal true error on labelled pairs, and how sure they are: the arithmetic of guards_on_pairs and judge_on_pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nbllm.calibration import calibrate_threshold
from nbllm.calibration.binomial import lower_bound, upper_bound

Flags = NDArray[np.bool_]
Scores = NDArray[np.floating]
Interval = tuple[float, float]
RESAMPLES = 1_000


def best(score: Scores, same: Flags, kept: Flags, most: float) -> tuple[float, float]:
    """Return the largest share of all pairs that a threshold may serve with at most this true error, and the threshold."""
    order = np.argsort(-score[kept], kind="stable")
    error = np.cumsum(~same[kept][order]) / np.arange(1, kept.sum() + 1)
    fine = np.flatnonzero(error <= most)
    return (float(fine[-1] + 1) / len(score), float(score[kept][order[fine[-1]]])) if fine.size else (0.0, np.inf)


def spread(score: Scores, same: Flags, ways: Sequence[Flags], most: float, counts: NDArray[np.integer]) -> Scores:
    """Return what `best` serves on resampled pairs, (draws, ways). counts: how often each draw holds each pair, (draws, pairs).

    Every way sees the same draws, so that differences between columns are paired.
    """
    shares = np.empty((len(counts), len(ways)))
    for column, kept in enumerate(ways):
        places = np.flatnonzero(kept)
        order = places[np.argsort(-score[places], kind="stable")]
        hits = np.cumsum(counts[:, order], axis=1)
        wrong = np.cumsum(counts[:, order] * ~same[order], axis=1)
        served = np.where(wrong / np.maximum(hits, 1) <= most, hits, 0)
        shares[:, column] = served.max(axis=1, initial=0) / counts.sum(axis=1)
    return shares


def resampled(pairs: int, *, seed: int, draws: int = RESAMPLES) -> NDArray[np.integer]:
    """Return how often each of `pairs` is in each of the draws with replacement, (draws, pairs)."""
    return np.random.default_rng(seed).multinomial(pairs, np.full(pairs, 1 / pairs), size=draws)


def middle(values: Scores) -> Interval:
    """Return the middle 95% of resampled values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def rate(said: Flags) -> tuple[float, Interval]:
    """Return the share that is true with its 95% interval after Clopper and Pearson; (nan, (0, 1)) of nothing."""
    if not said.size:
        return float("nan"), (0.0, 1.0)
    k, n, level = np.array([np.count_nonzero(said)]), np.array([said.size]), np.array([0.025])
    return float(k[0] / n[0]), (float(lower_bound(k, n, level)[0]), float(upper_bound(k, n, level)[0]))


def ranked(score: Scores, same: Flags) -> float:
    """Return the chance that a same pair has the higher score than another one, ties counted as a half (AUC); nan without both."""
    if same.all() or not same.any():
        return float("nan")
    _, place, ties = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    true, false = int(same.sum()), int((~same).sum())
    return float((ranks[same].sum() - true * (true + 1) / 2) / (true * false))


def calibrated(score: Scores, same: Flags, kept: Flags, most: float) -> float | None:
    """Return the share of all pairs that a calibrated plan serves, None where it is refused."""
    if not kept.any():
        return None
    plan = calibrate_threshold(score[kept], same[kept], max_error=most)
    return None if plan.hit_rate is None else float(plan.hit_rate * kept.mean())


def shown(share: float | None) -> str:
    return "refused" if share is None else f"{share:.1%}"
