"""What the guards look at, read from a text once: words, facts, polarity and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from nbllm.core.guards.facts import Fact
from nbllm.core.guards.grouped import Grouped
from nbllm.core.guards.lazy import lazy
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.quantities import facts_of
from nbllm.core.guards.tokens import Text, Token, attach
from nbllm.core.guards.words import GuardWords

if TYPE_CHECKING:
    from nbllm.core.guards.pair import Pair

CLAUSE_ENDS = frozenset(",.;:?!()")
BEGINNING = 3  # letters that forms of one word have in common
MOST_ALIKE = 40
MOST_SHORTS = 8
LEFT_OUT = (frozenset({"of", "the", "for", "and", "de", "la"}), frozenset[str]())
LONGEST_CLAUSE = 20  # tokens
REACH = 4  # tokens between a verb and its particle ("turn the light on")
FORMS = {
    form: base
    for base, forms in {
        "go": ("goes", "going", "went", "gone"),
        "get": ("gets", "getting", "got", "gotten"),
        "come": ("comes", "coming", "came"),
        "make": ("makes", "making", "made"),
        "let": ("lets", "letting"),
    }.items()
    for form in forms
}  # of function words, which have no base: "goes down" is the term "go_down"
SHORT_WORDS = frozenset(
    ["on", "off", "in", "out", "up", "down", "over", "under", "to", "back", "away", "an", "aus", "ab", "auf", "zu", "ein"]
)


def is_short(token: Token) -> bool:
    """Say whether a word may be the initials of others: two to six capital letters."""
    return token.raw.isupper() and 2 <= len(token.raw) <= 6


class Reading(Grouped):
    """One text, cut and read in one language. Lives for one comparison, or for as long as its text is compared with others."""

    def __init__(self, text: Text, lexicon: Lexicon, words: GuardWords) -> None:
        self.text = text
        self.lexicon = lexicon
        self.words = words
        self.tokens = text.tokens
        self.plain_words = attach(text, lexicon, words)  # word tokens in order, those of numbers and dates included
        self.pair: Pair
        self.facts: list[Fact]
        self.facts, self.used, self.firm = facts_of(self.tokens, lexicon)
        # Words that carry meaning, in order: no function words, no numbers, units or dates.
        self.content = [
            token for at, token in enumerate(self.tokens) if token.kind == "w" and not token.stop and at not in self.used
        ]
        # The same with the words of soft facts ("day", "evening"), which may be what two texts differ in.
        self.wide = [token for at, token in enumerate(self.tokens) if token.kind == "w" and not token.stop and at not in self.firm]
        self.bases = self._bases()
        self.keys = frozenset(token.key for token in self.plain_words)

    @lazy
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

    @lazy
    def has_capitals(self) -> bool:
        """Whether the text has a capital letter, so that small ones are meant."""
        return any(token.raw[0].isupper() for token in self.plain_words)

    def hyphenated(self, token: Token) -> bool:
        """Say whether a word hangs on the one before it by a hyphen ("sugar-free")."""
        at = self.places[id(token)]
        return at > 0 and self.tokens[at - 1].raw == "-"

    def _bases(self) -> frozenset[str]:
        """Return words and their bases, and the terms of two words among them ("turn_on", also with words in between)."""
        words, terms, starts = self.plain_words, self.lexicon.terms, self.lexicon.term_starts
        found = {token.base for token in words}
        found.update(token.word for token in words)
        for at, token in enumerate(words[1:], start=1):
            if token.word not in terms and token.base not in terms:
                continue
            for other in words[self._first_of_term(at) : at]:
                base = FORMS.get(other.word, other.base)
                if base not in starts and other.base not in starts and other.word not in starts:
                    continue
                for term in (f"{base}_{token.base}", f"{other.base}_{token.base}", f"{other.word}_{token.word}"):
                    if term in terms:
                        found.add(term)
        return frozenset(found)

    def _first_of_term(self, at: int) -> int:
        """Return where a term that ends at a word may begin: a few words before a particle ("turn the light on"), else the word
        before it, with small words between ("hand in my notice" is "hand_notice").
        """
        words = self.plain_words
        if words[at].word in SHORT_WORDS:
            return max(0, at - REACH)
        first = at - 1
        while first > max(0, at - REACH) and words[first].stop:
            first -= 1
        return first

    @lazy
    def by_beginning(self) -> Mapping[str, list[str]]:
        """Return first letters -> bases of words that begin with them, a few of each."""
        found: dict[str, list[str]] = {}
        for base in dict.fromkeys(token.base for token in self.plain_words):
            same = found.setdefault(base[:BEGINNING], [])
            if len(same) < MOST_ALIKE:
                same.append(base)
        return found

    @lazy
    def unlisted(self) -> list[Token]:
        """Return the words that no list of the language has."""
        listed = self.lexicon.listed
        return [token for token in self.content if token.word not in listed and token.base not in listed]

    @lazy
    def terms(self) -> frozenset[str]:
        """Return the terms of several words that the text has."""
        return frozenset(base for base in self.bases if "_" in base)

    @lazy
    def initials(self) -> tuple[str, ...]:
        """Return the first letters of all words, once without small words ("Charles de Gaulle" as "cg") and once with them
        ("cdg").
        """
        return tuple("".join(token.word[0] for token in self.plain_words if token.word not in left) for left in LEFT_OUT)

    @lazy
    def shorts(self) -> list[str]:
        """Return words that may be the initials of others ("CDG"), a few."""
        return [token.word for token in self.content if is_short(token)][:MOST_SHORTS]

    @lazy
    def joined(self) -> frozenset[str]:
        """Neighbouring words and numbers written as one ("word press" as "wordpress")."""
        pieces = [token for token in self.tokens if token.kind != "s"]
        found = {a.word + b.word for a, b in pairwise(pieces)}
        found.update(a.word + b.base for a, b in pairwise(pieces) if b.base and b.base != b.word)
        return frozenset(found)
