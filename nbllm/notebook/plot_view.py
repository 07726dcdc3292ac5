"""A plot as a magic shows it: a PNG for the eye, its numbers as text for everything else."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from IPython.core.error import UsageError
from matplotlib.figure import Figure

from nbllm.core.ports import Filter, Series
from nbllm.notebook import plots, style

_SINGLE: dict[str, Callable[..., Any]] = {
    "cost": plots.cost,
    "cache": plots.cache,
    "tokens": plots.tokens,
    "timeline": plots.timeline,
    "breakeven": plots.breakeven,
}
_BY_SOURCE: dict[str, Callable[..., Any]] = {"latency": plots.latency, "ttft": plots.ttft}
_FORMATS = (".png", ".svg", ".pdf")


def figure(kind: str, series: Series, **options: Any) -> Figure:
    """Return the figure of one kind of plot: latency and ttft have hits on axes of their own, as soon as there are any.

    options: what else the kind's function takes.
    """
    draw = _BY_SOURCE.get(kind)
    if draw is None:
        made, axes = style.new_figure()
        _SINGLE[kind](axes[0], series, **options)
        return made
    times = series.ttft_s if kind == "ttft" else series.latency_s
    hits = bool(np.any(series.hit & ~series.failed & ~np.isnan(times)))
    made, axes = style.new_figure((1.1, 1.0) if hits else (1.0,))
    for ax, of in zip(axes, ("model", "hits"), strict=False):
        draw(ax, series, of=of)
    if hits:
        axes[1].set_ylabel("")
    return made


class PlotView:
    """One figure that shows itself. figure: the matplotlib figure, for further work on it. text: what it says, in words."""

    def __init__(self, kind: str, made: Figure, saved: str = "") -> None:
        self.figure = made
        self.text = _in_words(kind, made) + (f"\nSaved to {saved}" if saved else "")

    def png(self) -> bytes:
        """Return the image, sharp on dense screens."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=self.figure.dpi * style.SHARPNESS)
        return buffer.getvalue()

    def __repr__(self) -> str:
        """Return the numbers as text."""
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # IPython's protocol: include and exclude
        width, height = (int(side * self.figure.dpi) for side in self.figure.get_size_inches())
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": self.text}
        return data, {"image/png": {"width": width, "height": height}}


def plot_view(
    kind: str, client: Any, where: Filter, *, save: str | None = None, options: Mapping[str, Any] | None = None
) -> PlotView:
    """Return the plot of the calls that fit, and write it to a file where asked to; UsageError when the file cannot be.

    options: as in `figure`.
    """
    made = figure(kind, client.ledger.series(where, costs=kind in {"cost", "breakeven"}), **(options or {}))
    return saved(kind, made, save)


def saved(kind: str, made: Figure, save: str | None) -> PlotView:
    """Return the view of a figure, written to a file where asked to."""
    if save:
        path = Path(save).expanduser()
        if path.suffix.lower() not in _FORMATS:
            raise UsageError(f"--save {save}: the name must end in {', '.join(_FORMATS)}.")
        try:
            made.savefig(path, dpi=made.dpi * style.SHARPNESS, facecolor=style.GROUND)
        except OSError as error:
            raise UsageError(f"--save {save}: it could not be written: {error.strerror or error}.") from None
    return PlotView(kind, made, save or "")


def _in_words(kind: str, made: Figure) -> str:
    """Return titles, numbers, legends and written values of all axes as lines of text."""
    lines = []
    for ax in made.axes:
        numbers = [text.get_text() for text in ax.texts if text.get_gid() == style.SUBTITLE]
        lines.append(f"{ax.get_title(loc='left')}: {' '.join(numbers)}")
        box = ax.get_legend()
        if box is not None:
            lines.append("  " + " · ".join(" ".join(text.get_text().split()) for text in box.get_texts()))
        written = [" ".join(text.get_text().split()) for text in ax.texts if text.get_gid() != style.SUBTITLE]
        names = [tick.get_text() for tick in ax.get_yticklabels()] if kind == "tokens" and len(written) > 1 else []
        lines += [f"  {name}: {said}" for name, said in zip(names, written, strict=False)] or [f"  {said}" for said in written]
    return "\n".join(lines)
