"""What the guards know of one language, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nbllm.core.guards.lemmas import Lemmas


class Unit(Struct, frozen=True, gc=False):
    """A unit of measurement: its dimension and how many of the dimension's base units it is ("time", 60 for a minute)."""

    dimension: str
    factor: float


class Lexicon(Struct, frozen=True, kw_only=True):
    """The words of one language that mean something to a guard. All words are folded (see letters.fold)."""

    code: str
    stop: frozenset[str]
    filler: frozenset[str]
    common: frozenset[str]
    rare: frozenset[str]
    listed: frozenset[str]
    roots: Mapping[str, str]
    negators: frozenset[str]
    strong_negators: frozenset[str]
    weak_negators: frozenset[str]
    denying_phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    quantifiers: Mapping[str, str]
    numbers: Mapping[str, float]
    soft_numbers: Mapping[str, float]
    parts: Mapping[str, float]
    ordinals: frozenset[str]
    articles: frozenset[str]
    units: Mapping[str, Unit]
    after_number: Mapping[str, Unit]
    months: Mapping[str, int]
    weekdays: Mapping[str, int]
    ambiguous: frozenset[str]
    dates: Mapping[str, str]
    soft_dates: Mapping[str, str]
    relative: Mapping[str, str]
    questions: Mapping[str, str]
    turns: Mapping[str, frozenset[str]]
    particles: Mapping[str, frozenset[str]]
    number_particles: Mapping[str, frozenset[str]]
    opposites: Mapping[str, frozenset[str]]
    synonyms: Mapping[str, frozenset[int]]
    thesaurus: Mapping[str, frozenset[int]]
    kinds: Mapping[str, frozenset[int]]
    determiners: frozenset[str]
    symmetric: frozenset[str]
    forms: frozenset[str]
    derived: frozenset[str]
    auxiliaries: frozenset[str]
    doing: frozenset[str]
    pronouns: frozenset[str]
    loose_negators: frozenset[str]
    denial_ends: frozenset[str]
    vague: frozenset[str]
    numbered: frozenset[str]
    month_signs: frozenset[str]
    concord: frozenset[str]
    past_before: frozenset[str]
    unit_kinds: frozenset[str]
    bounds: frozenset[str]
    bounded: frozenset[str]
    asking: frozenset[str]
    nominal: frozenset[str]
    name_parts: frozenset[str]
    name_tails: frozenset[str]
    implied: frozenset[str]
    lacks: Mapping[str, frozenset[str]]
    short_forms: frozenset[str]
    parts_of_day: Mapping[str, str]
    endings: tuple[str, ...]
    beginnings: tuple[str, ...]
    terms: frozenset[str]
    term_starts: frozenset[str]
    openers: frozenset[str]
    telling: frozenset[str]
    lemmas: Lemmas
