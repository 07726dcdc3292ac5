"""One style for all plots: the Okabe-Ito colours, quiet axes, text that reads at notebook width.

The figure has its own light ground, so that it reads the same in a dark theme, on paper and in an exported page. Colour never
stands alone: lines differ in dash, bars in hatching, points in shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# M. Okabe and K. Ito, Color Universal Design (2008): told apart with every common kind of colour vision.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, FAINT, RULE, GROUND = "#1a1a1a", "#595959", "#d9d9d9", "#fdfdfb"

WIDTH_PX, HEIGHT_PX = 720, 380
_DPI = 100
SUBTITLE = "nbllm-subtitle"
"""Id of the text that holds a plot's numbers."""
SHARPNESS = 2
"""Image pixels per shown pixel, so that text is sharp on dense screens."""


Place = Literal["best", "upper left", "upper right", "lower right", "center right"]


@dataclass(frozen=True, slots=True)
class Look:
    """How one kind of data is drawn: the same in every plot."""

    label: str
    colour: str
    dash: Literal["-", "--", ":", "-."]
    marker: str
    hatch: str


MODEL = Look("model calls", BLUE, "-", "o", "")
HIT = Look("cache hits", ORANGE, "--", "^", "///")
FAILED = Look("failed", VERMILLION, ":", "x", "xx")
SAVED = Look("saved by hits", GREEN, "--", "s", "...")


def new_figure(columns: tuple[float, ...] = (1.0,), height_px: int = HEIGHT_PX) -> tuple[Figure, list[Axes]]:
    """Return a figure of notebook width with axes side by side, widths in the given proportions. No pyplot state is touched."""
    figure = Figure(
        figsize=(WIDTH_PX / _DPI, height_px / _DPI),
        dpi=_DPI,
        facecolor=GROUND,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)
    return figure, list(axes[0])


def dress(ax: Axes, title: str, subtitle: str, x: str, y: str, *, grid: Literal["x", "y", "both"] = "both") -> Axes:
    """Give axes their title, the numbers under it, labels with units, and the quiet look; return them."""
    ax.set_facecolor(GROUND)
    ax.set_title(title, loc="left", fontsize=12, color=INK, pad=24, fontweight="bold", parse_math=False)
    ax.annotate(subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", fontsize=10, color=FAINT,
                parse_math=False, gid=SUBTITLE)  # fmt: skip
    ax.set_xlabel(x, fontsize=10, color=FAINT)
    ax.set_ylabel(y, fontsize=10, color=FAINT)
    ax.tick_params(colors=FAINT, labelsize=9.5, length=3)
    for side, spine in ax.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(RULE)
    ax.grid(visible=True, axis=grid, color=RULE, linewidth=0.7, alpha=0.8)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, place: Place = "best", *, columns: int = 1) -> None:
    """Add a legend without a frame's weight, over a ground that keeps it readable on lines."""
    box = ax.legend(
        loc=place, fontsize=9.5, frameon=True, framealpha=0.9, edgecolor="none", facecolor=GROUND, labelcolor=INK, ncols=columns
    )
    box.set_zorder(5)


def say(ax: Axes, text: str) -> Axes:
    """Put a sentence in the middle of empty axes, in place of data; return them."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=10.5, color=FAINT, linespacing=1.6)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("")
    ax.set_ylabel("")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.grid(visible=False)
    return ax
