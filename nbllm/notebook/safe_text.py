"""Model text as plain text that a terminal or a notebook cannot be steered by."""

from __future__ import annotations

import re
import textwrap

_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
SHOWN_CHARS = 100_000
"""More than that makes a browser stutter; the variable has all of it."""


def plain(text: str) -> str:
    """Return text without control characters (escape sequences can retitle, repaint or paste) and without lone surrogates."""
    return _LONE_SURROGATE.sub("\ufffd", _STEERS.sub("", text.replace("\r\n", "\n")))


def clipped(text: str) -> str:
    """Return what is shown of a text: all of it, or its beginning and a line that says how much is not shown."""
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS]}\n\n[{len(text) - SHOWN_CHARS:,} more characters are not shown; the reply's .text has them.]"


def wrapped(line: str, width: int = 80, indent: str = "") -> str:
    """Return a meter line or note on as many lines as it needs, broken after its dots, never inside a part."""
    glued = "\u00a0· ".join(part.replace(" ", "\u00a0") for part in line.split(" · ")) if " · " in line else line
    lines = textwrap.wrap(glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\u00a0", " ")
