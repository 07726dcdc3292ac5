"""Intervals of what a route does: for the prompts that it was calibrated for, and for m new ones.

What is measured is a mean over prompts, or a ratio of two such means. Both intervals resample whole prompts with their rows (B.
Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993; equal prompts together, as clusters), with two corrections without
which they would be too narrow:

- four made-up prompts join the resampled ones, one for each pairing of a worst and a best answer, sent or not by a coin: what 20
  rows have never shown can still happen. For a single proportion this is the "plus four" rule (A. Agresti and B. Coull, The
  American Statistician 52, 1998).
- the variance that out-of-fold scores hide from a bootstrap that takes them as fixed is added to each draw
  (nested_cv.pair_variance).

A prediction for m new requests resamples twice: what the calibration set could have been, and from that m requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbllm.calibration.ridge import Floats, Ints

DRAWS = 2_000
MOST_UNITS = 2_000
"""Units that are resampled one by one; more are first merged at random into so many, which leaves the variance as it is."""
PSEUDO = 4
_MANY = 4
"""Up to so many times the pool, a batch is drawn one by one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with a 95% interval; a bound that the data cannot give is infinite. `0.5 in estimate` asks the interval."""

    value: float
    low: float
    high: float

    def __float__(self) -> float:
        return self.value

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """Return the value and its interval with as many digits as the interval is worth."""
        return f"{self.value:.3g} ({_bound(self.low)} to {_bound(self.high)})"


def _bound(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "no bound"


def unit_sums(unit: Ints, columns: Floats, units: int) -> Floats:
    """Return the sums of columns (n, c) over the rows of each unit (units, c); every unit has a row."""
    order = np.argsort(unit, kind="stable")
    begins = np.searchsorted(unit[order], np.arange(units))
    sums: Floats = np.add.reduceat(columns[order], begins, axis=0)
    return sums


def merged(sums: Floats, rng: np.random.Generator) -> Floats:
    """Return at most MOST_UNITS sums, made of random units."""
    if len(sums) <= MOST_UNITS:
        return sums
    place = np.empty(len(sums), dtype=np.int64)
    place[rng.permutation(len(sums))] = np.arange(len(sums)) % MOST_UNITS
    return unit_sums(place, sums, MOST_UNITS)


def resample(pool: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Return sums over resampled rows of the pool (draws, c); the first column counts rows, and the others are divided by it."""
    drawn = rng.integers(len(pool), size=(draws, len(pool)))
    return _means(_times(drawn, len(pool)) @ pool)


def resample_twice(
    pool: Floats, single: list[Floats], m: int, draws: int, rng: np.random.Generator, *, settled: float = 1.0
) -> Floats:
    """Return means of m new rows (draws, c): a resampled calibration set, and m rows drawn from it.

    pool (n, c): averaged over the partitions, as the estimate is, which is the centre. single: the same by each partition alone, by
    turns: one model will decide each new request, all or nothing, and an average over several would make that look less a matter
    of chance. settled: by how much the spread of calibration sets is smaller than the pool's, which may be a sample of them.
    """
    n = len(pool)
    drawn = rng.integers(n, size=(draws, n))
    weights = _times(drawn, n)
    if m <= _MANY * n:
        batch = _times(np.take_along_axis(drawn, rng.integers(n, size=(draws, m)), axis=1), n)
    else:
        batch = rng.multinomial(m, weights / n).astype(np.float64)
    found = np.tile(_means(pool.sum(axis=0, keepdims=True)), (draws, 1))
    for at, alone in enumerate(single):
        turn = slice(at, None, len(single))
        sets = _means(weights[turn] @ alone)
        found[turn] += settled * (sets - _means(alone.sum(axis=0, keepdims=True))) + _means(batch[turn] @ alone) - sets
    return found


def _times(drawn: Ints, n: int) -> Floats:
    """Return how often each of n rows was drawn (draws, n): six times as fast as multinomial draws."""
    places = drawn + np.arange(len(drawn))[:, None] * n
    return np.bincount(places.ravel(), minlength=len(drawn) * n).reshape(len(drawn), n).astype(np.float64)


def _means(sums: Floats) -> Floats:
    counts = sums[:, :1]
    means: Floats = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return means


def interval(draws: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the percentile interval over the first axis."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def ratio_interval(over: Floats, under: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the interval of the ratio of two resampled means over the first axis.

    Where `under` is positive in every draw this is the percentile interval of the ratio. A draw in which it is not says nothing
    about the ratio, which could be anything: it counts at both ends, so that with more than a few of them there is no bound left
    (E. C. Fieller, JRSS B 16, 1954: an interval of a ratio may be unbounded, and then has to be).
    """
    tail = (1 - confidence) / 2
    unknown = under <= 0
    ratio = np.divide(over, under, out=np.zeros_like(over), where=~unknown)
    low = np.quantile(np.where(unknown, -np.inf, ratio), tail, axis=0, method="lower")
    high = np.quantile(np.where(unknown, np.inf, ratio), 1 - tail, axis=0, method="higher")
    return low, high
