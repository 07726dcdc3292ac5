"""One style for all plots: the Okabe-Ito colours, quiet axes, text that reads at notebook width.

The figure is a light card with round corners and a thin edge, so that it reads the same in a light theme, in a dark one, on paper
and in an exported page: text of a colour that passes in both themes would be faint in each. Nothing lies over data: title, numbers
and legend stand above the axes. Colour never stands alone: lines differ in dash, bars in hatching, points in shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import BoxStyle, FancyBboxPatch

# M. Okabe and K. Ito, Color Universal Design (2008): told apart with every common kind of colour vision.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, FAINT, RULE, GROUND, EDGE = "#1f2328", "#545a61", "#d5d9dd", "#f7f8fa", "#c9ced4"

WIDTH_PX, HEIGHT_PX = 720, 400
_CORNER_IN, _EDGE_PT, _ROW_PT = 0.1, 0.8, 15
_DPI = 100
SUBTITLE = "nbllm-subtitle"
"""Id of the text that holds a plot's numbers."""
SHARPNESS = 2
"""Image pixels per shown pixel, so that text is sharp on dense screens."""


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


def new_figure(
    columns: tuple[float, ...] = (1.0,), height_px: int = HEIGHT_PX, *, width_px: int = WIDTH_PX, rows: tuple[float, ...] = (1.0,)
) -> tuple[Figure, list[Axes]]:
    """Return a figure of notebook width and its axes, row by row, in the given proportions. No pyplot state is touched."""
    figure = Figure(
        figsize=(width_px / _DPI, height_px / _DPI),
        dpi=_DPI,
        facecolor="none",
        layout=ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14),
    )
    FigureCanvasAgg(figure)
    figure.add_artist(_card(figure))
    axes = figure.subplots(len(rows), len(columns), width_ratios=columns, height_ratios=rows, squeeze=False)
    return figure, [ax for row in axes for ax in row]


def _card(figure: Figure) -> FancyBboxPatch:
    """Return the ground of a figure: round corners, a thin edge, just inside of the image."""
    width, height = figure.get_size_inches()
    inset = _EDGE_PT / 72
    card = FancyBboxPatch(
        (inset, inset),
        width - 2 * inset,
        height - 2 * inset,
        boxstyle=BoxStyle.Round(pad=0, rounding_size=_CORNER_IN),
        transform=figure.dpi_scale_trans,
        facecolor=GROUND,
        edgecolor=EDGE,
        linewidth=_EDGE_PT,
        zorder=-1,
    )
    card.set_in_layout(False)
    return card


def dress(
    ax: Axes, title: str, subtitle: str, x: str, y: str, *, grid: Literal["x", "y", "both"] = "both", rows: int | None = None
) -> Axes:
    """Give axes their title, the numbers under it, room for a legend, labels with units, and the quiet look; return them.

    rows: of the legend, as in `legend`.
    """
    rows = rows or _legend_rows(ax)
    ax.set_facecolor("none")
    ax.set_title(title, loc="left", fontsize=12, color=INK, pad=30 + _ROW_PT * rows, fontweight="bold", parse_math=False)
    ax.annotate(subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 13 + _ROW_PT * rows), textcoords="offset points",
                fontsize=10, color=FAINT, parse_math=False, gid=SUBTITLE)  # fmt: skip
    ax.set_xlabel(x, fontsize=10, color=FAINT)
    ax.set_ylabel(y, fontsize=10, color=FAINT)
    ax.tick_params(colors=FAINT, labelsize=9.5, length=3)
    ax.tick_params(which="minor", colors=FAINT, labelsize=9.5, length=2)
    for side, spine in ax.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(RULE)
    ax.grid(visible=True, axis=grid, color=RULE, linewidth=0.7, alpha=0.8)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, rows: int | None = None) -> None:
    """Add a legend above the axes, under the numbers: it never hides data. rows: None for as many as their width asks for."""
    handles, labels = ax.get_legend_handles_labels()
    points = all(isinstance(handle, Line2D) and handle.get_linestyle() == "None" for handle in handles)
    columns = -(-len(labels) // (rows or _legend_rows(ax))) or 1
    box = ax.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
        fontsize=9.5, labelcolor=INK, borderaxespad=0.35, borderpad=0, handlelength=0.6 if points else 1.6,
        handletextpad=0.45, columnspacing=1.1, labelspacing=0.25,
    )  # fmt: skip
    # The title's distance makes room for it; a layout that made room for its width could leave none for narrow axes.
    box.set_in_layout(False)


def _legend_rows(ax: Axes) -> int:
    """Return on how many rows a legend stands: axes that share a figure are too narrow for one."""
    figure = ax.get_figure(root=True)
    return 2 if figure is not None and len(figure.axes) > 1 else 1


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
