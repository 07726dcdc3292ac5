"""Which share of strong calls a wish comes to, and the words for a wish that cannot be met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nbllm.calibration.ridge import Floats
from nbllm.errors import InvalidRequest

if TYPE_CHECKING:
    from nbllm.calibration.route_plan import RoutePlan


def share_for(
    plan: RoutePlan, strong_share: float | None, cost_usd_per_call: float | None, quality_recovered: float | None
) -> float:
    """Return the share, 0 to 1, of the one wish that is given, or the chosen one. Raises InvalidRequest with what is attainable."""
    wishes = {"strong_share": strong_share, "cost_usd_per_call": cost_usd_per_call, "quality_recovered": quality_recovered}
    given = {name: value for name, value in wishes.items() if value is not None}
    if not given:
        return plan.chosen_share
    if len(given) > 1:
        raise InvalidRequest(f"A point has one name, and {' and '.join(given)} are given.", hint="Give one of them.")
    ((name, wish),) = given.items()
    value = _number(name, wish)
    if name == "strong_share":
        if not 0 <= value <= 1:
            raise InvalidRequest(f"strong_share={value:g} is no share.", hint="Attainable: 0 (all weak) to 1 (all strong).")
        return value
    return _by_cost(plan, value) if name == "cost_usd_per_call" else _by_quality(plan, value)


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is what this is about
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InvalidRequest(f"{name}={value!r} is no number.", hint="Give a finite number.")
    return number


def _by_cost(plan: RoutePlan, value: float) -> float:
    cost = plan.curve.cost_usd
    if np.isnan(cost).any():
        raise InvalidRequest(
            "What a call costs is unknown: the plan was calibrated without both costs.",
            hint="Give weak_cost_usd and strong_cost_usd to calibrate_route, or name the point by strong_share.",
        )
    low, high = float(cost.min()), float(cost.max())
    if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
        raise InvalidRequest(
            f"No share of strong calls costs ${value:.6g} a call.",
            hint=f"Attainable: ${low:.6g} to ${high:.6g} a call, by what these prompts cost.",
        )
    return _last_reached(plan.curve.strong_share, cost, value)


def _by_quality(plan: RoutePlan, value: float) -> float:
    recovered = plan.curve.recovered
    if np.isnan(recovered).any():
        raise InvalidRequest(
            f"There is no gap to recover: strong is not better than weak on these prompts (by {plan.gap}).",
            hint="Name the point by strong_share; plan.at(strong_share=...).quality says what it brings.",
        )
    high = float(recovered.max())
    if not 0 <= value <= high + 1e-9:
        best = float(plan.curve.strong_share[int(np.argmax(recovered))])
        raise InvalidRequest(
            f"No share of strong calls recovers {value:g} of the gap.",
            hint=f"Attainable: 0 (all weak) to {high:.3g}, which {best:.0%} strong calls recover.",
        )
    return _first_reached(plan.curve.strong_share, recovered, value)


def _first_reached(shares: Floats, values: Floats, wish: float) -> float:
    """Return the smallest share at which the line through the values reaches the wish."""
    at = int(np.argmax(values >= wish - 1e-9))
    if at == 0:
        return float(shares[0])
    before, after = values[at - 1], values[at]
    part = float(np.clip((wish - before) / (after - before), 0, 1)) if after > before else 1.0
    return float(shares[at - 1] + part * (shares[at] - shares[at - 1]))


def _last_reached(shares: Floats, values: Floats, wish: float) -> float:
    """Return the largest share at which the line through the values is at most the wish."""
    within = np.flatnonzero(values <= wish * (1 + 1e-9))
    if not within.size:
        return float(shares[int(np.argmin(values))])
    at = int(within[-1])
    if at == len(shares) - 1:
        return float(shares[at])
    rise = values[at + 1] - values[at]
    part = float(np.clip((wish - values[at]) / rise, 0, 1)) if rise > 0 else 0.0
    return float(shares[at] + part * (shares[at + 1] - shares[at]))
