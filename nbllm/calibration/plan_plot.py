"""A plan as a picture: what share of hits costs what error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nbllm.calibration.reasons import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nbllm.calibration.plan import ThresholdPlan

_OBSERVED, _CHOSEN, _LIMIT = "#0072B2", "#009E73", "#D55E00"  # Okabe and Ito: told apart by everybody


def drawn(plan: ThresholdPlan) -> Figure:
    """Return a Figure with its own Agg canvas: pyplot, which is one for the process, is not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    draw_on(figure.add_subplot(), plan)
    return figure


def draw_on(ax: Axes, plan: ThresholdPlan) -> Axes:
    """Draw the plan on axes: a band from the error seen to its bound, what was asked for, and the threshold chosen."""
    curve = plan.curve
    chosen = "refused" if plan.threshold is None else f"score at least {plan.threshold:g}"
    ax.set_title(f"Wrong hits by share of hits: {chosen}, n = {plan.n:,}", loc="left", fontsize=11)
    ax.set_xlabel("share of would-be hits that are served")
    ax.set_ylabel("share of these that are wrong")
    ax.xaxis.set_major_formatter(lambda value, _: percent(value))
    ax.yaxis.set_major_formatter(lambda value, _: percent(value))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, min(1.0, max(4 * plan.max_error, 1.15 * float(np.max(curve.error_rate, initial=0.0)))))
    if len(curve):
        label = f"up to the bound, all at once with {percent(plan.confidence)}"
        ax.fill_between(curve.hit_rate, curve.error_rate, curve.error_upper, color=_OBSERVED, alpha=0.18, linewidth=0, label=label)
        ax.plot(curve.hit_rate, curve.error_rate, color=_OBSERVED, linewidth=2, label="seen on the labels")
    ax.axhline(plan.max_error, color=_LIMIT, linestyle="--", linewidth=1.5, label=f"asked for: at most {percent(plan.max_error)}")
    if plan.hit_rate is not None and plan.error_upper is not None:
        ax.plot(
            [plan.hit_rate], [plan.error_upper], "o", markersize=9, color=_CHOSEN,
            label=f"chosen: {percent(plan.hit_rate)} served, at most {percent(plan.error_upper)} wrong",
        )  # fmt: skip
    ax.legend(loc="best", framealpha=0.85, edgecolor="none", fontsize=9)
    return ax
