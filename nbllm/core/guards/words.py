"""The word lists of the guards: what ships with nbllm, and what somebody adds. Read once, never written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from nbllm.core.guards.letters import fold
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.lists import lexicon, sections
from nbllm.core.guards.tables import both_ways, starts, terms

LANGUAGES = ("en", "de", "es")


class GuardWords(Struct, frozen=True):
    """Word lists for `check`: one Lexicon a language, and names that are names whatever the lists of common words say.

    `aliases` maps a name to the one that stands for it ("american" to "usa"); `phrases` has those of several words by their
    first; `telling` are the function words that only one
    language has.
    """

    languages: Mapping[str, Lexicon]
    names: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = MappingProxyType({})
    phrases: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = MappingProxyType({})
    telling: Mapping[str, frozenset[str]] = MappingProxyType({})
    short_forms: frozenset[str] = frozenset()

    def with_(
        self,
        *,
        opposites: Iterable[tuple[str, str]] = (),
        synonyms: Iterable[tuple[str, str]] = (),
        common: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> GuardWords:
        """Return these lists with more words, which count in every language.

        `opposites`: pairs such as ("mount", "unmount"). `synonyms`: pairs that mean the same. `common`: words that are no names.
        `names`: words that are names although they are common words too ("apple").
        """
        more_opposites = both_ways((_word(a), _word(b)) for a, b in opposites)
        more_synonyms = [(_word(a), _word(b)) for a, b in synonyms]
        more_common = frozenset(_word(word) for word in common)
        languages = {
            code: _extended(lexicon, more_opposites, more_synonyms, more_common) for code, lexicon in self.languages.items()
        }
        return replace(self, languages=MappingProxyType(languages), names=self.names | {_word(name) for name in names})


def _word(text: str) -> str:
    return "_".join(fold(text).split())


def _extended(
    lexicon: Lexicon, opposites: Mapping[str, set[str]], synonyms: list[tuple[str, str]], common: frozenset[str]
) -> Lexicon:
    grouped = {word: set(groups) for word, groups in lexicon.synonyms.items()}
    free = 1 + max((group for groups in grouped.values() for group in groups), default=0)
    for number, pair in enumerate(synonyms, start=free):
        for word in map(lexicon.lemmas, pair):
            grouped.setdefault(word, set()).add(number)
    merged = {
        word: lexicon.opposites.get(word, frozenset()) | opposites.get(word, set()) for word in {*lexicon.opposites, *opposites}
    }
    known = lexicon.terms | terms({*opposites, *grouped})
    return replace(
        lexicon,
        opposites=MappingProxyType(merged),
        synonyms=MappingProxyType({word: frozenset(groups) for word, groups in grouped.items()}),
        common=lexicon.common | common,
        terms=known,
        term_starts=starts(known),
    )


@lru_cache(maxsize=1)
def shipped() -> GuardWords:
    """Return the lists that ship: English, German and Spanish. The first call reads them (0.1 to 0.2 s), later ones are free."""
    aliases = {word: line[0] for line in sections("names", ("words",))["aliases"] for word in line}
    languages = {code: lexicon(code) for code in LANGUAGES}
    telling = {code: _telling(code, languages) for code in LANGUAGES}
    return GuardWords(
        MappingProxyType(languages),
        aliases=MappingProxyType({word: name for word, name in aliases.items() if "_" not in word}),
        phrases=MappingProxyType(_phrases(aliases)),
        telling=MappingProxyType(telling),
        short_forms=frozenset().union(*(lexicon.short_forms for lexicon in languages.values())),
    )


def _phrases(aliases: Mapping[str, str]) -> dict[str, tuple[tuple[tuple[str, ...], str], ...]]:
    """Return first word -> (words, name) of the names that are several words."""
    found: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for phrase, name in aliases.items():
        words = tuple(phrase.split("_"))
        if len(words) > 1:
            found.setdefault(words[0], []).append((words, name))
    return {first: tuple(sorted(known, key=lambda entry: len(entry[0]))) for first, known in found.items()}


def _telling(code: str, languages: Mapping[str, Lexicon]) -> frozenset[str]:
    others = [lexicon for other, lexicon in languages.items() if other != code]
    shared: frozenset[str] = frozenset().union(
        *(lexicon.stop for lexicon in others), *(lexicon.common for lexicon in others if lexicon.code == "en")
    )
    return languages[code].stop - shared
