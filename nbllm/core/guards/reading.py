"""What the guards look at, read from a text once: words, facts, polarity and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from nbllm.core.guards.facts import Fact
from nbllm.core.guards.quantities import facts_of
from nbllm.core.guards.tokens import Text, Token, attach
from nbllm.core.guards.words import GuardWords, Lexicon

if TYPE_CHECKING:
    from nbllm.core.guards.contrast import Pair

CLAUSE_ENDS = frozenset(",.;:?!()")
BEGINNING = 3  # letters that forms of one word have in common
MOST_ALIKE = 40
LONGEST_CLAUSE = 20  # tokens
REACH = 4  # tokens between a verb and its particle ("turn the light on")
SHORT_WORDS = frozenset(
    ["on", "off", "in", "out", "up", "down", "over", "under", "to", "back", "away", "an", "aus", "ab", "auf", "zu", "ein"]
)


class Reading:
    """One text, cut and read in one language. Lives for one comparison, or for as long as its text is compared with others."""

    def __init__(self, text: Text, lexicon: Lexicon, words: GuardWords) -> None:
        attach(text, lexicon)
        self.text = text
        self.lexicon = lexicon
        self.words = words
        self.tokens = text.tokens
        self.pair: Pair
        self.facts: list[Fact]
        self.facts, self.used = facts_of(self.tokens, lexicon)

    @cached_property
    def places(self) -> Mapping[int, int]:
        """Return id of a token -> its index."""
        return {id(token): at for at, token in enumerate(self.tokens)}

    def clause_after(self, token: Token) -> Iterator[Token]:
        """Yield the words behind a word up to a comma, a full stop or another such sign, but not very far."""
        start = self.places[id(token)] + 1
        for other in self.tokens[start : start + LONGEST_CLAUSE]:
            if other.kind == "s" and other.raw in CLAUSE_ENDS:
                return
            if other.kind == "w":
                yield other

    @cached_property
    def plain_words(self) -> list[Token]:
        """Word tokens in order, those of numbers and dates included."""
        return [token for token in self.tokens if token.kind == "w"]

    @cached_property
    def content(self) -> list[Token]:
        """Words that carry meaning, in order: no function words, no numbers, units or dates."""
        return [token for at, token in enumerate(self.tokens) if token.kind == "w" and not token.stop and at not in self.used]

    @cached_property
    def has_capitals(self) -> bool:
        """Whether the text has a capital letter, so that small ones are meant."""
        return any(token.raw[0].isupper() for token in self.plain_words)

    def hyphenated(self, token: Token) -> bool:
        """Say whether a word hangs on the one before it by a hyphen ("sugar-free")."""
        at = self.places[id(token)]
        return at > 0 and self.tokens[at - 1].raw == "-"

    @cached_property
    def bases(self) -> frozenset[str]:
        """Bases of all words, and pairs of neighbours joined by _ ("turn_on", also across the words between a verb and its
        particle).
        """
        words = self.plain_words
        found = {token.base for token in words}
        found.update(token.word for token in words)
        for at, token in enumerate(words[1:], start=1):
            before = words[at - 1]
            found.add(f"{before.base}_{token.base}")
            found.add(f"{before.word}_{token.word}")
            if token.word in SHORT_WORDS:
                found.update(f"{other.base}_{token.word}" for other in words[max(0, at - REACH) : at - 1])
        return frozenset(found)

    @cached_property
    def by_beginning(self) -> Mapping[str, list[str]]:
        """Return first letters -> bases of words that begin with them, a few of each."""
        found: dict[str, list[str]] = {}
        for base in dict.fromkeys(token.base for token in self.plain_words):
            same = found.setdefault(base[:BEGINNING], [])
            if len(same) < MOST_ALIKE:
                same.append(base)
        return found

    @cached_property
    def synonyms(self) -> frozenset[int]:
        """Return the groups of synonyms that words of the text are in."""
        table = self.lexicon.synonyms
        return frozenset().union(*(table[base] for base in self.bases if base in table))

    @cached_property
    def joined(self) -> frozenset[str]:
        """Neighbouring words and numbers written as one ("word press" as "wordpress")."""
        pieces = [token.word for token in self.tokens if token.kind != "s"]
        return frozenset({a + b for a, b in pairwise(pieces)})

    @cached_property
    def phrases(self) -> Mapping[int, str]:
        """Return id of a token -> the name that stands for the words it is one of ("United States")."""
        found: dict[int, str] = {}
        table, words = self.words.phrases, self.plain_words
        for at, token in enumerate(words):
            for rest, name in table.get(token.word, ()):
                if tuple(other.word for other in words[at : at + len(rest)]) == rest:
                    found.update((id(other), name) for other in words[at : at + len(rest)])
        return found

    @cached_property
    def keys(self) -> Mapping[str, Token]:
        """Canonical name or base of each word -> its first token."""
        found: dict[str, Token] = {}
        for token in self.plain_words:
            found.setdefault(self.key(token), token)
        return found

    def key(self, token: Token) -> str:
        """Return what a word is compared by: the name that stands for it, else its base. A pronoun ("us") is not taken for a name
        ("US").
        """
        if self.phrases and (name := self.phrases.get(id(token))):
            return name
        if token.stop and not (len(token.raw) > 1 and token.raw.isupper() and self.text.capitals):
            return token.word
        return self.words.aliases.get(token.word) or self.words.aliases.get(token.base) or token.base
