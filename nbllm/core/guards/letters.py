"""Characters before words: one spelling for what reads the same, and nothing that cannot be seen."""

from __future__ import annotations

import unicodedata

# German vowels as people without them on their keyboard write them, so that "für" and "fuer" are one word.
_FOLDED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "o", "ł": "l", "đ": "d", "œ": "oe", "æ": "ae"})
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "`": '"',
        "\u2044": "/",
        "\u00bd": " 1/2",
        "\u00bc": " 1/4",
        "\u00be": " 3/4",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u2026": "...",
        "\u00a0": " ",
        "\u202f": " ",
    }
)


def plain(text: str) -> str:
    """Return the text with straight quotes and dashes, compatibility forms made plain, and invisible characters gone."""
    if text.isascii():
        return (
            text.replace("`", '"') if text.isprintable() else "".join(c if c.isprintable() else " " for c in text.replace("`", '"'))
        )
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "" if unicodedata.category(c) == "Cf" else " " for c in text)


def fold(word: str) -> str:
    """Return a word in small letters without accents; German vowels become two letters ("für", "fuer")."""
    if word.isascii():
        return word.lower()
    word = unicodedata.normalize("NFC", word.casefold()).translate(_FOLDED)
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def shared(one: str, two: str) -> int:
    """Return how many letters two words begin with alike."""
    for at, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return at
    return min(len(one), len(two))
