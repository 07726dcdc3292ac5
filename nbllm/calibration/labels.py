"""Labels as they come from a store or a table, checked, sorted and cut into candidates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbllm.calibration.checks import Bools, Counts, Floats, greatest_weight, numbers, truths, weights_of
from nbllm.calibration.grid import next_above
from nbllm.errors import InvalidLabels

Origin = Literal["audit", "marked", "imported", "judge"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
_TRUST: tuple[Origin, ...] = ("audit", "imported", "judge")
"""Of several origins the first of these is used. Marked labels are not: users mark what struck them, which is no sample."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Would-be hits of one origin, highest score first. weights None: all count the same.

    scores, wrong (n,); weights (n,) or None, the greatest possible being max_weight. left_out: (origin, rows) not used. rows: which
    of the rows given, in their order, were used.
    """

    scores: Floats
    wrong: Bools
    weights: Floats | None
    max_weight: float
    origin: Origin
    left_out: tuple[tuple[str, int], ...]
    rows: Bools
    data_hash: str

    @property
    def n(self) -> int:
        """How many labels."""
        return int(self.wrong.size)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The thresholds that can be chosen, strict to loose, and what the labels say at each; all (c,), save cell_of_rank (n,).

    hits: labels with a score at or above the threshold; errors: wrong ones. hit_rate: their weight in that of all labels;
    error_rate: the weight of wrong ones in that of hits, NaN without hits. cell_of_rank[j - 1]: the candidate just above the
    cell of the label of rank j.
    """

    threshold: Floats
    hits: Counts
    errors: Counts
    hit_rate: Floats
    error_rate: Floats
    cell_of_rank: Counts


def candidates_of(labels: Labels) -> Candidates:
    """Cut the labels into cells of the grid and count what lies above each that holds a label."""
    above = next_above(labels.scores)
    new = np.concatenate(([True], above[1:] < above[:-1]))
    hits = np.flatnonzero(new)
    errors = _sums(labels.wrong)[hits].astype(np.int64)
    if labels.weights is None:
        weight, wrong_weight, total = hits.astype(np.float64), errors.astype(np.float64), float(labels.n)
    else:
        weight = _sums(labels.weights)[hits]
        wrong_weight = _sums(np.where(labels.wrong, labels.weights, 0.0))[hits]
        total = float(labels.weights.sum())
    error_rate = np.divide(wrong_weight, weight, out=np.full(hits.size, np.nan), where=hits > 0)
    return Candidates(above[hits], hits, errors, weight / total, error_rate, np.cumsum(new) - 1)


def _sums(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of the first 0, 1, ..., n values."""
    return np.concatenate(([0], np.cumsum(values)))


def read_labels(
    scores: ArrayLike,
    correct: ArrayLike,
    weights: ArrayLike | None,
    origin: Origin | Sequence[str],
    max_weight: float | None,
) -> Labels:
    """Check what was given, choose the rows of the most trustworthy origin and sort them. Raises InvalidLabels."""
    score = numbers(scores, "scores")
    wrong = ~truths(correct, "correct", score.size)
    weight = weights_of(weights, score.size)
    rows, used, left_out = _of_one_origin(origin, score.size)
    score, wrong, weight = score[rows], wrong[rows], None if weight is None else weight[rows]
    heaviest = greatest_weight(max_weight, weight)
    if weight is not None and weight.min() == heaviest:
        weight = None  # all count the same: the exact binomial test applies
    order = np.argsort(-score, kind="stable")
    return Labels(
        scores=score[order],
        wrong=wrong[order],
        weights=None if weight is None else weight[order],
        max_weight=heaviest,
        origin=used,
        left_out=left_out,
        rows=rows,
        data_hash=_hash_of(score[order], wrong[order], None if weight is None else weight[order]),
    )


def _hash_of(scores: Floats, wrong: Bools, weights: Floats | None) -> str:
    digest = hashlib.sha256()
    for column in (scores.astype("<f8"), wrong.astype("u1"), *(() if weights is None else (weights.astype("<f8"),))):
        digest.update(column.tobytes())
    return digest.hexdigest()


def _of_one_origin(origin: Origin | Sequence[str], n: int) -> tuple[Bools, Origin, tuple[tuple[str, int], ...]]:
    """Return which rows are used, of which origin they are, and what was left out."""
    each = np.full(n, origin, dtype=object) if isinstance(origin, str) else np.asarray(origin, dtype=object)
    if each.shape != (n,):
        raise InvalidLabels(
            f"origin has the shape {each.shape}, scores have {(n,)}.", hint="One origin for all rows, or one a row."
        )
    counts = {str(name): int(np.count_nonzero(each == name)) for name in dict.fromkeys(each.tolist())}
    unknown = [name for name in counts if name not in ORIGINS]
    if unknown:
        raise InvalidLabels(f"origin {unknown[0]!r} is not known.", hint=f"One of: {', '.join(ORIGINS)}.")
    used = next((name for name in _TRUST if counts.get(name)), None)
    if used is None:
        raise InvalidLabels(
            f"All {n:,} labels are marked by users, who mark what struck them: that is no sample of the traffic.",
            hint="Calibrate on audit labels (%llm_label offers them) or on imported ones; marked ones evict and block.",
        )
    left_out = tuple((name, counts[name]) for name in ORIGINS if name != used and counts.get(name))
    return each == used, used, left_out
