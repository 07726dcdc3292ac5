"""The word lists that ship, read from their files into one Lexicon a language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from itertools import chain
from typing import Any

from nbllm.core.guards.affixes import roots
from nbllm.core.guards.lemmas import Lemmas, spanish_forms
from nbllm.core.guards.letters import fold
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.tables import (
    both_ways,
    by_first,
    classes,
    crossed,
    groups,
    lacks,
    pairs,
    starts,
    terms,
    turns,
    units,
    with_listed,
)

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
Lines = Mapping[str, list[list[str]]]
Flat = Mapping[str, frozenset[str]]


def _read(name: str) -> str:
    return resources.files(DATA).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def sections(name: str, kinds: tuple[str, ...] = ("words", "general")) -> dict[str, list[list[str]]]:
    """Return section -> lines, each as its folded words. Lines that start with # are comments."""
    found: dict[str, list[list[str]]] = {}
    section: list[list[str]] = []
    for line in chain.from_iterable(_read(f"{kind}_{name}").splitlines() for kind in kinds):
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            section.append(fold(line).split())
    return found


def _lemmas(code: str, lines: Lines, flat: Flat) -> Lemmas:
    """Return what brings a language's words to one form, with the words that are common in it."""
    irregular: dict[str, str] = {}
    listed: frozenset[str] = frozenset()
    rare: frozenset[str] = frozenset()
    if code == "en":
        irregular = dict(line.split() for line in _read("irregular_en").splitlines())
        listed = frozenset(_read("common_en").split())
        rare = frozenset(_read("rare_en").split())
    common = listed | flat["common"] | flat["stop"] | flat["filler"] | {line[0] for line in lines["numbers"]}
    common |= {word for name in ("negators", "strong_negators", "weak_negators", "opposites", "synonyms") for word in flat[name]}
    if code == "es":
        irregular = spanish_forms(common, {line[0].rstrip(":"): line[1:] for line in lines["verb_endings"]})
    return Lemmas(code, common, irregular, (rare | flat.get("rare", frozenset())) - common)


def _opposites(code: str, lines: Lines, stop: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of words that turn a meaning."""
    yield from crossed(lines["opposites"])
    if code == "en":
        pairs = (line.split() for line in _read("antonyms_en").splitlines())
        yield from ((one, two) for one, two in pairs if not stop & {one, two})


def lexicon(code: str) -> Lexicon:
    """Return what the lists say of a language."""
    lines = sections(code)
    flat = {name: frozenset(word for line in section for word in line) for name, section in lines.items()}
    lemmas = _lemmas(code, lines, flat)
    quantifiers = classes(lines["quantifiers"])
    return Lexicon(
        code=code,
        stop=flat["stop"],
        filler=frozenset(map(lemmas, flat["filler"])),
        common=lemmas.common,
        rare=lemmas.rare,
        quantifiers=quantifiers,
        openers=frozenset(word.partition("_")[0] for word in {*quantifiers, *flat["negators"]} if "_" in word),
        endings=tuple(flat.get("endings", ())),
        beginnings=tuple(flat.get("beginnings", ())),
        lemmas=lemmas,
        **_denying(lines, flat, lemmas),
        **_counting(lines, flat),
        **_meaning(code, lines, flat, lemmas),
    )


def _denying(lines: Lines, flat: Flat, lemmas: Lemmas) -> dict[str, Any]:
    """Return what a Lexicon says of denials, and the sets that are no more than their words."""
    listed = lemmas.common | lemmas.rare
    return {
        **{name: flat.get(name, frozenset()) for name in SETS},
        "listed": listed,
        "roots": roots(listed, lemmas, listed),
        "negators": flat["negators"],
        "strong_negators": flat["strong_negators"],
        "weak_negators": frozenset(map(lemmas, flat["weak_negators"])),
        "denying_phrases": by_first({word for name in ("negators", "weak_negators") for word in flat[name] if "_" in word}),
        "loose_negators": frozenset(map(lemmas, flat["loose_negators"])),
        "implied": frozenset(map(lemmas, flat.get("implied", ()))),
        "lacks": lacks(lines.get("lacks", []), lemmas),
    }


def _counting(lines: Lines, flat: Flat) -> dict[str, Any]:
    """Return what a Lexicon says of numbers, units and dates."""
    numbers = {name: {line[0]: float(line[1]) for line in lines[name]} for name in ("numbers", "soft_numbers", "parts")}
    numbered = {
        name: {word: number for number, line in enumerate(lines[name], start=1) for word in line} for name in ("months", "weekdays")
    }
    named = {name: classes(lines.get(name, [])) for name in ("dates", "soft_dates", "relative", "questions", "parts_of_day")}
    return {
        **numbers,
        **numbered,
        **named,
        **{name: flat[name] for name in ("ordinals", "articles", "ambiguous")},
        "units": units(lines["units"]),
        "after_number": units(lines["after_number"]),
        "number_particles": pairs(lines["number_particles"]),
        "telling": frozenset(word for name in FACTS for line in lines[name] for word in line) | {"other", "bi", "semi", "tri"},
    }


def _meaning(code: str, lines: Lines, flat: Flat, lemmas: Lemmas) -> dict[str, Any]:
    """Return what a Lexicon says of words that mean the same, the opposite, or another thing of the same kind."""
    opposed = _opposites(code, lines, flat["stop"])
    # As written too: function words have no base ("después"), and a form may be one of another word ("oculto").
    opposites = both_ways((a, b) for one, two in opposed for a in {one, lemmas(one)} for b in {two, lemmas(two)})
    synonyms, thesaurus, kinds = (groups(lines.get(name, []), lemmas) for name in ("synonyms", "alike", "kinds"))
    if code == "en":
        thesaurus, kinds = (
            with_listed(table, _read(file).splitlines()) for table, file in ((thesaurus, "synonyms_en"), (kinds, "kinds_en"))
        )
    known = terms(opposites.keys() | synonyms.keys() | thesaurus.keys())
    return {
        "turns": turns(lines),
        "particles": pairs(lines["particles"]),
        "opposites": {word: frozenset(others) for word, others in opposites.items()},
        "synonyms": synonyms,
        "thesaurus": thesaurus,
        "kinds": kinds,
        "terms": known,
        "term_starts": starts(known),
    }
