"""Why a plan is what it is, in words: what is promised and for whom, or what is missing and what would help."""

from __future__ import annotations

import math

import numpy as np

from nbllm.calibration.agreement import Agreement
from nbllm.calibration.alternatives import Alternative
from nbllm.calibration.betting import BETS, Wagers
from nbllm.calibration.checks import Floats
from nbllm.calibration.curve import Curve, CurvePoint
from nbllm.calibration.labels import Labels
from nbllm.calibration.looks import level_of_look, threshold_level
from nbllm.calibration.sequences import fewest_hits, share_of

SCOPES = {
    "audit": "holds for this traffic, of which the labels are a sample",
    "imported": "holds for pairs like these (is your traffic like them? Then switch it on with accept_foreign=True)",
    "judge": "holds for pairs like these, where right is what the judge calls right (switched on with accept_foreign=True)",
}
"""For whom a plan holds, by the origin of its labels."""

HELPS = "What can help: guards that block hits, a judge for doubtful ones, another embedder."
_LEAST_HITS = 20
_MOST_LABELS = 10_000_000
_SIZES = np.geomspace(1, _MOST_LABELS, 800)
_SLOWER = 1.5
"""Weighted labels differ more than their mean growth shows."""
_POWER_SD = 1.28
"""Standard deviations: with so many labels the observed error would be accepted 9 times in 10."""


def reason_of(
    labels: Labels,
    curve: Curve,
    point: CurvePoint | None,
    others: tuple[Alternative, ...],
    agreement: Agreement | None,
    *,
    max_error: float,
    confidence: float,
    look: int,
) -> tuple[str, int | None]:
    """Return the reason, and how many more labels would do (0 for a plan; None: no number would, or none that is known)."""
    after = _after(labels, agreement)
    if point is not None:
        promise = (
            f"At most {percent(max_error)} of the hits with a score of {point.threshold:g} or more are wrong, with "
            f"{percent(confidence)} confidence. This {SCOPES[labels.origin]}. Of {labels.n:,} labels {point.hits:,} are such hits "
            f"({percent(point.hit_rate)}); {point.errors:,} of these ({percent(point.error_rate)}) were wrong."
        )
        return " ".join([promise, *after]), 0
    level = share_of(threshold_level(level_of_look(confidence, look + 1)))
    said, more = _missing(labels, curve, max_error, level)
    asked = f"at most {percent(max_error)} of its hits are wrong"
    head = f"Of no threshold can it be said with {percent(confidence)} confidence that {asked}."
    return " ".join([head, *said, *_backwards(labels), *_helps(others, max_error), *after]), more


def percent(share: float) -> str:
    """Return a share as a percentage of up to three digits."""
    return f"{share * 100:.3g}%"


def _after(labels: Labels, agreement: Agreement | None) -> list[str]:
    """Return what is said under every plan: what was left out, and what a judge's labels are worth."""
    said = []
    if labels.left_out:
        names = ", ".join(f"{rows:,} {name}" for name, rows in labels.left_out)
        why = " Marked ones are no sample of the traffic: they evict and block." if "marked" in dict(labels.left_out) else ""
        said.append(f"Only the {labels.n:,} {labels.origin} labels were used; left out: {names}.{why}")
    if labels.origin == "judge":
        said.append(str(agreement) if agreement else "How far the judge agrees with people is not known: label some rows by hand.")
    return said


def _missing(labels: Labels, curve: Curve, max_error: float, level: float) -> tuple[list[str], int | None]:
    """Return what the labels lack, and how many more would do."""
    fewest = fewest_hits(max_error, level)
    if not curve or labels.n < fewest / 5:
        alike = " Their scores are all alike, so no threshold parts them." if labels.n > 1 and not curve else ""
        more = None if alike or labels.wrong.all() else _rounded(fewest - labels.n)
        few = f"There are {labels.n:,} labels; even without a wrong one it takes about {fewest:,} hits."
        return [few + alike], more
    seen = [p for p in curve if p.hits >= _LEAST_HITS] or list(curve)
    needed = _labels_needed(labels, seen, max_error, level)
    most, best = min(zip(needed, seen, strict=True), key=lambda pair: (pair[0], -pair[1].hits))
    if most > _MOST_LABELS:
        lowest = min(seen, key=lambda p: (p.error_rate, -p.hits))
        how = "above" if lowest.error_rate > max_error else "too near to"
        never = (
            f"No number of labels helps while hits are wrong this often: the lowest error seen is {percent(lowest.error_rate)} "
            f"({lowest.errors:,} of {lowest.hits:,} hits with {lowest.threshold:g} or more), {how} {percent(max_error)}."
        )
        return [never], None
    more = _rounded(max(most - labels.n, labels.n / 10))
    nearest = (
        f"Nearest is {best.threshold:g}: {best.errors:,} of {best.hits:,} hits were wrong ({percent(best.error_rate)}), "
        f"which is too few hits to tell. If that error stays, about {more:,} more labels would do."
    )
    return [nearest], more


def _labels_needed(labels: Labels, points: list[CurvePoint], max_error: float, level: float) -> list[float]:
    """Return with how many labels in all the error of each point would be accepted 9 times in 10; infinite: with none."""
    if labels.weights is None:
        hits = hits_needed(np.array([point.error_rate for point in points]), max_error, level)
    else:
        sizes = np.array([point.hits for point in points])
        gains = Wagers(labels.wrong, labels.weights, labels.max_weight).growth(sizes, max_error)
        most = _SLOWER * math.log(BETS.size / level)
        hits = np.divide(most, gains, out=np.full(gains.shape, math.inf), where=gains > 0)
    # How many of the new labels will be hits is a matter of chance too.
    return [float(n + _POWER_SD * math.sqrt(n)) * labels.n / point.hits for n, point in zip(hits, points, strict=True)]


def hits_needed(rates: Floats, max_error: float, level: float) -> Floats:
    """Return with how many hits at each error rate (m,) the binomial test would be passed 9 times in 10; infinite: with none."""
    seen = rates[:, None]
    errors = np.minimum(seen + _POWER_SD * np.sqrt(seen * (1 - seen) / _SIZES), max_error)
    # Chernoff's bound of the binomial tail: exp(-hits * KL(errors, max_error)).
    enough = _SIZES * _divergence(errors, max_error) >= -math.log(level)
    result: Floats = np.where(enough.any(axis=1), _SIZES[np.argmax(enough, axis=1)], math.inf)
    return result


def _divergence(p: Floats, q: float) -> Floats:
    """Return the Kullback-Leibler divergence of a coin p from a coin q, (m,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(p > 0, p * np.log(p / q), 0.0)
    result: Floats = heads + (1 - p) * np.log((1 - p) / (1 - q))
    return result


def _rounded(count: float) -> int:
    """Return a count rounded up to two digits: more would pretend to know."""
    step: int = 10 ** max(0, len(str(math.ceil(count))) - 2)
    return max(1, math.ceil(count / step)) * step


def _backwards(labels: Labels) -> list[str]:
    """Return a remark where higher scores are wrong more often: three standard errors below chance in a rank sum test."""
    wrong = int(np.count_nonzero(labels.wrong))
    right = labels.n - wrong
    if not wrong or not right:
        return []
    _, which, counts = np.unique(labels.scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    auc = (float(ranks[~labels.wrong].sum()) - right * (right + 1) / 2) / (right * wrong)
    if (auc - 0.5) / math.sqrt((labels.n + 1) / (12 * right * wrong)) > -3:
        return []
    return [f"Higher scores are wrong more often here (AUC {auc:.2f}). Are they distances? Then pass their negatives."]


def _helps(others: tuple[Alternative, ...], max_error: float) -> list[str]:
    """Return what would help: measured where it was given, else what could be."""
    if not others:
        return [f"{HELPS} Given as alternatives={{name: scores}}, each is measured here."]
    said = []
    for other in sorted(others, key=lambda other: -other.hit_rate):
        lowest = "" if other.lowest_error is None else f", lowest error seen {percent(other.lowest_error)}"
        said.append(
            f"{other.name}: {percent(other.hit_rate)} of the rows at an observed error of {percent(max_error)} "
            f"({other.gain * 100:+.1f} points, {other.low * 100:+.1f} to {other.high * 100:+.1f}{lowest})"
        )
    return ["Measured on the same labels, not promised: " + "; ".join(said) + "."]
