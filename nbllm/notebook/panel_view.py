"""A panel on the page: widgets where a person can move them, else its picture and its numbers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

from nbllm.core.safe_markdown import escape_html
from nbllm.notebook.panel_content import Content
from nbllm.notebook.panel_figure import WIDTH_PX
from nbllm.notebook.views import View

Audience = Literal["widgets", "page", "terminal"]
_HERE = "Open this notebook where widgets work, with a kernel, to move the sliders: JupyterLab, Notebook 7, VS Code."


def audience_of(shell: Any) -> Audience:
    """Return who looks at the output: somebody who can move widgets, a reader of a page that a program runs, or a terminal.

    nbclient, papermill and nbconvert ask for no input and say so with each cell; JupyterLab, Notebook 7 and VS Code do.
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "terminal"
    return "widgets" if getattr(kernel, "_allow_stdin", True) else "page"


class PanelView:
    """A panel that shows itself, and its numbers where the sliders stood first. panel: its widgets, None without any.

    more: makes widgets of the content's own, called where widgets are shown.
    """

    def __init__(self, content: Content, audience: Audience, more: Callable[[], Sequence[Any]] = tuple) -> None:
        self.content = content
        self._audience = audience
        self._more = more
        self.panel: Any = None

    @property
    def view(self) -> View:
        """The numbers where the sliders stand first, with what the panel says."""
        values = tuple(slider.value for slider in self.content.sliders)
        found = self.content.numbers(values)
        where = () if self._audience == "widgets" else (_HERE,)
        return View(f"{self.content.title}: {found.title[0].lower()}{found.title[1:]}", found.blocks, (*self.content.notes, *where))

    def png(self) -> bytes:
        """The picture where the sliders stand first."""
        figure = self.content.figure()
        self.content.move(figure, tuple(slider.value for slider in self.content.sliders))
        return figure.png()

    def __repr__(self) -> str:
        """Return the numbers as text."""
        return str(self.view)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self._audience == "terminal":
            print(self.view)  # noqa: T201 - a terminal is where print belongs
            return
        if self._audience == "widgets":
            from nbllm.notebook.panel import Panel

            self.panel = Panel(self.content, self._more())
            shown = {**self.panel.box._repr_mimebundle_(), "text/plain": str(self.view)}
            display(shown, raw=True)  # type: ignore[no-untyped-call]  # untyped in IPython
            picture = self.panel.image.value
            display({"text/html": self._folded(picture), "text/plain": f"{self.content.title}: see above"}, raw=True)  # type: ignore[no-untyped-call]
            return
        display(self.view)  # type: ignore[no-untyped-call]
        size = {"width": WIDTH_PX, "height": self.content.height_px}
        display({"image/png": base64.b64encode(self.png()).decode(), "text/plain": f"Figure: {self.content.title}"},
                raw=True, metadata={"image/png": size})  # type: ignore[no-untyped-call]  # fmt: skip

    def _folded(self, picture: bytes) -> str:
        """Return picture and numbers as a line that opens: for readers of the saved notebook, who have no widgets."""
        source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        image = f'<img alt="{escape_html(self.content.title)}" width="{WIDTH_PX}" src="{source}">'
        style = "color:var(--jp-ui-font-color2,inherit);cursor:pointer;font-size:0.92em"
        return (
            f'<details><summary style="{style}">The same for readers without widgets</summary>{image}{self.view.html()}</details>'
        )
