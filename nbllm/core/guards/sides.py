"""One comparison told from its other side: "A is less risky than B" and "B is more risky than A" ask the same.

Only the two opposites that say how A and B compare are excused by this, and only the places of A and B. Whatever else is turned in
the same texts ("before surgery", "after surgery") still is.
"""

from __future__ import annotations

from msgspec import Struct

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import Token

THAN = frozenset({"than", "als"})
ORDER = frozenset(["before", "after", "above", "below", "vor", "nach", "antes", "despues"])  # these compare by themselves
LESS = frozenset({"less", "fewer", "weniger"})
DEGREES = LESS | {"more", "better", "worse", "mehr", "besser"}
FURTHEST_THAN = 4  # words behind a comparative: "a larger population than"
PLACING = frozenset(
    ["in", "at", "on", "with", "without", "for", "from", "of", "during", "before", "after", "under", "over", "by", "to", "as"]
).union(
    ["im", "am", "an", "auf", "bei", "mit", "ohne", "fuer", "von", "vor", "nach", "aus", "zu", "zum", "zur", "seit", "waehrend"]
)  # what stands behind one belongs to the thing before it: "gold in spring"


class Sides(Struct, frozen=True, gc=False):
    """What two texts compare, by the keys of its words: what stands first here and second there, and the other way round."""

    first: frozenset[str]
    second: frozenset[str]

    def hold(self, one: str, two: str) -> bool:
        """Say whether two words are of the two things, one of each."""
        return (one in self.first and two in self.second) or (one in self.second and two in self.first)


def turned_around(here: Reading, one: str, there: Reading, two: str) -> Sides | None:
    """Return the two things that two opposites compare from both sides, None where these two opposites do not."""
    mine, theirs = _split(here, one), _split(there, two)
    if mine is None or theirs is None or ({one, two} & ORDER and not {one, two} <= ORDER):
        return None
    if mine.less != theirs.less:
        return None  # "A is less dangerous than B", "B is safer than A"
    ahead, behind, ahead_there, behind_there = map(_keys, (mine.ahead, mine.behind, theirs.ahead, theirs.behind))
    first = (ahead & behind_there) - behind - ahead_there
    second = (behind & ahead_there) - ahead - behind_there
    if not (_opens(mine.behind, second) and _opens(theirs.behind, first)):
        return None
    if _keeps(mine.ahead, first) or _keeps(theirs.ahead, second):
        return None
    return Sides(first, second)


class _Split(Struct, frozen=True, gc=False):
    """A text's words before and behind what compares; `less`: the comparative is turned by a word before it."""

    ahead: list[Token]
    behind: list[Token]
    less: bool


def _split(reading: Reading, word: str) -> _Split | None:
    """Return the words before a word that compares and behind it, or behind its "than"; None when it compares nothing, or stands
    there twice.
    """
    words = reading.plain_words
    places = [at for at, token in enumerate(words) if word in (token.word, token.base)]
    if len(places) != 1:
        return None
    at = places[0]
    if word in ORDER:
        return _Split(words[:at], words[at + 1 :], False)
    than = next((i for i in range(at + 1, min(len(words), at + 1 + FURTHEST_THAN)) if words[i].word in THAN), None)
    before = words[at - 1].word if at else ""
    if than is None or not (_compares(words[at]) or before in DEGREES) or any(map(_compares, words[at + 1 : than])):
        return None  # "older gold is cheaper than": it is "cheaper" that compares
    return _Split(words[:at], words[than + 1 :], before in LESS)


def _compares(token: Token) -> bool:
    """Say whether a word is a comparative: "safer", "more"."""
    return token.word in DEGREES or (token.word.endswith("er") and not token.stop)


def _keys(tokens: list[Token]) -> frozenset[str]:
    return frozenset(token.key for token in tokens if not token.stop)


def _opens(tokens: list[Token], thing: frozenset[str]) -> bool:
    """Say whether the first word of meaning is of a thing."""
    return next((token.key in thing for token in tokens if not token.stop), False)


def _keeps(ahead: list[Token], thing: frozenset[str]) -> bool:
    """Say whether something hangs on a thing that did not move with it ("gold in spring", "silver in spring")."""
    seen = hangs = False
    for token in ahead:
        if hangs and not token.stop:
            if token.key not in thing:
                return True
            hangs = False
        seen = seen or token.key in thing
        hangs = hangs or (seen and token.word in PLACING)
    return False
