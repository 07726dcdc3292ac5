"""A figure that is redrawn while a slider moves: its ground is drawn once, and only what moves is drawn again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D

from nbllm.notebook import style

WIDTH_PX, HEIGHT_PX = 600, 430
_MARKS: dict[str, Any] = {"color": style.INK, "animated": True, "zorder": 6}


class LiveFigure:
    """A figure in three steps: make it, draw its ground (`ground`), then move marks and take a picture (`png`) as often as needed.

    Not for two threads at once. A whole drawing takes 70 to 170 ms here, most of it text; moving marks on a kept ground and
    encoding takes a third of that, so that a slider is followed.
    """

    def __init__(self, *, height_px: int = HEIGHT_PX, rows: tuple[float, ...] = (1.0,)) -> None:
        self.figure: Figure
        self.figure, self.axes = style.new_figure(height_px=height_px, width_px=WIDTH_PX, rows=rows)
        self.height_px = height_px
        self._moving: list[tuple[Axes, Artist]] = []
        self._ground: Any = None

    def line(self, ax: Axes, colour: str = style.INK, dash: str = "-") -> Line2D:
        """Return a vertical line across axes that follows a setting."""
        made = ax.axvline(ax.get_xlim()[0], linewidth=1.4, **{**_MARKS, "color": colour, "linestyle": dash})
        self._moving.append((ax, made))
        return made

    def point(self, ax: Axes, colour: str, marker: str = "o") -> Line2D:
        """Return a point that follows a setting."""
        (made,) = ax.plot([], [], marker, markersize=8, markeredgecolor=style.GROUND, **{**_MARKS, "color": colour})
        self._moving.append((ax, made))
        return made

    def bar(self, ax: Axes, colour: str) -> Line2D:
        """Return an interval that follows a setting: a thick line from its low end to its high end."""
        (made,) = ax.plot([], [], "-", linewidth=5, alpha=0.55, solid_capstyle="butt", **{**_MARKS, "color": colour, "zorder": 5})
        self._moving.append((ax, made))
        return made

    def png(self) -> bytes:
        """Return the picture with the marks where they are now."""
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)  # noqa: S101  style.new_figure makes it so
        if self._ground is None:
            self.figure.set_dpi(self.figure.dpi * style.SHARPNESS)
            canvas.draw()  # type: ignore[no-untyped-call]  # untyped in matplotlib
            self.figure.set_layout_engine("none")
            self._ground = canvas.copy_from_bbox(self.figure.bbox)  # type: ignore[no-untyped-call]  # same
        canvas.restore_region(self._ground)  # type: ignore[no-untyped-call]  # same
        for ax, artist in self._moving:
            ax.draw_artist(artist)
        picture = io.BytesIO()
        # Little compression: it goes through a socket of this machine, and time is what a slider has not got.
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # same
        imsave(picture, pixels, format="png", pil_kwargs={"compress_level": 1})
        return picture.getvalue()


def put(mark: Line2D, x: float | Sequence[float], y: float | Sequence[float] | None) -> None:
    """Move a mark; None, or a value that is not finite, hides it."""
    xs, ys = (np.atleast_1d(np.asarray(np.nan if v is None else v, dtype=float)) for v in (x, y))
    mark.set_data(xs, ys)
    mark.set_visible(bool(np.isfinite(xs).all() and np.isfinite(ys).all()))
