"""A route between a weak and a strong model at a share of strong calls: what a call costs, how long it takes, how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbllm.core.ports import Filter
from nbllm.core.statistics import minimum_sample

if TYPE_CHECKING:
    from nbllm.calibration import Estimate, RoutePlan, RoutePoint

Floats = NDArray[np.float64]
_Q = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutingData:
    """A calibrated route, and how long its two models took (seconds, from the ledger). start: the share in force."""

    plan: RoutePlan
    weak_s: Floats
    strong_s: Floats
    weak: str
    strong: str
    start: float
    example: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingNumbers:
    """One share of strong calls. point: RoutePlan.at, whose quality interval is for one share.

    recovered: of the gap between weak and strong, with the band that holds for all shares at once: for one that was picked by
    looking. p95_s: 95th percentile of the time of a call, None from fewer than 20 calls of a model that is used.
    """

    share: float
    point: RoutePoint
    recovered: Estimate | None
    p95_s: float | None


def at(data: RoutingData, share: float) -> RoutingNumbers:
    """Return what a share of strong calls means."""
    from nbllm.calibration import Estimate

    curve = data.plan.curve
    found = [curve.at(name, share) for name in ("recovered", "band_low", "band_high")]
    return RoutingNumbers(
        share=share,
        point=data.plan.at(strong_share=share),
        recovered=None if np.isnan(found).any() else Estimate(*found),
        p95_s=mixed_quantile(data.weak_s, data.strong_s, share),
    )


def mixed_quantile(weak_s: Floats, strong_s: Floats, share: float, q: float = _Q) -> float | None:
    """Return the quantile q of times of which a share comes from strong and the rest from weak, by nearest rank.

    None where a model with a part in it has fewer times than such a quantile needs. It takes the times of each model as they were,
    whichever prompts it will get.
    """
    parts = [(times, part) for times, part in ((weak_s, 1 - share), (strong_s, share)) if part > 0]
    if any(times.size < minimum_sample(q) for times, _ in parts):
        return None
    times = np.concatenate([times for times, _ in parts])
    weights = np.concatenate([np.full(times.size, part / times.size) for times, part in parts])
    order = np.argsort(times, kind="stable")
    until = np.cumsum(weights[order])
    return float(times[order][min(int(np.searchsorted(until, q - 1e-9)), times.size - 1)])


def read(client: Any, plan: RoutePlan, *, weak: str, strong: str, start: float | None = None) -> RoutingData:
    """Return the data of a plan with these two models, timed by all calls that the ledger holds."""
    return RoutingData(
        plan=plan,
        weak_s=_times(client, weak),
        strong_s=_times(client, strong),
        weak=weak or "weak",
        strong=strong or "strong",
        start=plan.chosen_share if start is None else start,
    )


def _times(client: Any, model: str) -> Floats:
    if not model:
        return np.zeros(0)
    series = client.ledger.series(Filter(model=model), costs=False)
    times: Floats = series.latency_s[~series.hit & ~series.failed & ~np.isnan(series.latency_s)]
    return times
