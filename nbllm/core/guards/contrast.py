"""Guards "opposites" and "quantifiers": a word of one text stands against a word of the other ("enable" and "disable", "all" and
"some").
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from nbllm.core.guards.affixes import PREFIX_BEGINNINGS, affixed
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

SHORTEST_ROOT = 3
SHORTEST_PREFIX = 2
LONG_ROOT = 6  # letters without which "a" at the beginning turns no meaning ("round", "around")
LONGEST_PREFIX = 7
ENDINGS = (
    ("less", ""),
    ("less", "ful"),
    ("less", "y"),
    ("los", ""),
    ("los", "pflichtig"),
    ("frei", ""),
    ("frei", "haltig"),
    ("frei", "pflichtig"),
    ("frei", "isch"),
    ("los", "voll"),
    ("los", "haft"),
    ("arm", "reich"),
    ("ee", "er"),
    ("ee", "or"),
)
LAST_LETTERS = tuple({ending for ending, _ in ENDINGS})
OVER_UNDER = {
    "over": "more",
    "above": "more",
    "exceeds": "more",
    "under": "less",
    "below": "less",
    "ueber": "more",
    "unter": "less",
}
PLACES = frozenset({"on", "off", "in", "out"})  # before most things they say where, and turn nothing
CONVERSE = {"buy": "sell", "purchase": "sell", "borrow": "lend", "learn": "teach", "receive": "send", "get": "give"}
EXCESS = {"over": frozenset({"little", "few", "less"}), "under": frozenset({"much", "many", "more"})}
FIRM = frozenset({"only", "more", "less", "but_one"})


def opposites(here: Reading, there: Reading) -> Verdict:
    """Return whether no word that only one text has is the opposite of a word that only the other has."""
    pair = here.pair
    for word, other in pair.opposed:
        one, two = (word, other) if pair.here is here else (other, word)
        if one not in pair.turned and (word, other) not in pair.turned_around and not _converse(here, one, there, two):
            return apart("opposites", _show(one), _show(two))
    return _particles(here, there)


def opposed(here: Reading, there: Reading) -> Iterator[tuple[str, str]]:
    """Yield (word of one text, its opposite in the other)."""
    mine, theirs = here.bases - there.bases, there.bases - here.bases
    if not mine or not theirs:
        return
    table = here.lexicon.opposites
    for word in sorted(mine & table.keys()):
        for other in sorted(table[word] & theirs):
            if _has(here, other) or _has(there, word):
                continue
            if "with" in (word, other) and not _followed_alike(here, word, there, other):
                continue  # "for two years with an app", "after 24 months"
            if word not in PLACES or other not in PLACES or _alike(here, word, there, other):
                yield word, other
    yield from _prefixed(here, there)
    yield from _too_little(here, there)
    yield from ((other, word) for word, other in _too_little(there, here))
    for one, two, turned in ((here, there, False), (there, here, True)):
        for token in one.content:
            if token.word[:2] in PREFIX_BEGINNINGS and token.base not in two.bases:
                root = affixed(token, one.lexicon)
                if root and root in two.bases and root not in one.bases:
                    yield (root, token.base) if turned else (token.base, root)  # "unrhymed", "that rhymes"


def _too_little(here: Reading, there: Reading) -> Iterator[tuple[str, str]]:
    """Yield (word with "over" or "under", word of the other text that says the reverse): "overpaid" and "paid too little"."""
    for token in here.content:
        if not token.base.startswith(("over", "under")):
            continue
        for prefix, reverse in EXCESS.items():
            root = token.base.removeprefix(prefix)
            if root != token.base and len(root) >= SHORTEST_ROOT and root in there.bases and token.base not in there.bases:
                yield from ((token.base, word) for word in sorted(reverse & there.bases))


def _has(reading: Reading, word: str) -> bool:
    """Say whether a text has a synonym of a word, so that the word stands against nothing in it."""
    groups = reading.lexicon.synonyms.get(word)
    return groups is not None and not groups.isdisjoint(reading.synonyms)


def _alike(here: Reading, word: str, there: Reading, other: str) -> bool:
    """Say whether two small words steer the same word ("put it on", "take it off" do not: other guards look at the verbs)."""
    mine = {last for last, particle in _steered(here) if particle == word}
    theirs = {last for last, particle in _steered(there) if particle == other}
    return bool(mine & theirs) or not (mine and theirs)


def _followed_alike(here: Reading, word: str, there: Reading, other: str) -> bool:
    """Say whether a word of meaning stands behind one word here and behind the other there."""
    return not _behind(here, word).isdisjoint(_behind(there, other))


def _behind(reading: Reading, word: str) -> frozenset[str]:
    words = reading.plain_words
    starts = [at for at, token in enumerate(words) if token.word == word]
    return frozenset(token.base for at in starts for token in words[at + 1 : at + 4] if not token.stop)


def _converse(here: Reading, one: str, there: Reading, two: str) -> bool:
    """Say whether two verbs tell of one deal from both its sides: "I bought it from him", "he sold it to me"."""
    if CONVERSE.get(one) != two and CONVERSE.get(two) != one:
        return False
    return (_mine(here, one) and _to_me(there, two)) or (_to_me(here, one) and _mine(there, two))


def _mine(reading: Reading, verb: str) -> bool:
    """Say whether "I" or "we" do what a verb says."""
    return any(token.base == verb and before.word in ("i", "we") for before, token in pairwise(reading.plain_words))


def _to_me(reading: Reading, verb: str) -> bool:
    """Say whether what a verb says is done to "me" or "us"."""
    return any(token.base == verb and after.word in ("me", "us") for token, after in pairwise(reading.plain_words))


def _show(word: str) -> str:
    return f'"{word.replace("_", " ")}"'


def _prefixed(here: Reading, there: Reading) -> Iterator[tuple[str, str]]:
    """Yield pairs that differ by a part that turns a meaning: "legal" and "illegal", "hypertension" and "hypotension", "harmful"
    and "harmless".
    """
    mine, theirs = _single(here, there), _single(there, here)
    if not (mine and theirs):
        return
    pairs = [*_turned(here, mine, theirs), *((word, other) for other, word in _turned(here, theirs, mine))]
    yield from (pair for pair in pairs if pair[0] not in there.joined and pair[1] not in here.joined)  # "under water"


def _single(here: Reading, there: Reading) -> frozenset[str]:
    """Return the words of one text that the other has not."""
    return frozenset({token.base for token in here.content} | {token.word for token in here.content}) - there.bases


def _turned(here: Reading, words: frozenset[str], others: frozenset[str]) -> Iterator[tuple[str, str]]:
    turns = here.lexicon.turns
    for word in sorted(words):
        if word[0] == "a" and len(word) > LONG_ROOT and word[1:] in others:
            yield word, word[1:]  # "asymptomatic"
        for length in range(SHORTEST_PREFIX, min(LONGEST_PREFIX, len(word) - SHORTEST_ROOT) + 1):
            for other in turns.get(word[:length], ()):
                if other + word[length:] in others:
                    yield word, other + word[length:]
        if not word.endswith(LAST_LETTERS):
            continue
        for ending, turned in ENDINGS:
            root = word.removesuffix(ending)
            if root != word and len(root) >= SHORTEST_ROOT and root + turned in others:
                yield word, root + turned


def _particles(here: Reading, there: Reading) -> Verdict:
    """Compare small words that turn the word before them: "log in" and "log out", "migrate to" and "migrate from"."""
    table = here.lexicon.particles
    mine, theirs = _steered(here), _steered(there)
    for word, particle in mine - theirs:
        for other in table[particle]:
            both = {particle, other} <= here.bases and {particle, other} <= there.bases  # then the guard "roles" looks
            if not both and (word, other) in theirs and (word, other) not in mine:
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


def _counted(reading: Reading, at: int) -> bool:
    """Say whether a number stands before the word at an index, or is that or the next one."""
    ahead = reading.places[id(reading.plain_words[at - 1])] + 1
    lexicon = reading.lexicon
    return any(
        token.kind == "n" or token.word in lexicon.numbers or lexicon.soft_numbers.get(token.word) == 1
        for token in reading.tokens[ahead : ahead + 2]
    )


def _classes(reading: Reading) -> dict[str, str]:
    table = reading.lexicon.quantifiers
    found: dict[str, str] = {}
    words = [token.word for token in reading.plain_words]
    openers = reading.lexicon.openers
    for at, word in enumerate(words):
        name = table.get(word)
        if name is None and word not in openers and word not in OVER_UNDER:
            continue
        before = words[at - 1] if at else ""
        if (name == "most" and before == "at") or (word in ("more", "less", "fewer") and before in ("no", "not")):
            continue
        if name is None:
            for size in (2, 3, 4):
                name = name or table.get("_".join(words[at : at + size]))
            if word == "up" and name and not _counted(reading, at + 2):
                name = None  # "wakes up to the same day"
        if name is None and (more := OVER_UNDER.get(word)) and words[at + 1 : at + 2]:
            name = more if _counted(reading, at + 1) else None
        if name == "few" and words[at - 1 : at] == ["a"]:
            name = "some"  # "a few" are some
        if name is not None and not (name in ("more", "less") and words[at + 2 : at + 3] in (["one"], ["once"])):
            found.setdefault(name, f'"{word}"')
    return found
