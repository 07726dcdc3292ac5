"""A route plan as JSON that a person can read in a diff: facts first, then columns of numbers in short lines. No prompt's text."""

from __future__ import annotations

import json
import textwrap
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from nbllm.calibration.ridge import Floats, Line
from nbllm.calibration.route_curve import SHARES, RouteCurve, Summary
from nbllm.calibration.route_evidence import Evidence
from nbllm.calibration.route_intervals import Estimate
from nbllm.calibration.routing_rows import QualityFrom
from nbllm.errors import InvalidRequest

if TYPE_CHECKING:
    from nbllm.calibration.route_plan import RoutePlan

KIND, VERSION = "nbllm route plan", 1
_DIGITS = 8
_WIDTH = 120
_PLAIN = ("date", "weak", "strong", "embedder", "quality_from", "rows", "prompts", "confidence", "seed", "chosen_share", "penalty")
_LAST = ("knows_zero_vectors", "sha256")
_RANKS = ("begins", "ends", "own_begins", "own_ends")
_OPTIONAL = ("apgr", "length_apgr", "over_random", "over_length")


def to_json(plan: RoutePlan) -> str:
    """Return the plan as JSON."""
    curve, evidence, line = plan.curve, plan.evidence, plan.line
    facts: dict[str, Any] = {"kind": KIND, "version": VERSION}
    facts |= {name: getattr(plan, name) for name in (*_PLAIN, *_LAST)}
    facts["notes"] = list(plan.notes)
    for one in fields(Summary):
        found = getattr(plan.summary, one.name)
        facts[one.name] = None if found is None else {"value": found.value, "low": found.low, "high": found.high}
    facts["curve"] = {one.name: getattr(curve, one.name) for one in fields(RouteCurve)}
    facts["score"] = {"intercept": line.intercept, "log_characters": line.free, "embedding": line.penalised}
    facts["evidence"] = {one.name: getattr(evidence, one.name) for one in fields(Evidence)}
    facts["evidence"] |= {name: list(getattr(evidence, name).T) for name in _RANKS}
    return _written(facts, 0) + "\n"


def _written(value: Any, depth: int) -> str:
    pad = "  " * (depth + 1)
    if isinstance(value, dict) and all(isinstance(one, float) for one in value.values()):
        return "{" + ", ".join(f"{json.dumps(name)}: {_number(one)}" for name, one in value.items()) + "}"
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(name)}: {_written(one, depth + 1)}" for name, one in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + pad[2:] + "}"
    if isinstance(value, np.ndarray):
        numbers = ", ".join(_number(float(one)) for one in value)
        return _wrapped(numbers, pad)
    if isinstance(value, list):
        parts = [_written(one, depth + 1) for one in value]
        return "[\n" + ",\n".join(pad + part for part in parts) + "\n" + pad[2:] + "]" if parts else "[]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _wrapped(numbers: str, pad: str) -> str:
    if len(numbers) <= _WIDTH // 2:
        return f"[{numbers}]"
    return (
        "[\n" + textwrap.fill(numbers, _WIDTH, initial_indent=pad, subsequent_indent=pad, break_long_words=False) + f"\n{pad[2:]}]"
    )


def _number(value: float) -> str:
    """Return a number with eight digits; JSON knows neither NaN (null) nor infinity (a string)."""
    if np.isnan(value):
        return "null"
    return f"{value:.{_DIGITS}g}" if np.isfinite(value) else json.dumps(str(value))


def from_json(made: type[RoutePlan], text: str) -> RoutePlan:
    """Return the plan. made: its class. Raises InvalidRequest for what is no route plan of this version, or is damaged."""
    try:
        facts = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"This is no route plan: {error}.", hint="Read the file that plan.to_json() was written to."
        ) from error
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise InvalidRequest(f"This JSON is no route plan: its kind is not {KIND!r}.", hint="Calibrate with calibrate_route.")
    if facts.get("version") != VERSION:
        raise InvalidRequest(
            f"The route plan has version {facts.get('version')!r}, this nbllm reads {VERSION}.",
            hint="Calibrate again, or update nbllm.",
        )
    try:
        return _plan_of(made, facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(
            f"The route plan is damaged: {error!r}.", hint="Take it from its backup, or calibrate again."
        ) from error


def _plan_of(made: type[RoutePlan], facts: dict[str, Any]) -> RoutePlan:
    curve = RouteCurve(**{one.name: _column(facts["curve"][one.name], len(SHARES)) for one in fields(RouteCurve)})
    score = facts["score"]
    line = Line(float(score["intercept"]), _column(score["log_characters"], 1), _column(score["embedding"]))
    if not (np.isfinite(line.penalised).all() and np.isfinite(line.free).all() and line.penalised.size):
        raise ValueError("the weights are not finite numbers")
    estimates = {one.name: _estimate(facts[one.name]) for one in fields(Summary)}
    if any(found is None for name, found in estimates.items() if name not in _OPTIONAL):
        raise ValueError("a summary is missing")
    if facts["quality_from"] not in get_args(QualityFrom):
        raise ValueError(f"quality_from is {facts['quality_from']!r}")
    return made(
        curve=curve,
        summary=Summary(**estimates),  # type: ignore[arg-type]  # those that must be there were looked for above
        line=line,
        evidence=_evidence_of(facts["evidence"]),
        notes=tuple(facts["notes"]),
        **{name: facts[name] for name in (*_PLAIN, *_LAST) if name not in {"penalty", "chosen_share"}},
        penalty=float(facts["penalty"]),
        chosen_share=float(facts["chosen_share"]),
    )


def _evidence_of(found: dict[str, Any]) -> Evidence:
    n = len(found["rows"])
    named = {name: _column(found[name], n) for name in ("rows", "weak", "strong")}
    costs = {name: None if found[name] is None else _column(found[name], n) for name in ("weak_cost_usd", "strong_cost_usd")}
    ranks = {name: np.column_stack([_column(one, n) for one in found[name]]) for name in _RANKS}
    scale = {name: float(found[name]) for name in ("low", "high")}
    return Evidence(**named, **ranks, **scale, of=int(found["of"]), **costs)  # type: ignore[arg-type]  # None is for costs alone


def _column(values: Any, n: int | None = None) -> Floats:
    column = np.array([np.nan if one is None else float(one) for one in values], dtype=np.float64)
    if n is not None and column.shape != (n,):
        raise ValueError(f"a column has {len(column)} numbers, not {n}")
    return column


def _estimate(found: dict[str, Any] | None) -> Estimate | None:
    return None if found is None else Estimate(float(found["value"]), float(found["low"]), float(found["high"]))
