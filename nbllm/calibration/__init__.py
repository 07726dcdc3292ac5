"""Thresholds and routes whose promise holds for calls not seen. Loads numpy on first use.

    from nbllm.calibration import calibrate_route
    plan = calibrate_route(prompts, embeddings, weak_quality, strong_quality, weak_cost_usd, strong_cost_usd)

Everything here is arithmetic on arrays: no clock, disk, network or model; callers pass dates, names and labels.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbllm.calibration.route import calibrate_route
    from nbllm.calibration.route_curve import RouteCurve
    from nbllm.calibration.route_intervals import Estimate
    from nbllm.calibration.route_plan import RoutePlan
    from nbllm.calibration.route_point import BatchPrediction, RoutePoint

_WHERE = {
    "BatchPrediction": "route_point",
    "Estimate": "route_intervals",
    "RouteCurve": "route_curve",
    "RoutePlan": "route_plan",
    "RoutePoint": "route_point",
    "calibrate_route": "route",
}

__all__ = [
    "BatchPrediction",
    "Estimate",
    "RouteCurve",
    "RoutePlan",
    "RoutePoint",
    "calibrate_route",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
