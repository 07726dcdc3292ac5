"""Inflected words to their bases, by rule and list: "pairs", "paired" and "pairing" are the word "pair"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

SHORTEST = 3  # characters that a base has at least
MOST_REMEMBERED = 4_096  # words of a language
LONGEST_REMEMBERED = 32  # characters, so that what is remembered stays small
VOWELS = "aeiou"


def candidates(word: str) -> Iterator[str]:
    """Yield the bases that an English word may be an inflection of, the most likely first; a list must say which one exists."""
    if word.endswith("s") and not word.endswith("ss"):
        yield from _plural(word)
    elif word.endswith("ed"):
        yield from _suffixed(word[:-2])
    elif word.endswith("ing"):
        yield from _suffixed(word[:-3])
    elif word.endswith("ly"):
        yield from _adverb(word)


def _plural(word: str) -> Iterator[str]:
    if len(word) > SHORTEST:
        yield word[:-1]
    if word.endswith("es") and len(word) > SHORTEST + 1:
        yield word[:-2]
        if word.endswith("ies"):
            yield word[:-3] + "y"


def _suffixed(stem: str) -> Iterator[str]:
    if len(stem) < SHORTEST - 1 or not any(letter in "aeiouy" for letter in stem):
        return
    if len(stem) > SHORTEST and stem[-1] == stem[-2] and stem[-1] not in VOWELS:
        yield stem[:-1]
        yield stem
        return
    if len(stem) >= SHORTEST:
        yield stem
    yield stem + "e"
    if stem.endswith("i"):
        yield stem[:-1] + "y"


def _adverb(word: str) -> Iterator[str]:
    stem = word[:-2]
    if len(stem) < SHORTEST:
        return
    yield stem
    yield stem + "le"
    yield stem + "e"
    if stem.endswith("i"):
        yield stem[:-1] + "y"
    if stem.endswith("al"):
        yield stem[:-2]


class Lemmas:
    """Callable: folded word -> its base in one language. Only English has rules; German and Spanish words lose a few endings at
    most.
    """

    def __init__(self, code: str, common: frozenset[str], irregular: dict[str, str], rare: frozenset[str] = frozenset()) -> None:
        self._english, self._german = code == "en", code == "de"
        self.common = common
        self.rare = rare  # words of a language that many people do not use
        self._irregular = irregular
        self._endings = ENDINGS.get(code, ())
        self._spelled = one_spelling(common | rare) if self._english else {}
        self._remembered = lru_cache(MOST_REMEMBERED)(self._find)  # texts use the same words again and again

    def __call__(self, word: str) -> str:
        """Return the base of a word; a word that no list knows is returned without a possessive 's."""
        return self._remembered(word) if len(word) <= LONGEST_REMEMBERED else self._find(word)

    def _find(self, word: str) -> str:
        base = self._base(word)
        return self._spelled.get(base, base)

    def _base(self, word: str) -> str:
        known = self._irregular.get(word)
        if known is not None:
            return known
        if self._english:
            if word in self.common:
                return (
                    next((base for base in candidates(word) if base in self.common), word)
                    if word.endswith(("s", "ing", "ed"))
                    else word
                )
            word = word.removesuffix("'s")
            for base in candidates(word):
                if base in self.common:
                    return base
            if word in self.rare:
                return word
            for base in candidates(word):
                if base in self.rare:
                    return base
            return word.replace("isation", "ization").replace("ising", "izing").replace("ised", "ized").replace("ise", "ize")
        for ending in self._endings:
            if word.endswith(ending) and len(word) - len(ending) >= SHORTEST + 1:
                word = word[: -len(ending)]
                # The verbs in -ern and -eln have forms without that n: "verlängere", "verlängern".
                return word[:-2] if self._german and word.endswith("er") and len(word) > SHORTEST + 2 else word
        return word


def one_spelling(known: frozenset[str]) -> dict[str, str]:
    """Return word as the British write it -> as Americans do, for the known words ("anaemia", "summarise", "theatre")."""
    found: dict[str, str] = {}
    for word in known:
        if len(word) >= SHORTEST_BRITISH:
            for british, american in SPELLINGS:
                if british in word and (other := word.replace(british, american)) in known:
                    found[word] = other
    return found


SHORTEST_BRITISH = 6  # letters: "prise" is no "prize"
SPELLINGS = (
    ("ise", "ize"),
    ("isa", "iza"),
    ("yse", "yze"),
    ("our", "or"),
    ("aem", "em"),
    ("aes", "es"),
    ("aed", "ed"),
    ("oed", "ed"),
    ("oes", "es"),
    ("rrhoe", "rrhe"),
    ("tre", "ter"),
    ("ogue", "og"),
    ("ence", "ense"),
)
ENDINGS = {
    "de": ("ern", "en", "er", "es", "em", "n", "e", "s", "t"),
    "es": ("es", "s"),
}


def spanish_forms(words: frozenset[str], endings_of: Mapping[str, list[str]]) -> dict[str, str]:
    """Return form -> infinitive for the Spanish infinitives among the words, with o as ue and e as ie ("vuelvo", "cierro"); other
    words stay.
    """
    forms: dict[str, str] = {}
    for verb in sorted(words):
        stem, endings = verb[:-2], endings_of.get(verb[-2:])
        if endings is None or len(stem) < SHORTEST - 1:
            continue
        for ending in endings:
            for root in (stem, _last_replaced(stem, "o", "ue"), _last_replaced(stem, "e", "ie")):
                if root + ending not in words:
                    forms.setdefault(root + ending, verb)
    return forms


def _last_replaced(stem: str, vowel: str, by: str) -> str:
    head, found, tail = stem.rpartition(vowel)
    return head + by + tail if found else stem
