"""A route plan in sentences: what is sure, what is not, and what it holds for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nbllm.calibration.route_curve import Summary
from nbllm.calibration.route_intervals import Estimate

if TYPE_CHECKING:
    from nbllm.calibration.route_plan import RoutePlan
    from nbllm.calibration.route_point import RoutePoint

FEW = 200
_FROM = {
    "labels": "labels",
    "check": "a check",
    "judge": "a judge model, whose own errors are not in the intervals",
    "agreement": "agreement with the strong model, which counts the strong model as always right",
}


def notes_on(summary: Summary, prompts: int, penalty: float) -> tuple[str, ...]:
    """Return what a reader must know of the result itself."""
    notes = []
    gap = summary.gap
    if gap.high < 0:
        notes.append(
            f"The strong model is worse than the weak one on these prompts, by {_positive(gap)}: there is no gap to recover."
        )
    elif gap.value <= 0:
        notes.append(f"The strong model was not better than the weak one on these prompts (gap {gap}): there is no gap to recover.")
    elif gap.low <= 0:
        notes.append(f"It is not sure that strong is better than weak (gap {gap}), so shares of the gap have wide bounds or none.")
    if prompts < FEW:
        notes.append(f"{prompts} different prompts are few: from about {FEW} on the intervals become useful.")
    if np.isinf(penalty):
        notes.append("The embedding did not help beside the prompt's length, so the route goes by length alone.")
    return tuple(notes)


def _positive(gap: Estimate) -> str:
    return str(Estimate(-gap.value, -gap.high, -gap.low))


def sentences(plan: RoutePlan) -> list[str]:
    """Return the plan in sentences, the most important first."""
    between = f"{plan.weak or 'the weak model'} and {plan.strong or 'the strong model'}"
    rows = f"{plan.rows} rows of {plan.prompts} prompts" if plan.prompts < plan.rows else f"{plan.rows} rows"
    found = [
        f"Route between {between}, calibrated on {rows}; quality from {_FROM[plan.quality_from]}.",
        f"Quality: weak {plan.summary.weak_quality}, strong {plan.summary.strong_quality}, gap {plan.gap}.",
    ]
    found += comparisons(plan)
    found.append(point_sentence(plan.at()))
    found += plan.notes
    found.append(
        "Intervals: 95%, from prompts that the scoring model had not seen; they hold for requests like these. "
        f"Data {plan.sha256[:12]}, seed {plan.seed}{f', {plan.date}' if plan.date else ''}"
        f"{f', embedder {plan.embedder}' if plan.embedder else ''}."
    )
    return found


def comparisons(plan: RoutePlan) -> list[str]:
    """Return the average performance gap recovered beside random choice and length alone, and whether the difference is sure."""
    if plan.apgr is None or plan.over_random is None or plan.over_length_only is None or plan.length_only_apgr is None:
        return ["APGR (average performance gap recovered): none, because there is no positive gap."]
    over_random = difference(plan.over_random, "random choice")
    return [
        f"APGR (average performance gap recovered) {plan.apgr}; random choice 0.5: {over_random}.",
        f"Length alone {plan.length_only_apgr}: {difference(plan.over_length_only, 'length alone')}.",
    ]


def difference(found: Estimate, beside: str) -> str:
    """Return in words whether a difference is sure: its 95% interval does not hold 0."""
    if found.low > 0:
        return f"surely better than {beside}, by {found}"
    if found.high < 0:
        return f"surely worse than {beside}, by {found}"
    return f"not surely different from {beside}: {found} holds 0"


def point_sentence(point: RoutePoint) -> str:
    """Return one point in a sentence."""
    words = [f"With {point.strong_share:.1%} strong calls: quality {point.quality} a call"]
    if point.quality_recovered is not None:
        words.append(f"{_percent(point.quality_recovered)} of the gap recovered")
    if point.over_length_only is not None and point.over_random is not None:
        words.append(
            f"{_points(point.over_random)} points over random choice and {_points(point.over_length_only)} over length alone"
        )
    if point.cost_usd_per_call is not None:
        words.append(f"${point.cost_usd_per_call} a call")
    sentence = f"{', '.join(words)}."
    batch = point.batch
    if batch is not None:
        ahead = [f"quality {_range(batch.quality)}", f"strong calls {_range(batch.strong_share, percent=True)}"]
        if batch.quality_recovered is not None:
            ahead.insert(0, f"{_range(batch.quality_recovered, percent=True)} of their gap recovered")
        if batch.cost_usd_per_call is not None:
            ahead.append(f"${_range(batch.cost_usd_per_call)} a call")
        sentence += f" The next {batch.requests} requests like these, with 95% each: {'; '.join(ahead)}."
    return sentence


def _percent(found: Estimate) -> str:
    return f"{found.value:.0%} ({_range(found, percent=True)})"


def _points(found: Estimate) -> str:
    low, high = (f"{bound:+.0%}"[:-1] if np.isfinite(bound) else "no bound" for bound in (found.low, found.high))
    return f"{found.value:+.0%}"[:-1] + f" ({low} to {high})"


def _range(found: Estimate, *, percent: bool = False) -> str:
    shown = [("no bound" if not np.isfinite(one) else f"{one:.0%}" if percent else f"{one:.3g}") for one in (found.low, found.high)]
    return " to ".join(shown)
