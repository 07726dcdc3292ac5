"""Lines of the word lists as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbllm.core.guards.lemmas import Lemmas
from nbllm.core.guards.lexicon import Unit


def lacks(lines: list[list[str]], lemmas: Lemmas) -> dict[str, frozenset[str]]:
    """Return word -> what is not there where it stands ("silent": "sound")."""
    found: dict[str, set[str]] = {}
    for line in lines:
        bar = line.index("|")
        for word in line[:bar]:
            found.setdefault(lemmas(word), set()).update(map(lemmas, line[bar + 1 :]))
    return {word: frozenset(others) for word, others in found.items()}


def units(lines: list[list[str]]) -> dict[str, Unit]:
    """Return word -> its unit."""
    return {word: Unit(line[0], float(line[1].rstrip(":"))) for line in lines for word in line[2:]}


def crossed(lines: list[list[str]]) -> Iterable[tuple[str, str]]:
    """Yield each word before a bar with each behind it."""
    for line in lines:
        bar = line.index("|")
        yield from ((a, b) for a in line[:bar] for b in line[bar + 1 :])


def groups(lines: Iterable[list[str]], lemmas: Lemmas) -> dict[str, frozenset[int]]:
    """Return base -> the numbers of the lines that it is in."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(lines):
        for word in line:
            found.setdefault(lemmas(word), set()).add(number)
    return {word: frozenset(groups) for word, groups in found.items()}


def with_listed(table: dict[str, frozenset[int]], lines: Iterable[str]) -> dict[str, frozenset[int]]:
    """Return groups of words with those of a file such as synonyms_en.txt, whose words are bases."""
    found = {word: set(groups) for word, groups in table.items()}
    start = 1 + max((group for groups in found.values() for group in groups), default=0)
    for number, line in enumerate(lines, start):
        for word in line.split():
            found.setdefault(word, set()).add(number)
    return {word: frozenset(groups) for word, groups in found.items()}


def classes(lines: list[list[str]]) -> dict[str, str]:
    """Return word -> the class that its line begins with."""
    return {word: line[0].rstrip(":") for line in lines for word in line[1:]}


def pairs(lines: list[list[str]]) -> dict[str, frozenset[str]]:
    """Return word -> the words that it makes a pair with."""
    return {word: frozenset(others) for word, others in both_ways((line[0], line[1]) for line in lines).items()}


def turns(sections: Mapping[str, list[list[str]]]) -> dict[str, frozenset[str]]:
    """Return prefix -> prefixes that turn its meaning; "" is no prefix ("un" -> "", "hyper" -> "hypo")."""
    found = both_ways((line[0], line[1]) for line in sections["prefix_pairs"])
    for line in sections["prefixes"]:
        for prefix in line:
            found.setdefault(prefix, set()).add("")
    return {prefix: frozenset(others) for prefix, others in found.items()}


def by_first(phrases: Iterable[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return first word -> phrases of several words that begin with it, the longest first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(phrases):
        words = tuple(phrase.split("_"))
        found.setdefault(words[0], []).append(words)
    return {first: tuple(sorted(known, key=len, reverse=True)) for first, known in found.items()}


def terms(words: Iterable[str]) -> frozenset[str]:
    """Return the terms of several words ("turn_on"), and the last word of each."""
    terms = [word for word in words if "_" in word]
    return frozenset(terms) | {term.rpartition("_")[2] for term in terms}


def starts(terms: Iterable[str]) -> frozenset[str]:
    """Return what stands before the last word of each term."""
    return frozenset(term.rpartition("_")[0] for term in terms if "_" in term)


def both_ways(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return word -> the words that it stands in a pair with, whichever comes first."""
    found: dict[str, set[str]] = {}
    for a, b in pairs:
        if a != b:
            found.setdefault(a, set()).add(b)
            found.setdefault(b, set()).add(a)
    return found
