"""Guards "opposites" and "quantifiers": a word of one text stands against a word of the other ("enable" and "disable", "all" and
"some").
"""

from __future__ import annotations

from collections.abc import Iterator

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

SHORTEST_ROOT = 3
ALIKE = frozenset({("all", "exactly")})
FIRM = frozenset({"only", "none", "least", "most_of", "more", "less", "both", "either"})
EXCLUSIVE = frozenset({"all", "none", "some", "most", "only", "least", "most_of", "few", "often", "more", "less", "both", "either"})


def opposites(here: Reading, there: Reading) -> Verdict:
    """Return whether no word that only one text has is the opposite of a word that only the other has."""
    mine, theirs = here.bases - there.bases, there.bases - here.bases
    if not mine or not theirs:
        return passed("opposites")
    table = here.lexicon.opposites
    for word in mine:
        against = table.get(word)
        if against and (hit := against & theirs):
            other = min(hit)
            if not _denied(here, word, there, other):
                return apart("opposites", _show(word), _show(other))
    for word, other in _prefixed(here, mine, theirs):
        if not _denied(here, word, there, other):
            return apart("opposites", _show(word), _show(other))
    return _particles(here, there)


def _show(word: str) -> str:
    return f'"{word.replace("_", " ")}"'


def _denied(here: Reading, word: str, there: Reading, other: str) -> bool:
    """Say whether exactly one of the two opposites is denied where it stands: "not safe" is "unsafe"."""
    return _negated(here, word) != _negated(there, other)


def _negated(reading: Reading, word: str) -> bool:
    words = reading.plain_words
    for at, token in enumerate(words):
        if word in (token.base, token.word):
            return any(other.word in reading.lexicon.negators or other.word.endswith("n't") for other in words[max(0, at - 2) : at])
    return False


def _prefixed(here: Reading, mine: frozenset[str], theirs: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs that differ by a prefix that turns a meaning: "legal" and "illegal", "hypertension" and "hypotension"."""
    lexicon = here.lexicon
    for words, others, turned in ((mine, theirs, False), (theirs, mine, True)):
        for word in words:
            for prefix in lexicon.prefixes:
                root = word[len(prefix) :]
                if word.startswith(prefix) and len(root) >= SHORTEST_ROOT and root in others:
                    yield (root, word) if turned else (word, root)
            for one, two in lexicon.prefix_pairs:
                for first, second in ((one, two), (two, one)):
                    root = word[len(first) :]
                    if word.startswith(first) and len(root) >= SHORTEST_ROOT and second + root in others:
                        yield (second + root, word) if turned else (word, second + root)


def _particles(here: Reading, there: Reading) -> Verdict:
    """Compare small words that turn the word before them: "log in" and "log out", "migrate to" and "migrate from"."""
    table = here.lexicon.particles
    mine, theirs = _steered(here), _steered(there)
    for word, particle in mine - theirs:
        for other in table[particle]:
            if (word, other) in theirs and (word, other) not in mine:
                return apart("opposites", _show(f"{word} {particle}"), _show(f"{word} {other}"))
    return passed("opposites")


def _steered(reading: Reading) -> frozenset[tuple[str, str]]:
    """Return (base of the last word of meaning, particle) for each particle."""
    found: set[tuple[str, str]] = set()
    last = ""
    for token in reading.plain_words:
        if token.word in reading.lexicon.particles:
            found.add((last, token.word))
        elif not token.stop:
            last = token.base
    return frozenset(found)


def quantifiers(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts speak of as many: all, some, none, only, at least, at most."""
    mine, theirs = _classes(here), _classes(there)
    only_mine = {name: word for name, word in mine.items() if name not in theirs}
    only_theirs = {name: word for name, word in theirs.items() if name not in mine}
    if (only_mine.keys() | only_theirs.keys()) & FIRM or (only_mine and only_theirs):
        return apart("quantifiers", ", ".join(only_mine.values()), ", ".join(only_theirs.values()))
    return passed("quantifiers")


def _classes(reading: Reading) -> dict[str, str]:
    table = reading.lexicon.quantifiers
    found: dict[str, str] = {}
    words = [token.word for token in reading.plain_words]
    for at, word in enumerate(words):
        name = table.get(word)
        if name is None:
            for size in (2, 3):
                name = name or table.get("_".join(words[at : at + size]))
        if name is not None:
            found.setdefault(name, f'"{word}"')
    return found
