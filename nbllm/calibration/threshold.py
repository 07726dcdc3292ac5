"""calibrate_threshold: from labelled would-be hits to a threshold whose error rate is bounded, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from nbllm.calibration import binomial
from nbllm.calibration.agreement import Agreement
from nbllm.calibration.alternatives import Alternative, measured
from nbllm.calibration.betting import Wagers
from nbllm.calibration.checks import Counts, Floats, checked_rate
from nbllm.calibration.curve import Curve, CurvePoint, ranks_of
from nbllm.calibration.labels import Candidates, Labels, Origin, candidates_of, read_labels
from nbllm.calibration.looks import checked_look, curve_level, level_of_look, threshold_level
from nbllm.calibration.plan import ThresholdPlan
from nbllm.calibration.reasons import reason_of
from nbllm.calibration.sequences import loosest_rejected, starts_of


def calibrate_threshold(
    scores: ArrayLike,
    correct: ArrayLike,
    weights: ArrayLike | None = None,
    max_error: float = 0.05,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    look: int = 1,
    origin: Origin | Sequence[str] = "imported",
    max_weight: float | None = None,
    alternatives: Mapping[str, ArrayLike] | None = None,
    agreement: Agreement | None = None,
    embedder: str | None = None,
    date: str | None = None,
) -> ThresholdPlan:
    """Find the lowest threshold at which at most max_error of the hits are wrong, or refuse.

    Promise: with probability `confidence` over the drawing of the labels, the true error rate (wrong hits over hits) of the plan's
    threshold, if there is one, is at most max_error, and all bounds of its curve hold too. All looks at one store together keep
    the promise (looks.py). It holds for traffic that the labels are an independent sample of, whatever the scores are like: ties,
    scores that say nothing, errors that do not fall with the score. Method: Learn-then-Test with exact binomial tests
    (sequences.py), betting for weighted labels (betting.py).

    scores: (n,) finite numbers, greater is more alike; one row per would-be hit. correct: (n,) True where it would be right to
    serve it. weights: (n,) 1 / (the probability with which the row was chosen), None where all had the same. max_error,
    confidence: greater than 0 (0.5) and below 1. seed: of the bootstrap intervals of `alternatives`; nothing else is random. look:
    1 for the first calibration on a growing store of labels, 2 for the next ... origin: where labels come from, one for all or one
    a row: "audit" (sampled from this traffic), "imported", "judge", "marked". Audit labels are used where there are any, else
    imported, else the judge's; marked ones never. max_weight: the greatest weight that the sampling could give, by default the
    greatest seen. alternatives: other scores of the same rows (another embedder's, a judge's; NaN where a guard blocks), measured
    beside when refused. agreement: the judge's with hand labels (judge_agreement). embedder, date: kept in the plan.

    Raises InvalidLabels, a ValueError: columns that are empty, of different lengths, no numbers, NaN or infinite; only marked
    labels; a rate or a look outside of its limits.
    """
    max_error, look = checked_rate(max_error, "max_error"), checked_look(look)
    confidence = checked_rate(confidence, "confidence", least=0.5)
    labels = read_labels(scores, correct, weights, origin, max_weight)
    others = measured(alternatives, scores, correct, weights, labels.rows, max_error, seed)
    level = level_of_look(confidence, look)
    candidates = candidates_of(labels)
    tests: _Tests = _Exact(candidates) if labels.weights is None else _Betting(labels, labels.weights, candidates)
    found = _threshold(labels, candidates, tests, max_error, threshold_level(level))
    curve = _curve(labels, candidates, tests, curve_level(level), found, max_error)
    return _plan(
        labels, candidates, found, curve, others,
        max_error=max_error, confidence=confidence, look=look, level=level, seed=int(seed),
        agreement=agreement, embedder=embedder, date=date,
    )  # fmt: skip


class _Tests(Protocol):
    """What is known of the error rate above each candidate."""

    def p_values(self, max_error: float) -> Floats:
        """Return p-values of "the error rate is above max_error", (c,)."""

    def upper(self, at: Counts, levels: Floats) -> Floats:
        """Return upper bounds of the error rates of candidates `at` (m,) at levels (m,)."""

    def spent(self, level: float) -> float:
        """Return what the sequences may spend so that they are wrong with probability `level` at most (sequences.py, 4)."""


class _Exact:
    """Binomial tests, for labels that count the same."""

    def __init__(self, candidates: Candidates) -> None:
        self._errors, self._hits = candidates.errors, candidates.hits

    def p_values(self, max_error: float) -> Floats:
        return binomial.lower_tail(self._errors, self._hits, max_error)

    def upper(self, at: Counts, levels: Floats) -> Floats:
        return binomial.upper_bound(self._errors[at], self._hits[at], levels)

    def spent(self, level: float) -> float:
        return level / (1 + level)


class _Betting:
    """Betting, for weighted labels."""

    def __init__(self, labels: Labels, weights: Floats, candidates: Candidates) -> None:
        self._wagers = Wagers(labels.wrong, weights, labels.max_weight)
        self._hits = candidates.hits

    def p_values(self, max_error: float) -> Floats:
        log_e = self._wagers.log_e(max_error)[self._hits]
        result: Floats = np.exp(-np.maximum(log_e, 0.0))
        return result

    def upper(self, at: Counts, levels: Floats) -> Floats:
        return self._wagers.upper(self._hits[at], levels)

    def spent(self, level: float) -> float:
        return level


def _threshold(labels: Labels, candidates: Candidates, tests: _Tests, max_error: float, level: float) -> int | None:
    """Return the index of the candidate that is chosen."""
    ranks, levels = starts_of(labels.n, max_error, tests.spent(level))
    return loosest_rejected(tests.p_values(max_error), candidates.cell_of_rank[ranks - 1], levels)


def _curve(labels: Labels, candidates: Candidates, tests: _Tests, level: float, found: int | None, max_error: float) -> Curve:
    """Return the curve: bounds at fixed ranks, and the plan's threshold with its own."""
    ranks = ranks_of(labels.n)
    at, ranks_there = np.unique(candidates.cell_of_rank[ranks - 1], return_counts=True)
    levels = ranks_there.astype(np.float64) * (level / ranks.size)
    at, levels = at[candidates.hits[at] > 0], levels[candidates.hits[at] > 0]
    upper = dict(zip(at.tolist(), tests.upper(at, levels).tolist(), strict=True))
    if found is not None:
        upper.setdefault(found, max_error)
    return Curve(tuple(_point(candidates, i, upper[i], max_error if i == found else 1.0) for i in sorted(upper)))


def _point(candidates: Candidates, i: int, upper: float, most: float) -> CurvePoint:
    return CurvePoint(
        threshold=float(candidates.threshold[i]),
        hits=int(candidates.hits[i]),
        errors=int(candidates.errors[i]),
        hit_rate=round(float(candidates.hit_rate[i]), 6),
        error_rate=round(float(candidates.error_rate[i]), 6),
        error_upper=min(most, float(np.ceil(upper * 1e6)) / 1e6),
    )


def _plan(
    labels: Labels,
    candidates: Candidates,
    found: int | None,
    curve: Curve,
    others: tuple[Alternative, ...],
    *,
    max_error: float,
    confidence: float,
    look: int,
    level: float,
    seed: int,
    agreement: Agreement | None,
    embedder: str | None,
    date: str | None,
) -> ThresholdPlan:
    point = None if found is None else curve.at(float(candidates.threshold[found]))
    reason, more = reason_of(labels, curve, point, others, agreement, max_error=max_error, confidence=confidence, look=look)
    return ThresholdPlan(
        threshold=None if point is None else point.threshold,
        reason=reason,
        hit_rate=None if point is None else point.hit_rate,
        error_rate=None if point is None else point.error_rate,
        error_upper=None if point is None else point.error_upper,
        hits=None if point is None else point.hits,
        errors=None if point is None else point.errors,
        n=labels.n,
        max_error=max_error,
        confidence=confidence,
        look=look,
        level=level,
        origin=labels.origin,
        left_out=labels.left_out,
        weighted=labels.weights is not None,
        max_weight=labels.max_weight,
        more_labels=more,
        alternatives=others,
        agreement=agreement,
        embedder=embedder,
        date=date,
        data_hash=labels.data_hash,
        seed=seed,
        curve=curve,
    )
