"""What a panel is made of, apart from widgets: sliders as data, numbers as a view, a figure, and what Apply writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nbllm.notebook.panel_figure import LiveFigure
from nbllm.notebook.views import View

Values = tuple[float, ...]
"""Where the sliders stand, in their order."""


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider that stands at one of some values. label: in words, with unit. options: (text, value), ascending. start: index."""

    label: str
    options: tuple[tuple[str, float], ...]
    start: int

    @property
    def value(self) -> float:
        """Where it stands first."""
        return self.options[self.start][1]


def nearest(options: Sequence[tuple[str, float]], value: float) -> int:
    """Return the index of the option nearest to a value."""
    return min(range(len(options)), key=lambda index: abs(options[index][1] - value))


class Content(Protocol):
    """One kind of panel, with its data read. All methods but `apply` are pure, and quick enough for each move of a slider."""

    title: str
    sliders: tuple[Slider, ...]
    notes: tuple[str, ...]
    """Sentences above the sliders: what is shown, that it is a simulated example, how to get data."""
    can_apply: bool
    """False for an example."""
    height_px: int
    """Height of its figure."""
    consent: str
    """What a person can agree to with a tick, without which `apply` refuses some or all settings; "" for nothing."""

    def numbers(self, values: Values) -> View:
        """Return the numbers of a setting as text."""

    def figure(self) -> LiveFigure:
        """Return a new figure, ground drawn, with marks of its own."""

    def move(self, figure: LiveFigure, values: Values) -> None:
        """Put the marks of a figure of this content where the sliders stand."""

    def settings(self, values: Values) -> Mapping[str, Any]:
        """Return the settings as flat names, as they would be written into nbllm.toml."""

    def apply(self, values: Values, *, consented: bool = False) -> str:
        """Write the setting and put it in force; return what was done, in words, with the diff. Raises NbllmError."""


def applied(client: Any, settings: Mapping[str, Any], *, before_writing: Any = None) -> str:
    """Write settings into the settings file and put them in force in this session; return the diff and what was done.

    The file comes first only in so far as it must be writable: before_writing, which may raise, runs in between. Raises NbllmError;
    then the file is as it was.
    """
    from nbllm.settings.writing import changed

    change = changed(settings)
    change.check()
    before = client.settings
    if before_writing is None:
        client.configure("%llm_panel", **settings)
    else:
        before_writing()
    try:
        change.write()
    except Exception:
        client.configure("%llm_panel", **{name: before.flat().get(name) for name in settings})
        raise
    if not change.diff:
        return f"Applied for this session; {change.path} says so already."
    return f"Applied, for this session and in {change.path}:\n\n{change.diff}"
