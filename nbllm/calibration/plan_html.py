"""A plan as HTML: the promise in words and its numbers. What came from outside is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from nbllm.calibration.reasons import percent

if TYPE_CHECKING:
    from nbllm.calibration.plan import ThresholdPlan

_CELL = "padding:0.15em 0.9em 0.15em 0;border:0;background:none;text-align:"
_ROWS = 8


def html(plan: ThresholdPlan) -> str:
    """Return the plan as HTML without style sheet, script or picture."""
    head = "Threshold refused" if plan.threshold is None else f"Threshold {plan.threshold:g}"
    facts = [
        ("labels", f"{plan.n:,} ({plan.origin}{', weighted' if plan.weighted else ''})"),
        ("asked for", f"at most {percent(plan.max_error)} wrong hits, {percent(plan.confidence)} confidence"),
        ("look", f"{plan.look}, spending {percent(plan.level)} of {percent(1 - plan.confidence)}"),
    ]
    facts += [("embedder", plan.embedder)] if plan.embedder else []
    facts += [("date", plan.date)] if plan.date else []
    lines = "".join(
        f'<tr><th scope="row" style="{_CELL}left;font-weight:600">{escape(name)}</th>'
        f'<td style="{_CELL}left">{escape(value)}</td></tr>'
        for name, value in facts
    )
    table = f'<table style="border-collapse:collapse;border:0;margin:0.3em 0"><tbody>{lines}</tbody></table>'
    return f'<div><p style="font-weight:600">{escape(head)}</p><p>{escape(plan.reason)}</p>{table}{_curve(plan)}</div>'


def _curve(plan: ThresholdPlan) -> str:
    """Return some points of the curve, the plan's own among them."""
    points = list(plan.curve)
    if not points:
        return ""
    step = max(1, -(-len(points) // _ROWS))
    shown = [p for i, p in enumerate(points) if i % step == 0 or i == len(points) - 1 or p.threshold == plan.threshold]
    heads = ("score at least", "hits", "wrong", "share of hits", "error seen", "error at most")
    head = "".join(f'<th scope="col" style="{_CELL}right;font-weight:600">{name}</th>' for name in heads)
    rows = ""
    for p in shown:
        cells = (
            f"{p.threshold:g}",
            f"{p.hits:,}",
            f"{p.errors:,}",
            percent(p.hit_rate),
            percent(p.error_rate),
            percent(p.error_upper),
        )
        weight = "font-weight:600" if p.threshold == plan.threshold else ""
        rows += "<tr>" + "".join(f'<td style="{_CELL}right;{weight}">{escape(cell)}</td>' for cell in cells) + "</tr>"
    return (
        '<table style="border-collapse:collapse;border:0;font-variant-numeric:tabular-nums;margin:0.3em 0">'
        '<caption style="caption-side:top;text-align:left;padding:0.3em 0">'
        f"All bounds hold at once, with {percent(plan.confidence)} confidence.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
