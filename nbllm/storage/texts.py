"""Text that comes from users and models, made fit for a column."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return text that SQLite can hold: lone surrogates, which UTF-8 cannot say, become escapes such as those of JSON."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text
