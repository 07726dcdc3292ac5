"""Words with a part that denies: "unvaccinated", "incurable"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nbllm.core.guards.lemmas import Lemmas

if TYPE_CHECKING:
    from nbllm.core.guards.lexicon import Lexicon
    from nbllm.core.guards.tokens import Token

NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis")
PREFIX_BEGINNINGS = frozenset(prefix[:2] for prefix in NEGATIVE_PREFIXES)
SHORTEST_AFFIXED = 6  # letters of a word that is looked at
SHORTEST_ROOT = 4
WHOLE = frozenset(
    [
        "union",
        "unit",
        "unite",
        "inform",
        "invest",
        "income",
        "install",
        "insure",
        "intend",
        "instance",
        "indeed",
        "instill",
        "instead",
    ]
)


def affixed(token: Token, lexicon: Lexicon) -> str:
    """Return the base of what a word with a part that denies is made of: "vaccinate" for "unvaccinated", "cure" for "incurable"."""
    if token.stop:
        return ""
    known = lexicon.roots.get(token.base)
    if known is None and token.word.startswith("un") and token.word not in lexicon.listed:
        return root(token.word, lexicon.lemmas, lexicon.listed)
    return known or ""


def roots(listed: Iterable[str], lemmas: Lemmas, known: frozenset[str]) -> dict[str, str]:
    """Return word -> what it is made of, for the known words with a part that denies."""
    found = ((word, root(word, lemmas, known)) for word in listed if word[:2] in PREFIX_BEGINNINGS)
    return {word: base for word, base in found if base}


def root(word: str, lemmas: Lemmas, known: frozenset[str]) -> str:
    """Return the base of what stands behind the part of a word that denies, "" when it has none."""
    if len(word) < SHORTEST_AFFIXED or word in WHOLE:
        return ""
    for prefix in NEGATIVE_PREFIXES:
        if word.startswith(prefix):
            rest = word[len(prefix) :]
            for form in (rest, rest.removesuffix("able"), rest.removesuffix("able") + "e", rest.removesuffix("ible")):
                base = lemmas(form)
                if base in known and len(form) >= SHORTEST_ROOT:
                    return base
    return ""
