"""What another score would have done on the same labels: measured beside, promised nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nbllm.calibration.checks import Bools, Floats, numbers, truths, weights_of
from nbllm.errors import InvalidLabels

_RESAMPLES = 200
_LEAST_HITS = 20
"""Fewer hits show no error rate."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another score, or the same behind guards, on the same rows.

    hit_rate: the greatest share of rows that it serves with an observed error of at most max_error (0 where none). gain: that
    minus the same of the scores given, low to high its 95% interval (paired bootstrap). lowest_error: the lowest observed error
    of any of its thresholds with 20 hits or more; None where it never has so many.
    """

    name: str
    hit_rate: float
    gain: float
    low: float
    high: float
    lowest_error: float | None


def measured(
    alternatives: Mapping[str, ArrayLike] | None,
    scores: ArrayLike,
    correct: ArrayLike,
    weights: ArrayLike | None,
    rows: Bools,
    max_error: float,
    seed: int,
) -> tuple[Alternative, ...]:
    """Measure other scores (n,), NaN where a row would not be a hit at all, beside the scores given, on `rows` of them.

    Raises InvalidLabels.
    """
    if not alternatives:
        return ()
    given = numbers(scores, "scores")
    own, wrong = given[rows], ~truths(correct, "correct", given.size)[rows]
    all_weights = weights_of(weights, given.size)
    weight = np.ones(own.size) if all_weights is None else all_weights[rows]
    drawn = np.random.default_rng(seed)
    counts = [drawn.multinomial(own.size, np.full(own.size, 1 / own.size)) for _ in range(_RESAMPLES)]
    base = _Ranked(own, wrong)
    base_rates = np.array([base.best(weight * count, max_error) for count in counts])
    found = []
    for name, values in alternatives.items():
        other = numbers(values, f"alternatives[{name!r}]", missing=True)
        if other.shape != given.shape:
            raise InvalidLabels(
                f"alternatives[{name!r}] has the shape {other.shape}, scores have {given.shape}.",
                hint="One score a row; NaN where a guard blocks.",
            )
        ranked = _Ranked(other[rows], wrong)
        rates = np.array([ranked.best(weight * count, max_error) for count in counts])
        low, high = np.quantile(rates - base_rates, (0.025, 0.975))
        rate = ranked.best(weight, max_error)
        gain = rate - base.best(weight, max_error)
        values_ = (rate, gain, float(low), float(high), ranked.lowest(weight))
        found.append(Alternative(name, *(None if v is None else round(v, 6) for v in values_)))  # type: ignore[arg-type]
    return tuple(found)


class _Ranked:
    """Rows by one score; NaN last and never served."""

    def __init__(self, scores: Floats, wrong: Bools) -> None:
        self._order = np.argsort(-scores, kind="stable")[: int(np.count_nonzero(~np.isnan(scores)))]
        ranked = scores[self._order]
        self._wrong = wrong[self._order]
        self._ends = np.flatnonzero(np.concatenate((ranked[1:] < ranked[:-1], [True]))) if ranked.size else np.zeros(0, np.int64)

    def _sums(self, weight: Floats) -> tuple[Floats, Floats]:
        mine = weight[self._order]
        return np.cumsum(mine)[self._ends], np.cumsum(np.where(self._wrong, mine, 0.0))[self._ends]

    def best(self, weight: Floats, max_error: float) -> float:
        """Return the greatest weight served with an error of at most max_error, over the weight of all rows."""
        hits, errors = self._sums(weight)
        fits = hits[(errors <= max_error * hits) & (hits > 0)]
        return float(fits.max() / weight.sum()) if fits.size else 0.0

    def lowest(self, weight: Floats) -> float | None:
        """Return the lowest error of any threshold that serves enough rows to show one."""
        hits, errors = self._sums(weight)
        enough = self._ends + 1 >= _LEAST_HITS
        return float((errors[enough] / hits[enough]).min()) if enough.any() else None
