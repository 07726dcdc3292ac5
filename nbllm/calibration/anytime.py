"""Watching a plan that is on: bounds of the error of audited hits that hold at every moment, however often one looks.

A share of the hits still goes to the model; whether the hit would have been right becomes a label. By betting (see betting.py,
here on more errors than allowed) the money of somebody who bets against "the error rate is at most r" exceeds 1 / (1 - confidence)
at any time with probability 1 - confidence at most if that is true (J. Ville, Etude critique de la notion de collectif, 1939; A.
Ramdas et al., Statistical Science 38, 2023). So a plan that keeps its promise is turned off by chance in at most that share of all
cases, over its whole life, and one that breaks it is turned off as soon as the labels can show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nbllm.calibration.betting import log_mean_exp
from nbllm.calibration.checks import Bools, Floats, audited, checked_rate

_HALVINGS = 24
_BETS = np.geomspace(0.002, 0.9, 16)
"""Bets as parts of the most that can be bet; against a rate r the best is about (error - r) / (1 - r), which is often small."""


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What audits say of a plan that is on.

    n, errors: audited hits and wrong ones. error_rate: weighted; None without audits. error_lower: the true error rate is at least
    this, with the confidence asked for, at all times at once. exceeded: error_lower is, or was at some time, above max_error: turn
    back to shadow. exceeded_at: after how many audits that was first so.
    """

    n: int
    errors: int
    error_rate: float | None
    error_lower: float
    exceeded: bool
    exceeded_at: int | None


def audit_verdict(
    correct: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    max_error: float,
    confidence: float = 0.95,
    max_weight: float | None = None,
) -> AuditVerdict:
    """Judge a plan by the audited hits since it is on, (n,), in the order in which they were labelled; n may be 0.

    correct: True where the hit was right. weights: 1 / (the probability with which the hit was audited), None where all had the
    same. max_weight: the greatest weight that the sampling can give, by default the greatest seen. Raises InvalidLabels.
    """
    checked_rate(max_error, "max_error")
    checked_rate(confidence, "confidence")
    wrong, stake, weight = audited(correct, weights, max_weight)
    money = _log_money(wrong, stake, max_error)
    passed = np.flatnonzero(money >= -np.log(1 - confidence))
    total = float(weight.sum())
    return AuditVerdict(
        n=wrong.size,
        errors=int(np.count_nonzero(wrong)),
        error_rate=float(weight[wrong].sum() / total) if total else None,
        error_lower=_lower(wrong, stake, confidence),
        exceeded=bool(passed.size),
        exceeded_at=int(passed[0]) + 1 if passed.size else None,
    )


def error_lower_bound(
    correct: ArrayLike, weights: ArrayLike | None = None, *, confidence: float = 0.95, max_weight: float | None = None
) -> float:
    """Return a lower bound of the true error rate that holds for all n at once: call it after each new label if you like.

    Arguments as in `audit_verdict`. 0 without labels. Raises InvalidLabels.
    """
    checked_rate(confidence, "confidence")
    wrong, stake, _ = audited(correct, weights, max_weight)
    return _lower(wrong, stake, confidence)


def _log_money(wrong: Bools, stake: Floats, rate: float) -> Floats:
    """Return the logarithm of the money after 1, 2, ..., n labels of somebody who bets on an error rate above `rate`, (n,)."""
    if not wrong.size:
        return np.zeros(0)
    gain = np.where(wrong, stake * ((1 - rate) / rate), -stake)
    return log_mean_exp(np.cumsum(np.log1p(_BETS[:, None] * gain), axis=1))


def _lower(wrong: Bools, stake: Floats, confidence: float) -> float:
    """Return the greatest rate that is refused at some time; money falls as the rate rises."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS if wrong.any() else 0):
        middle = (low + high) / 2
        refused = bool((_log_money(wrong, stake, middle) >= -np.log(1 - confidence)).any())
        low, high = (middle, high) if refused else (low, middle)
    return low
