"""Worlds whose true error is known: a finite set of would-be hits, from which labels are drawn with replacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbllm.calibration import Curve

SIZE = 50_000


@dataclass(frozen=True)
class World:
    """All would-be hits there are, highest score first: scores (N,) and wrong (N,). The truth is what holds for all of them."""

    name: str
    scores: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    wrong_so_far: NDArray[np.int64]

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return n labels: scores and whether each would have been correct."""
        at = rng.integers(0, self.scores.size, n)
        return self.scores[at], ~self.wrong[at]

    def hits(self, threshold: float) -> int:
        """Return how many would-be hits have at least this score."""
        return int(np.searchsorted(-self.scores, -threshold, side="right"))

    def error(self, threshold: float) -> float:
        """Return the true error rate at a threshold; 0 without hits."""
        hits = self.hits(threshold)
        return float(self.wrong_so_far[hits - 1] / hits) if hits else 0.0

    def breaks(self, curve: Curve) -> bool:
        """Return whether the true error is above the bound at any point of a curve."""
        hits = np.searchsorted(-self.scores, -curve.threshold, side="right")
        errors = np.concatenate(([0], self.wrong_so_far))[hits]
        return bool(np.any(errors > curve.error_upper * hits))

    def best_hit_rate(self, max_error: float) -> float:
        """Return the greatest share of hits of a threshold whose true error is at most max_error."""
        ends = np.flatnonzero(np.concatenate((self.scores[1:] < self.scores[:-1], [True])))
        fits = ends[self.wrong_so_far[ends] <= max_error * (ends + 1)]
        return float((fits.max() + 1) / self.scores.size) if fits.size else 0.0


def world(name: str, scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> World:
    """Sort would-be hits into a world."""
    order = np.argsort(-scores, kind="stable")
    return World(name, scores[order], wrong[order], np.cumsum(wrong[order]))


def drawn(name: str, scores: NDArray[np.float64], error: NDArray[np.float64], rng: np.random.Generator) -> World:
    """Make a world of scores and the probability that each is wrong."""
    return world(name, scores, rng.random(scores.size) < error)


def worlds(max_error: float, seed: int = 11) -> tuple[World, ...]:
    """Return the simulated worlds for a max_error: sharp, blurred, tied and useless scores, and some that are made to mislead."""
    rng = np.random.default_rng(seed)
    s = rng.random(SIZE)
    sharp = 1 / (1 + np.exp(25 * (s - 0.5)))
    noisy = 0.05 + 0.90 * sharp  # 5% of labels are turned round
    blurred = 0.02 + 0.6 * (1 - s) ** 1.2
    rare = np.where(rng.random(SIZE) < 0.01, 1.0, 0.0)  # 1% of pairs are the same question, and most of these score high
    rare_score = np.where(rare > 0, rng.normal(0.85, 0.07, SIZE), rng.normal(0.5, 0.12, SIZE))
    # The error is lowest in the middle: the best scores are copies that are wrong, then it falls, then it rises.
    twisted = np.clip(np.where(s > 0.95, 3 * max_error, np.where(s > 0.6, 0.3 * max_error, 2.5 * max_error)), 0, 1)
    # Few values, and an error that goes up and down between them, just about the limit.
    few = np.round(s * 6) / 6
    steps = np.clip(max_error * np.array([0.2, 2.8, 0.3, 2.2, 0.6, 1.6, 1.9])[np.round(s * 6).astype(int)], 0, 1)
    return (
        drawn("sharp", s, sharp, rng),
        drawn("label noise 5%", s, noisy, rng),
        drawn("heavy overlap", s, blurred, rng),
        drawn("ties", np.round(s, 1), noisy, rng),
        drawn("two values", np.round(s), np.clip(blurred * max_error / 0.1, 0, 1), rng),
        drawn("useless", rng.random(SIZE), np.full(SIZE, max_error * 1.01), rng),
        drawn("1% base rate", rare_score, 1 - rare, rng),
        drawn("twisted", s, twisted, rng),
        drawn("steps", few, steps, rng),
    )
