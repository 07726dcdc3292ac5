"""What every threshold costs in wrong hits, with bounds that hold for all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nbllm.calibration.checks import Counts, Floats

POINTS = 60
_LEAST, _LEAST_SHARE = 20, 200
"""The strictest point has 20 hits, or a 200th of the labels where that is more: the level is spent where people look."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One threshold: would-be hits with score >= threshold.

    hits, errors: labels there, and wrong ones among them. hit_rate: hits over would-be hits (0 to 1); error_rate: wrong hits over
    hits; both weighted where labels are. error_upper: what the true error rate does not exceed.
    """

    threshold: float
    hits: int
    errors: int
    hit_rate: float
    error_rate: float
    error_upper: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Thresholds, strict to loose. All values of error_upper, and the plan's, hold at once with the plan's confidence.

    So a threshold may be picked from it after looking at it. Only its own points have bounds: `at` finds the one to use.
    """

    points: tuple[CurvePoint, ...]

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[CurvePoint]:
        return iter(self.points)

    def __getitem__(self, index: int) -> CurvePoint:
        return self.points[index]

    def at(self, threshold: float) -> CurvePoint | None:
        """Return the point with the smallest threshold that is at least this one; None where that is stricter than all."""
        return min((p for p in self.points if p.threshold >= threshold), key=lambda p: p.threshold, default=None)

    @property
    def threshold(self) -> Floats:
        """Thresholds (m,), falling."""
        return np.array([p.threshold for p in self.points])

    @property
    def hit_rate(self) -> Floats:
        """Hit rates (m,), rising."""
        return np.array([p.hit_rate for p in self.points])

    @property
    def error_rate(self) -> Floats:
        """Observed error rates (m,)."""
        return np.array([p.error_rate for p in self.points])

    @property
    def error_upper(self) -> Floats:
        """Upper bounds of the true error rates (m,)."""
        return np.array([p.error_upper for p in self.points])


def ranks_of(n: int) -> Counts:
    """Return up to POINTS ranks, the last label among them: half some percent apart from each other, half evenly spread.

    They depend on the number of labels only. The bound at each is exact given its threshold, because the labels above a label of
    fixed rank are independent draws from the scores above it; the level is split between them, which makes them hold at once
    (Bonferroni), also where they lie in one cell.
    """
    least = min(max(_LEAST, n // _LEAST_SHARE), n)
    ranks = np.concatenate((np.geomspace(least, n, POINTS // 2), np.linspace(least, n, POINTS // 2)))
    return np.unique(ranks.round().astype(np.int64))
