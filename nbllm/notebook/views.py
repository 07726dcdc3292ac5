"""Tables and texts that show themselves: plain text for terminals, HTML and Markdown for notebooks.

HTML and Markdown hold our own words and numbers and escaped text only: no formula, link or tag of somebody else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbllm.core.safe_markdown import escape_html
from nbllm.notebook.answer_view import fenced
from nbllm.notebook.safe_text import clipped, plain

WIDTH = 80
_CELL = (
    "padding:0.2em 0.9em 0.2em 0;border:0;border-bottom:1px solid var(--jp-border-color3,rgba(128,128,128,0.25));"
    "vertical-align:top;"
)
_FAINT = "color:var(--jp-ui-font-color2,inherit);"
_MIN_COLUMN, _MIN_SENTENCE = 8, 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, and whether it holds numbers (aligned right)."""

    head: str
    number: bool = False


def columns(*heads: str) -> tuple[Column, ...]:
    """Return columns with these heads; one that begins with # holds numbers."""
    return tuple(Column(head.removeprefix("#"), number=head.startswith("#")) for head in heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts under heads, or without any where all heads are "". caption: what they are. empty: what to say without rows."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    empty: str = ""

    def plain(self) -> str:
        """Return the table as text, at most 80 columns wide where that is possible."""
        head = f"{textwrap.fill(plain(self.caption), WIDTH)}\n" if self.caption else ""
        if not self.rows:
            return head + textwrap.fill(self.empty, WIDTH)
        cells = [[c.head for c in self.columns], *([plain(cell).replace("\n", " ") for cell in row] for row in self.rows)]
        widths = _fitted([max(len(row[i]) for row in cells) for i in range(len(self.columns))], self.columns)
        lines = [line for row in cells for line in _lines(row, widths, self.columns)]
        lines[:1] = [lines[0], "  ".join("─" * width for width in widths)] if self._headed else []
        return head + "\n".join(lines)

    @property
    def _headed(self) -> bool:
        return any(column.head for column in self.columns)

    def html(self) -> str:
        """Return the table as HTML."""
        head = (
            f'<caption style="caption-side:top;text-align:left;padding:0.3em 0">{_escaped(self.caption)}</caption>'
            if self.caption
            else ""
        )
        if not self.rows:
            return (f"<p>{_escaped(self.caption)}</p>" if self.caption else "") + f"<p>{_escaped(self.empty)}</p>"
        heads = "".join(f'<th scope="col" style="{_CELL}{_align(c)}font-weight:600">{_escaped(c.head)}</th>' for c in self.columns)
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td style="{_CELL}{_align(c)}{_least(c, cell)}">{_escaped(cell)}</td>'
                for c, cell in zip(self.columns, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        return (
            '<table style="border-collapse:collapse;border:0;font-variant-numeric:tabular-nums;margin:0.3em 0">'
            f"{head}{f'<thead><tr>{heads}</tr></thead>' if self._headed else ''}<tbody>{rows}</tbody></table>"
        )

    def markdown(self) -> str:
        """Return the table as Markdown."""
        head = f"{_inline(self.caption)}\n\n" if self.caption else ""
        if not self.rows:
            return head + _inline(self.empty)
        lines = [
            "| " + " | ".join(_inline(c.head) or " " for c in self.columns) + " |",
            "|" + "|".join("--:" if c.number else ":--" for c in self.columns) + "|",
            *("| " + " | ".join(_inline(cell) or " " for cell in row) + " |" for row in self.rows),
        ]
        return head + "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Text:
    """A recorded text under a caption, shown as it is."""

    caption: str
    text: str

    def plain(self) -> str:
        """Return it indented."""
        return f"{self.caption}\n" + textwrap.indent(plain(clipped(self.text)), "    ")

    def html(self) -> str:
        """Return it as preformatted, escaped text."""
        # JupyterLab breaks lines of a pre anywhere, in mid-word too.
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:0.2em 0 0.9em"
        head = f'<p style="margin:0.7em 0 0.2em">{_escaped(self.caption)}</p>'
        return f'{head}<pre style="{style}">{escape_html(clipped(self.text))}</pre>'

    def markdown(self) -> str:
        """Return it as a code block."""
        return f"{_inline(self.caption)}\n\n{fenced(plain(clipped(self.text)), '')}"


@dataclass(frozen=True, slots=True)
class View:
    """What a magic returns: a headline, tables and texts, and notes. Shows itself."""

    title: str
    blocks: tuple[Table | Text, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        """Return it as plain text."""
        parts = [textwrap.fill(plain(self.title), WIDTH), *(block.plain() for block in self.blocks)]
        return "\n\n".join([*parts, *(textwrap.fill(plain(note), WIDTH) for note in self.notes)])

    def __repr__(self) -> str:
        """Return it as plain text: in a plain Python it is all there is."""
        return str(self)

    def html(self) -> str:
        """Return it as HTML."""
        parts = [f'<p style="margin:0.3em 0"><strong>{_escaped(self.title)}</strong></p>', *(block.html() for block in self.blocks)]
        notes = "".join(f'<p style="margin:0.3em 0;{_FAINT}">{_escaped(note)}</p>' for note in self.notes)
        return f'<div class="nbllm-view mathjax_ignore tex2jax_ignore" style="overflow-x:auto">{"".join(parts)}{notes}</div>'

    def markdown(self) -> str:
        """Return it as Markdown."""
        return "\n\n".join([f"**{_inline(self.title)}**", *(block.markdown() for block in self.blocks), *map(_inline, self.notes)])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:  # IPython's protocol: include and exclude
        return {"text/plain": str(self), "text/html": self.html(), "text/markdown": self.markdown()}


def _escaped(text: str) -> str:
    return escape_html(text).replace("\n", "<br>")


def _inline(text: str) -> str:
    """Return text for one line of Markdown, nothing of it alive."""
    return escape_html(text.replace("\n", " "))


def _align(column: Column) -> str:
    return "text-align:right;white-space:nowrap;" if column.number else "text-align:left;"


def _least(column: Column, cell: str) -> str:
    """Return the least width of a cell that holds a sentence: a narrow window scrolls sideways instead of stacking words."""
    return "min-width:14em;" if not column.number and len(cell) > _MIN_SENTENCE and " " in cell else ""


def _lines(row: Sequence[str], widths: list[int], columns: Sequence[Column]) -> Iterator[str]:
    """Yield a row as text: a sentence in its last column goes on below instead of being cut."""
    *_, last = widths
    wraps = len(row[-1]) > last >= _MIN_SENTENCE and " " in row[-1]
    first, *more = textwrap.wrap(row[-1], last, break_on_hyphens=False) if wraps else [row[-1]]
    cells = [*row[:-1], first]
    yield "  ".join(_cell(cells[i], widths[i], number=c.number) for i, c in enumerate(columns)).rstrip()
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    yield from (" " * indent + line for line in more)


def _cell(text: str, width: int, *, number: bool) -> str:
    shown = text if len(text) <= width else text[: width - 1] + "…"
    return f"{shown:>{width}}" if number else f"{shown:<{width}}"


def _fitted(widths: list[int], columns: Sequence[Column]) -> list[int]:
    """Return widths that fit into 80 columns together: the widest text column gives way first, numbers never do."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        texts = [i for i, c in enumerate(columns) if not c.number and widths[i] > _MIN_COLUMN]
        if not texts:
            break
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths
