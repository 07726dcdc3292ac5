"""Plans as JSON that reads well in a diff, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from nbllm.calibration.agreement import Agreement
from nbllm.calibration.alternatives import Alternative
from nbllm.calibration.curve import Curve, CurvePoint
from nbllm.errors import InvalidPlan

if TYPE_CHECKING:
    from nbllm.calibration.plan import ThresholdPlan

T = TypeVar("T")
KIND = "nbllm threshold plan 1"
_LAST = ("left_out", "alternatives", "agreement", "curve")


def written(plan: ThresholdPlan) -> str:
    """Return the plan as JSON text with a line a fact, a line a point of the curve, and a line end."""
    lines = [f'  "kind": {json.dumps(KIND)}']
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        if field.name not in _LAST:
            lines.append(f'  "{field.name}": {_one(value)}')
    agreement = None if plan.agreement is None else dataclasses.asdict(plan.agreement)
    lines.append(f'  "left_out": {_one(dict(plan.left_out))}')
    lines.append(f'  "agreement": {_one(agreement)}')
    lines.append(f'  "alternatives": {_rows(plan.alternatives)}')
    lines.append(f'  "curve": {_rows(plan.curve.points)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _one(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _rows(rows: tuple[Any, ...]) -> str:
    if not rows:
        return "[]"
    return "[\n" + ",\n".join(f"    {_one(dataclasses.asdict(row))}" for row in rows) + "\n  ]"


def read(made: type[ThresholdPlan], text: str | bytes) -> ThresholdPlan:
    """Return the plan. made: its class, which knows its own faces; they do not know it. Raises InvalidPlan."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidPlan(f"A plan cannot be read: {error}.", hint=_HINT) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise InvalidPlan(f"A text is no threshold plan: it does not begin with the kind {KIND!r}.", hint=_HINT)
    try:
        values = {name: found[name] for name in (field.name for field in dataclasses.fields(made))}
        values["left_out"] = tuple((str(name), int(rows)) for name, rows in found["left_out"].items())
        values["agreement"] = None if found["agreement"] is None else Agreement(**found["agreement"])
        values["alternatives"] = tuple(Alternative(**row) for row in found["alternatives"])
        values["curve"] = Curve(tuple(_typed(CurvePoint(**row)) for row in found["curve"]))
        return _checked(_typed(made(**values)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidPlan(f"A plan lacks something or holds what does not fit: {error!r}.", hint=_HINT) from error


_HINT = "Write plans with plan.to_json(), and do not edit them: calibrate again instead."


def _typed(value: T) -> T:
    """Return the value, or raise TypeError where a number, text or truth is of another type than its field."""
    for name, hint in get_type_hints(type(value)).items():
        held = getattr(value, name)
        for kind in (float, int, str, bool):
            if hint in (kind, kind | None) and not (held is None and hint != kind):
                fits = isinstance(held, int | float) if kind is float else isinstance(held, kind)
                if not fits or (isinstance(held, bool) and kind is not bool):
                    raise TypeError(f"{name} is {held!r}")
    return value


def _checked(plan: ThresholdPlan) -> ThresholdPlan:
    """Return the plan, or raise ValueError where what it promises does not follow from its own numbers."""
    numbers = (plan.threshold, plan.hit_rate, plan.error_rate, plan.error_upper)
    if len({number is None for number in (*numbers, plan.hits, plan.errors)}) != 1:
        raise ValueError("a threshold and its numbers come together or not at all")
    if not all(math.isfinite(number) for number in (*numbers, plan.level, plan.max_weight) if number is not None):
        raise ValueError("a number is not finite")
    if not (0 < plan.max_error < 1 and 0.5 <= plan.confidence < 1 and plan.look >= 1 and plan.n >= 1):
        raise ValueError("max_error, confidence, look or n is out of range")
    if plan.origin not in ("audit", "imported", "judge"):
        raise ValueError(f"origin is {plan.origin!r}")
    if plan.error_upper is not None and plan.error_upper > plan.max_error + 1e-6:
        raise ValueError(f"error_upper is {plan.error_upper:g}, above max_error")
    if plan.threshold is not None and plan.threshold not in [point.threshold for point in plan.curve]:
        raise ValueError("the threshold is not on the curve")
    return plan
