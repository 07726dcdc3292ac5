"""%llm_label: matches worth a label, one after the other: question, stored answer and the model's side by side, one key each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nbllm.core.ports.matches import Match
from nbllm.core.safe_markdown import escape_html
from nbllm.errors import NbllmError
from nbllm.notebook import wording
from nbllm.notebook.safe_text import clipped
from nbllm.notebook.views import Text, View

KEYS = {"y": "right", "n": "wrong", "s": "skip", "q": "stop"}
_ASK = "Would the stored answer have been right for this question?"
_NONE = (
    "Nothing waits for a label. In shadow the semantic cache records what it would have served: "
    "%llm_config semantic_cache.mode=shadow, then work as ever."
)
_CODE = (
    "Label in code: matches = nbllm.get_client().semantic.to_label(10), then nbllm.get_client().semantic.label(matches[0], "
    "correct=True). In JupyterLab, Notebook 7, VS Code and IPython, %llm_label asks one by one."
)


class Sitting:
    """One sitting of labelling: which match is asked about, and what was said. Knows no face."""

    def __init__(self, book: Any, limit: int) -> None:
        self._book = book
        self.matches: Sequence[Match] = book.to_label(limit)
        self.at = 0
        self.counts = {"right": 0, "wrong": 0, "skip": 0}

    @property
    def match(self) -> Match | None:
        """What is asked about now; None when all is said."""
        return self.matches[self.at] if self.at < len(self.matches) else None

    def press(self, key: str) -> bool:
        """Take a key, y, n, s or q, and return whether it was one. Raises NbllmError; then the same match is asked about again."""
        said, match = KEYS.get(key.strip().lower()), self.match
        if said is None or match is None:
            return False
        if said == "stop":
            self.at = len(self.matches)
            return True
        if said != "skip":
            self._book.label(match, said == "right")
        self.counts[said] += 1
        self.at += 1
        return True

    @property
    def summary(self) -> str:
        """What was done, and what comes next."""
        if not self.matches:
            return _NONE
        made = self.counts["right"] + self.counts["wrong"]
        skipped = f", {self.counts['skip']} skipped" if self.counts["skip"] else ""
        done = f"{wording.plural(made, 'label')}: {self.counts['right']} right, {self.counts['wrong']} wrong{skipped}."
        waiting = self._book.waiting()
        more = f" {wording.plural(waiting, 'match', 'matches')} still wait." if waiting else ""
        return f"{done}{more} %llm_panel semantic_cache shows what they say; each look at new labels spends some of the confidence."

    @property
    def place(self) -> str:
        """Which one of how many."""
        return f"{self.at + 1} of {len(self.matches)}"


def texts_of(match: Match) -> tuple[tuple[str, str], ...]:
    """Return a match as captions and texts."""
    got = "(the model was not asked)" if match.got is None else match.got
    return (("The question", match.query), (f"An earlier question, similarity {match.score:.3f}", match.question),
            ("The answer that is stored for the earlier question", match.would),
            ("What the model said to this question", got))  # fmt: skip


def static_view(sitting: Sitting) -> View:
    """Return what there is to label as a list, with the code that does it."""
    if sitting.match is None:
        return View("Nothing to label", (), (_NONE,))
    blocks = tuple(
        Text(f"[{number}] {caption}", text) for number, match in enumerate(sitting.matches) for caption, text in texts_of(match)
    )
    return View(f"{wording.plural(len(sitting.matches), 'match', 'matches')} to label", blocks, (_CODE,))


def in_terminal(sitting: Sitting, ask: Callable[[str], str], write: Callable[[str], object]) -> None:
    """Ask in a terminal until all is said, or q, Ctrl-D or Ctrl-C."""
    while (match := sitting.match) is not None:
        view = View(f"{sitting.place}. {_ASK}", tuple(Text(caption, text) for caption, text in texts_of(match)))
        write(f"{view}\n")
        try:
            while not sitting.press(ask("y right, n wrong, s skip, q stop: ")):
                write("One of y, n, s and q, please.\n")
        except (EOFError, KeyboardInterrupt):
            sitting.press("q")
    write(f"{sitting.summary}\n")


class LabelBox:
    """The sitting as widgets: two answers side by side, four buttons, and a field that takes the keys. `box` is displayed."""

    def __init__(self, sitting: Sitting, label: Callable[[str], None] | None = None) -> None:
        import ipywidgets as widgets

        self.sitting = sitting
        self._told = label
        self.shown = widgets.HTML()
        self.said = widgets.HTML()
        self.buttons = {
            key: widgets.Button(description=f"{word.capitalize()} ({key})", layout={"width": "auto"}) for key, word in KEYS.items()
        }
        self.buttons["y"].button_style, self.buttons["n"].button_style = "success", "danger"
        self.field = widgets.Text(placeholder="or type y n s q here", continuous_update=True, description="Keys",
                                  layout={"width": "250px"}, style={"description_width": "40px"})  # fmt: skip
        for key, button in self.buttons.items():
            button.on_click(lambda _, key=key: self.press(key))
        self.field.observe(self._typed, "value")
        row = widgets.HBox([*self.buttons.values(), self.field], layout={"flex_flow": "row wrap"})
        self.row = row
        self.box = widgets.VBox([self.shown, row, self.said])
        self._show()

    def press(self, key: str) -> None:
        """Take a key."""
        problem = ""
        try:
            self.sitting.press(key)
        except NbllmError as error:
            problem = str(error)
        self._show(problem)
        if self._told is not None:
            self._told(key)

    def _typed(self, change: Any) -> None:
        for key in str(change["new"]):
            if key.lower() in KEYS:
                self.press(key.lower())
        if change["new"]:
            self.field.value = ""

    def _show(self, problem: str = "") -> None:
        match = self.sitting.match
        self.shown.value = "" if match is None else _side_by_side(self.sitting.place, match)
        self.said.value = f'<span role="status">{escape_html(problem or ("" if match else self.sitting.summary))}</span>'
        self.row.layout.display = "none" if match is None else ""


def _side_by_side(place: str, match: Match) -> str:
    pre = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:0.2em 0 0.6em;max-height:16em;overflow:auto"

    def part(caption: str, text: str) -> str:
        return (
            f'<div style="flex:1 1 260px;min-width:0"><p style="margin:0.4em 0 0;color:var(--jp-ui-font-color2,inherit)">'
            f'{escape_html(caption)}</p><pre style="{pre}">{escape_html(clipped(text))}</pre></div>'
        )

    query, question, would, got = (part(caption, text) for caption, text in texts_of(match))
    row = '<div style="display:flex;flex-wrap:wrap;gap:1.2em">'
    head = f'<p style="margin:0.3em 0;line-height:1.35"><strong>{escape_html(place)}. {escape_html(_ASK)}</strong></p>'
    return f'<div class="mathjax_ignore tex2jax_ignore">{head}{row}{query}{question}</div>{row}{would}{got}</div></div>'


class LabelView:
    """A sitting that shows itself: as widgets, or as a list with the code to label."""

    def __init__(self, sitting: Sitting, *, live: bool) -> None:
        self.sitting = sitting
        self._live = live
        self.box: LabelBox | None = None

    def __repr__(self) -> str:
        """Return the list as plain text."""
        return str(static_view(self.sitting))

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if not self._live:
            display(static_view(self.sitting))  # type: ignore[no-untyped-call]  # untyped in IPython
            return
        self.box = LabelBox(self.sitting)
        shown = {**self.box.box._repr_mimebundle_(), "text/plain": repr(self)}
        display(shown, raw=True)  # type: ignore[no-untyped-call]  # same
