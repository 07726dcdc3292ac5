"""How the commands write: 80 columns, words before colour, plain text where nobody looks at colour."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from nbllm.redaction import redact

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "dim": "2"}
_LABEL_COLUMNS = 10


def coloured(out: TextIO) -> bool:
    """Whether to use colour: on a terminal that has it, unless NO_COLOR says otherwise (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and out.isatty()


def width() -> int:
    """Return the columns to fill: the terminal's, from 40 to 80."""
    return max(40, min(80, shutil.get_terminal_size((80, 24)).columns))


class Paper:
    """Writes to stdout (or `out`), every line redacted."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = sys.stdout if out is None else out
        self._colour = coloured(self.out)
        encoding = getattr(self.out, "encoding", None) or "utf-8"
        self._unicode = encoding.lower().replace("-", "").startswith("utf")

    def ink(self, text: str, colour: str) -> str:
        """Return text in a colour, or as it is."""
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if self._colour and colour else text

    def sign(self, name: str) -> str:
        """Return the sign of a status, with its word where signs cannot be written."""
        sign, word, colour = {"ok": ("✓", "ok", "green"), "note": ("!", "note", "yellow"), "broken": ("✗", "broken", "red")}[name]
        return self.ink(sign if self._unicode else f"[{word}]", colour)

    def line(self, text: str = "") -> None:
        """Write one line."""
        if not self._unicode:
            text = text.replace("·", "-").replace("…", "...").replace("×", "x")
        print(redact(text), file=self.out)

    def entry(self, label: str, status: str, text: str, *, first: bool = True) -> None:
        """Write a label (once per group), a sign and wrapped text that hangs under itself."""
        indent = " " * (_LABEL_COLUMNS + 4)
        wrapped = textwrap.wrap(text, width() - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
        head = self.ink((label if first else "").ljust(_LABEL_COLUMNS), "bold")
        self.line(f"  {head}{self.sign(status)} {wrapped[0]}")
        for more in wrapped[1:]:
            self.line(f"{indent}{more}")

    def below(self, text: str) -> None:
        """Write wrapped text under the last entry."""
        indent = " " * (_LABEL_COLUMNS + 4)
        for more in textwrap.wrap(text, width() - len(indent), break_long_words=False, break_on_hyphens=False):
            self.line(self.ink(f"{indent}{more}", "dim"))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; a head that begins with # is a column of numbers, set right. The last column is cut to the width."""
        names = [head.lstrip("#") for head in heads]
        cells = [names, *(list(row) for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
        for number, row in enumerate(cells):
            parts = [
                cell.rjust(wide) if head.startswith("#") else cell.ljust(wide)
                for head, cell, wide in zip(heads, row, widths, strict=True)
            ]
            text = "  " + "  ".join(parts).rstrip()
            text = text if len(text) <= width() else text[: width() - 1] + "…"
            self.line(self.ink(text, "bold") if number == 0 else text)


def size(count: float) -> str:
    """Return bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def age(seconds: float) -> str:
    """Return a length of time as people read it."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
