"""Texts written as Python, so that they can be read and are the same text again."""

from __future__ import annotations

import ast

_LONG_CHARS = 80


def literal(text: str, depth: int = 0, *, bare: bool = False) -> str:
    """Return a text as an expression; one of several lines as a string a line, indented one step deeper than `depth`.

    bare: without brackets around these, for where there are some already; then they are indented by `depth`.

    Nothing in the text can end the string: it is written by repr(), and read back to make sure.
    """
    lines = text.split("\n")
    if len(lines) == 1 and len(text) <= _LONG_CHARS:
        return _checked(_quoted(text), text)
    parts = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    if len(parts) == 1:
        return _checked(_quoted(text), text)
    pad = "    " * (depth + 1)
    if bare:
        return _checked(f"\n{'    ' * depth}".join(map(_quoted, parts)), text)
    body = "".join(f"{pad}{_quoted(part)}\n" for part in parts)
    return _checked(f"(\n{body}{'    ' * depth})", text)


def _quoted(text: str) -> str:
    shown = repr(text)
    if shown.startswith("'") and '"' not in shown:
        return f'"{shown[1:-1]}"'
    return shown


def _checked(shown: str, text: str) -> str:
    if ast.literal_eval(f"({shown})") != text:
        raise AssertionError(f"A text does not read back as it was written: {shown[:80]}")
    return shown
