"""Two readings beside each other, and what several guards want to know of both."""

from __future__ import annotations

from collections.abc import Iterator

from nbllm.core.guards.contrast import opposed
from nbllm.core.guards.grouped import Grouped
from nbllm.core.guards.lazy import lazy
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.sides import Sides, turned_around
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.wording import strange

NEAR, FAR = 2, 6  # words between a denial and what it denies
WIDE = frozenset({"enough", "still"})  # "doesn't challenge our boy enough", "don't think it was still valid"


class Alone(Grouped):
    """Words that only one of two texts has."""

    def __init__(self, bases: frozenset[str], lexicon: Lexicon) -> None:
        self.bases, self.lexicon = bases, lexicon


class Pair:
    """Two readings and what several guards want to know of both: which of their words are opposites, and which only one has."""

    def __init__(self, here: Reading, there: Reading) -> None:
        self.here = here
        self.there = there

    @lazy
    def opposed(self) -> list[tuple[str, str]]:
        """Pairs of (word of `here`, its opposite in `there`)."""
        return list(opposed(self.here, self.there))

    @lazy
    def turned_around(self) -> dict[tuple[str, str], Sides]:
        """The pairs of opposites that compare the same things from both sides ("less risky than", "more risky than"), and these."""
        found = ((pair, turned_around(self.here, pair[0], self.there, pair[1])) for pair in self.opposed)
        return {pair: sides for pair, sides in found if sides is not None and pair[0] not in self.turned}

    @lazy
    def excused(self) -> frozenset[str]:
        """Words of both texts that are opposites and say the same here: one is denied, or they compare from both sides."""
        return self.turned.union(*self.turned_around)

    @lazy
    def turned(self) -> frozenset[str]:
        """Words of both texts that are opposites and of which exactly one is denied: "not safe" and "unsafe"."""
        return self._turned(self.opposed)

    @lazy
    def said_otherwise(self) -> frozenset[str]:
        """The same, and words such as "silent" where the other text has "no sound"."""
        lacking = [*_lacking(self.here, self.there), *((b, a) for a, b in _lacking(self.there, self.here))]
        return self.turned | self._turned(lacking)

    def _turned(self, pairs: list[tuple[str, str]]) -> frozenset[str]:
        return frozenset(word for one, two in pairs if _denied(self.here, one, self.there, two) for word in (one, two))

    def alone(self, reading: Reading) -> Alone:
        """Return what the words that only one of the two texts has mean."""
        return self._alone[0 if reading is self.here else 1]

    @lazy
    def _alone(self) -> tuple[Alone, Alone]:
        mine, theirs, lexicon = self.here.bases, self.there.bases, self.here.lexicon
        return Alone(mine - theirs, lexicon), Alone(theirs - mine, lexicon)

    def strange(self, reading: Reading) -> list[Token]:
        """Return the words of meaning that one of the two texts has and the other has in no form."""
        return self._strange[0 if reading is self.here else 1]

    @lazy
    def _strange(self) -> tuple[list[Token], list[Token]]:
        return strange(self.here, self.there), strange(self.there, self.here)


def _lacking(here: Reading, there: Reading) -> Iterator[tuple[str, str]]:
    """Yield (word of one text that says that something is not there, what the other text has of it): "silent", "sound"."""
    table = here.lexicon.lacks
    if here.bases.isdisjoint(table):
        return
    for word in sorted(here.bases & table.keys()):
        yield from ((word, other) for other in sorted(table[word] & there.bases) if other not in here.bases)


def _denied(here: Reading, word: str, there: Reading, other: str) -> bool:
    """Say whether exactly one of the two opposites is denied where it stands: "not safe" is "unsafe"."""
    return _negated(here, word) != _negated(there, other)


def _negated(reading: Reading, word: str) -> bool:
    words = reading.plain_words
    for at, token in enumerate(words):
        if word in (token.base, token.word):
            reach = FAR if word in WIDE else NEAR
            return any(
                other.word in reading.lexicon.negators or other.word.endswith("n't") for other in words[max(0, at - reach) : at]
            )
    return False
