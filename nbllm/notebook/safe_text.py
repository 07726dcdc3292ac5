"""Model text as plain text that a terminal or a notebook cannot be steered by."""

from __future__ import annotations

import re

from nbllm.redaction import redact_registered

_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_KEY = 4_000
SHOWN_CHARS = 100_000
"""More than that makes a browser stutter; the variable has all of it."""


def plain(text: str) -> str:
    """Return text without control characters (escape sequences can retitle, repaint or paste) and without lone surrogates."""
    return _LONE_SURROGATE.sub("\ufffd", _STEERS.sub("", text.replace("\r\n", "\n")))


def clipped(text: str) -> str:
    """Return what is shown of a text: all of it without the keys in use, or its beginning and how much is not shown."""
    shown = redact_registered(text[: SHOWN_CHARS + _LONGEST_KEY])  # not all of a long one: it is shown ten times a second
    if len(text) <= SHOWN_CHARS:
        return shown
    return f"{shown[:SHOWN_CHARS]}\n\n[{len(text) - SHOWN_CHARS:,} more characters are not shown; the reply's .text has them.]"
