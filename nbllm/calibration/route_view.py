"""A route plan as HTML and as a figure. The HTML holds our own numbers and escaped text only."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from nbllm.calibration.route_intervals import Estimate
from nbllm.calibration.route_words import sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nbllm.calibration.route_plan import RoutePlan

_SHOWN = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# M. Okabe and K. Ito, Color Universal Design (2008).
_BLUE, _ORANGE, _INK, _FAINT, _RULE, _GROUND = "#0072B2", "#E69F00", "#1f2328", "#545a61", "#d5d9dd", "#f7f8fa"


def html(plan: RoutePlan) -> str:
    """Return the plan as a table of points and its sentences."""
    heads = ("strong calls", "gap recovered", "over random", "over length alone", "quality a call", "USD a call")
    rows = []
    for share in sorted({*_SHOWN, plan.chosen_share}):
        point = plan.at(strong_share=share)
        cells = (point.quality_recovered, point.over_random, point.over_length_only, point.quality, point.cost_usd_per_call)
        chosen = " (chosen)" if share == plan.chosen_share else ""
        rows.append([f"{share:.4g}{chosen}", *(_cell(one) for one in cells)])
    head = "".join(f"<th scope='col' style='text-align:right'>{escape(one)}</th>" for one in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:right;white-space:nowrap'>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    said = "".join(f"<p style='margin:0.2em 0'>{escape(sentence)}</p>" for sentence in sentences(plan))
    caption = "<caption style='text-align:left'>Route plan: value (95% interval)</caption>"
    return f"<div>{said}<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(found: Estimate | None) -> str:
    return "unknown" if found is None else str(found)


def plot(plan: RoutePlan, figure: Figure | None = None) -> Figure:
    """Draw the curve into a figure of its own, or into one that is given and cleared; no pyplot state is touched."""
    from matplotlib.figure import Figure as NewFigure

    if figure is None:
        figure = NewFigure(figsize=(7.2, 4.4), dpi=100, facecolor=_GROUND, layout="constrained")
    figure.clear()
    axes = figure.add_subplot(facecolor=_GROUND)
    if plan.apgr is None:
        _quality(axes, plan)
    else:
        _recovered(axes, plan)
    axes.axvline(100 * plan.chosen_share, color=_FAINT, linewidth=0.9, linestyle=":", label=f"chosen: {plan.chosen_share:.1%}")
    axes.set_xlabel("calls sent to the strong model (%)", color=_INK)
    axes.set_xlim(0, 100)
    axes.grid(color=_RULE, linewidth=0.6)
    axes.tick_params(colors=_FAINT)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="best")
    return figure


def _recovered(axes: Axes, plan: RoutePlan) -> None:
    curve, x = plan.curve, 100 * plan.curve.strong_share
    low, high = (100 * np.nan_to_num(one, posinf=1e3, neginf=-1e3) for one in (curve.recovered_low, curve.recovered_high))
    all_low, all_high = (100 * np.nan_to_num(one, posinf=1e3, neginf=-1e3) for one in (curve.band_low, curve.band_high))
    axes.fill_between(x, all_low, all_high, color=_BLUE, alpha=0.10, linewidth=0, label="95% band for all shares at once")
    axes.fill_between(x, low, high, color=_BLUE, alpha=0.18, linewidth=0, label="95% interval for one share")
    axes.plot(x, 100 * curve.recovered, color=_BLUE, linewidth=2, label=f"route: APGR {plan.apgr}")
    axes.plot(
        x,
        100 * curve.length_recovered,
        color=_ORANGE,
        linewidth=1.6,
        linestyle="--",
        label=f"length alone: {plan.length_only_apgr}",
    )
    axes.plot([0, 100], [0, 100], color=_FAINT, linewidth=1.2, linestyle="-.", label="random choice: 0.5")
    axes.set_ylim(min(-5.0, 100 * float(curve.recovered.min()) - 5), max(110.0, 100 * float(curve.recovered.max()) + 10))
    axes.set_ylabel("quality gap recovered (%)", color=_INK)
    axes.set_title("What a share of strong calls recovers", color=_INK, fontsize=11, loc="left")


def _quality(axes: Axes, plan: RoutePlan) -> None:
    curve, x = plan.curve, 100 * plan.curve.strong_share
    axes.fill_between(x, curve.quality_low, curve.quality_high, color=_BLUE, alpha=0.18, linewidth=0, label="95% interval")
    axes.plot(x, curve.quality, color=_BLUE, linewidth=2, label="route")
    ends = (float(curve.quality[0]), float(curve.quality[-1]))
    axes.plot([0, 100], ends, color=_FAINT, linewidth=1.2, linestyle="-.", label="random choice")
    axes.set_ylabel("quality a call", color=_INK)
    axes.set_title("No gap to recover: strong is not better here", color=_INK, fontsize=11, loc="left")
