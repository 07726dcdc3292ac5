"""Thresholds and routes whose promise holds for calls not seen. Loads numpy on first use.

    from nbllm.calibration import calibrate_route, calibrate_threshold
    plan = calibrate_threshold(scores, correct, max_error=0.05)
    plan = calibrate_route(prompts, embeddings, weak_quality, strong_quality, weak_cost_usd, strong_cost_usd)

Everything here is arithmetic on arrays: no clock, disk, network or model; callers pass dates, names and labels.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbllm.calibration.agreement import Agreement, judge_agreement
    from nbllm.calibration.anytime import AuditVerdict, audit_verdict, error_lower_bound
    from nbllm.calibration.curve import Curve, CurvePoint
    from nbllm.calibration.label_plan import LabelPlan, fit_labels
    from nbllm.calibration.looks import level_of_look
    from nbllm.calibration.plan import ThresholdPlan
    from nbllm.calibration.route import calibrate_route
    from nbllm.calibration.route_curve import RouteCurve
    from nbllm.calibration.route_intervals import Estimate
    from nbllm.calibration.route_plan import RoutePlan
    from nbllm.calibration.route_point import BatchPrediction, RoutePoint
    from nbllm.calibration.scores import mean_logprob
    from nbllm.calibration.threshold import calibrate_threshold

_WHERE = {
    "Agreement": "agreement",
    "AuditVerdict": "anytime",
    "BatchPrediction": "route_point",
    "Curve": "curve",
    "CurvePoint": "curve",
    "Estimate": "route_intervals",
    "LabelPlan": "label_plan",
    "RouteCurve": "route_curve",
    "RoutePlan": "route_plan",
    "RoutePoint": "route_point",
    "ThresholdPlan": "plan",
    "audit_verdict": "anytime",
    "calibrate_route": "route",
    "calibrate_threshold": "threshold",
    "error_lower_bound": "anytime",
    "judge_agreement": "agreement",
    "level_of_look": "looks",
    "fit_labels": "label_plan",
    "mean_logprob": "scores",
}

__all__ = [
    "Agreement",
    "AuditVerdict",
    "BatchPrediction",
    "Curve",
    "CurvePoint",
    "Estimate",
    "LabelPlan",
    "RouteCurve",
    "RoutePlan",
    "RoutePoint",
    "ThresholdPlan",
    "audit_verdict",
    "calibrate_route",
    "calibrate_threshold",
    "error_lower_bound",
    "fit_labels",
    "judge_agreement",
    "level_of_look",
    "mean_logprob",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
