"""The word lists of the guards: what ships with nbllm, and what somebody adds. Read once, never written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from itertools import chain
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from nbllm.core.guards.affixes import roots
from nbllm.core.guards.lemmas import Lemmas, spanish_forms
from nbllm.core.guards.letters import fold
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.tables import both_ways, by_first, classes, crossed, groups, lacks, pairs, terms, turns, units, with_listed

LANGUAGES = ("en", "de", "es")
SETS = (
    "determiners",
    "symmetric",
    "forms",
    "derived",
    "auxiliaries",
    "doing",
    "pronouns",
    "denial_ends",
    "vague",
    "numbered",
    "month_signs",
    "concord",
    "past_before",
    "unit_kinds",
    "bounds",
    "bounded",
    "asking",
    "nominal",
    "name_parts",
    "name_tails",
    "short_forms",
)  # sections that are sets of words and nothing more; a language may lack some
FACTS = ("numbers", "soft_numbers", "parts", "articles", "units", "months", "weekdays", "dates", "soft_dates")
DATA = "nbllm.core.guards.data"


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
    return replace(
        lexicon,
        opposites=MappingProxyType(merged),
        synonyms=MappingProxyType({word: frozenset(groups) for word, groups in grouped.items()}),
        common=lexicon.common | common,
        terms=lexicon.terms | terms({*opposites, *grouped}),
    )


@lru_cache(maxsize=1)
def shipped() -> GuardWords:
    """Return the lists that ship: English, German and Spanish. The first call reads them (some 30 ms), later ones are free."""
    aliases = {word: line[0] for line in _sections("names", ("words",))["aliases"] for word in line}
    languages = {code: _lexicon(code) for code in LANGUAGES}
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


def _read(name: str) -> str:
    return resources.files(DATA).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def _sections(name: str, kinds: tuple[str, ...] = ("words", "general")) -> dict[str, list[list[str]]]:
    """Return section -> lines, each as its folded words. Lines that start with # are comments."""
    found: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in chain.from_iterable(_read(f"{kind}_{name}").splitlines() for kind in kinds):
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(fold(line).split())
    return found


def _lemmas(code: str, sections: Mapping[str, list[list[str]]], flat: Mapping[str, frozenset[str]]) -> Lemmas:
    """Return what brings a language's words to one form, with the words that are common in it."""
    irregular: dict[str, str] = {}
    listed: frozenset[str] = frozenset()
    rare: frozenset[str] = frozenset()
    if code == "en":
        irregular = dict(line.split() for line in _read("irregular_en").splitlines())
        listed = frozenset(_read("common_en").split())
        rare = frozenset(_read("rare_en").split())
    common = listed | flat["common"] | flat["stop"] | flat["filler"] | {line[0] for line in sections["numbers"]}
    common |= {word for name in ("negators", "strong_negators", "weak_negators", "opposites", "synonyms") for word in flat[name]}
    if code == "es":
        irregular = spanish_forms(common, {line[0].rstrip(":"): line[1:] for line in sections["verb_endings"]})
    return Lemmas(code, common, irregular, rare - common)


def _opposites(code: str, sections: Mapping[str, list[list[str]]], stop: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of words that turn a meaning."""
    yield from crossed(sections["opposites"])
    if code == "en":
        pairs = (line.split() for line in _read("antonyms_en").splitlines())
        yield from ((one, two) for one, two in pairs if not stop & {one, two})


def _lexicon(code: str) -> Lexicon:
    sections = _sections(code)
    flat = {name: frozenset(word for line in lines for word in line) for name, lines in sections.items()}
    lemmas = _lemmas(code, sections, flat)
    opposed = _opposites(code, sections, flat["stop"])
    # As written too: function words have no base ("después"), and a form may be one of another word ("oculto").
    opposites = both_ways((a, b) for one, two in opposed for a in {one, lemmas(one)} for b in {two, lemmas(two)})
    quantifiers = classes(sections["quantifiers"])
    synonyms_of = groups(sections["synonyms"], lemmas)
    thesaurus = groups(sections.get("alike", []), lemmas)
    if code == "en":
        thesaurus = with_listed(thesaurus, _read("synonyms_en").splitlines())
    kinds = groups(sections["kinds"], lemmas)
    if code == "en":
        kinds = with_listed(kinds, _read("kinds_en").splitlines())
    listed = lemmas.common | lemmas.rare
    return Lexicon(
        code=code,
        stop=flat["stop"],
        filler=frozenset(map(lemmas, flat["filler"])),
        common=lemmas.common,
        rare=lemmas.rare,
        listed=listed,
        roots=roots(listed, lemmas, listed),
        negators=flat["negators"],
        strong_negators=flat["strong_negators"],
        weak_negators=frozenset(map(lemmas, flat["weak_negators"])),
        denying_phrases=by_first({word for name in ("negators", "weak_negators") for word in flat[name] if "_" in word}),
        loose_negators=frozenset(map(lemmas, flat["loose_negators"])),
        quantifiers=quantifiers,
        numbers={line[0]: float(line[1]) for line in sections["numbers"]},
        soft_numbers={line[0]: float(line[1]) for line in sections["soft_numbers"]},
        parts={line[0]: float(line[1]) for line in sections["parts"]},
        ordinals=flat["ordinals"],
        articles=flat["articles"],
        units=units(sections["units"]),
        after_number=units(sections["after_number"]),
        months={word: number for number, line in enumerate(sections["months"], start=1) for word in line},
        weekdays={word: number for number, line in enumerate(sections["weekdays"], start=1) for word in line},
        ambiguous=flat["ambiguous"],
        dates=classes(sections["dates"]),
        soft_dates=classes(sections["soft_dates"]),
        relative=classes(sections["relative"]),
        questions=classes(sections["questions"]),
        turns=turns(sections),
        particles=pairs(sections["particles"]),
        number_particles=pairs(sections["number_particles"]),
        opposites={word: frozenset(others) for word, others in opposites.items()},
        synonyms=synonyms_of,
        thesaurus=thesaurus,
        kinds=kinds,
        implied=frozenset(map(lemmas, flat.get("implied", ()))),
        lacks=lacks(sections.get("lacks", []), lemmas),
        parts_of_day=classes(sections.get("parts_of_day", [])),
        **{name: flat.get(name, frozenset()) for name in SETS},
        endings=tuple(flat.get("endings", ())),
        beginnings=tuple(flat.get("beginnings", ())),
        openers=frozenset(word.partition("_")[0] for word in {*quantifiers, *flat["negators"]} if "_" in word),
        telling=frozenset(word for name in FACTS for line in sections[name] for word in line) | {"other", "bi", "semi", "tri"},
        terms=terms(opposites.keys() | synonyms_of.keys() | thesaurus.keys()),
        lemmas=lemmas,
    )
