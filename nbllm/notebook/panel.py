"""A panel as widgets: left its controls, right one figure, below it the numbers as text; Apply, Reset, Copy settings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from nbllm.core.safe_markdown import escape_html
from nbllm.errors import NbllmError
from nbllm.notebook.latest import Latest
from nbllm.notebook.panel_content import Content, Values
from nbllm.notebook.panel_figure import WIDTH_PX
from nbllm.settings.writing import as_toml

_LEFT_PX = 300
_PRE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0.3em 0;font-size:0.92em;line-height:1.35"
# Copies where the page lets it, and marks the text in any case, so that Ctrl+C does. No text of a person is part of the script.
_COPY = (
    "var t=this.parentNode.querySelector('pre');t.hidden=false;getSelection().selectAllChildren(t);"
    "if(navigator.clipboard)navigator.clipboard.writeText(t.textContent).catch(function(){})"
)


class Panel:
    """The widgets of one Content. `box` is what is displayed; the rest is there to be looked at.

    more: widgets below the figure, of the content's own.
    """

    def __init__(self, content: Content, more: Sequence[Any] = ()) -> None:
        self.content = content
        self.sliders = tuple(_slider(one) for one in content.sliders)
        self.image = widgets.Image(
            format="png", layout={"width": "100%", "max_width": f"{WIDTH_PX}px", "margin": "0", "object_fit": "contain"}
        )
        self.numbers = widgets.HTML()
        self.said = widgets.HTML()
        self.copy = widgets.HTML()
        self.consent = widgets.Checkbox(value=False, indent=False, description=content.consent, layout={"width": "auto"})
        self.apply = widgets.Button(description="Apply", button_style="primary", disabled=not content.can_apply,
                                    tooltip="Write the setting and use it from now on")  # fmt: skip
        self.reset = widgets.Button(description="Reset", tooltip="Back to where the sliders stood first")
        self._figure = content.figure()
        self._applying = threading.Lock()
        self._show = Latest[Values](self._shown)
        for slider in self.sliders:
            slider.observe(self._moved, "value")
        self.apply.on_click(self._apply)
        self.reset.on_click(self._reset)
        self.box = self._laid_out(more)
        self._show(self.values)

    @property
    def values(self) -> Values:
        """Where the sliders stand."""
        return tuple(slider.value for slider in self.sliders)

    def say(self, text: str, *, wrong: bool = False) -> None:
        """Show a text below the buttons; screen readers read it out."""
        colour = "color:var(--jp-error-color0,#a1260d);" if wrong else ""
        self.said.value = f'<pre role="status" style="{_PRE};{colour}">{escape_html(text)}</pre>' if text else ""

    def _laid_out(self, more: Sequence[Any]) -> Any:
        notes = "".join(f'<p style="margin:0 0 0.5em;line-height:1.35">{escape_html(note)}</p>' for note in self.content.notes)
        head = f'<h4 style="margin:0.2em 0 0.4em">{escape_html(self.content.title)}</h4>{notes}'
        buttons = widgets.HBox([self.apply, self.reset, self.copy], layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        for button in (self.apply, self.reset):
            button.layout.width = "84px"
        consent = [self.consent] if self.content.consent else []
        labelled = [part for one, slider in zip(self.content.sliders, self.sliders, strict=True) for part in (_label(one), slider)]
        left = widgets.VBox([widgets.HTML(head), *labelled, *consent, buttons, self.said],
                            layout={"flex": f"1 1 {_LEFT_PX}px", "max_width": "440px", "min_width": "240px"})  # fmt: skip
        wide = {"flex": f"2 1 {_LEFT_PX + 40}px", "max_width": f"{WIDTH_PX + 16}px", "min_width": "240px"}
        right = widgets.VBox([self.image, self.numbers], layout=wide)
        row = widgets.Box(
            [left, right], layout={"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start", "grid_gap": "16px"}
        )
        return widgets.VBox([row, *more])

    # ------------------------------------------------------------------ what happens

    def _moved(self, _: Any) -> None:
        self._show(self.values)

    def _shown(self, values: Values) -> None:
        """Show a setting. Only ever in one thread at a time (Latest)."""
        self.content.move(self._figure, values)
        self.image.value = self._figure.png()
        self.numbers.value = f'<div style="line-height:1.4">{self.content.numbers(values).html()}</div>'
        self.copy.value = _copy_button(as_toml(self.content.settings(values)))
        self.say("")

    def _apply(self, _: Any) -> None:
        if not self._applying.acquire(blocking=False):
            return
        try:
            self.say(self.content.apply(self.values, consented=self.consent.value))
        except NbllmError as error:
            self.say(str(error), wrong=True)
        finally:
            self._applying.release()

    def _reset(self, _: Any) -> None:
        for slider, first in zip(self.sliders, self.content.sliders, strict=True):
            slider.value = first.value


def _slider(declared: Any) -> Any:
    return widgets.SelectionSlider(
        options=declared.options, value=declared.value, continuous_update=True, tooltip=declared.label,
        layout={"width": "100%", "margin": "0"},
    )  # fmt: skip


def _label(declared: Any) -> Any:
    """Return a slider's label on a line of its own: it is a sentence."""
    return widgets.HTML(f'<p style="line-height:1.35;margin:0">{escape_html(declared.label)}</p>', layout={"margin": "6px 2px 0"})


def _copy_button(toml: str) -> str:
    return (
        '<div style="margin-left:2px"><button type="button" class="jupyter-button widget-button" style="width:auto" '
        f'onclick="{_COPY}">Copy settings</button>'
        f'<pre hidden tabindex="0" style="{_PRE};user-select:all">{escape_html(toml)}</pre></div>'
    )
