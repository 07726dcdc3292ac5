"""What a text says with numbers, units and dates, as values that compare; and the walk over its tokens that collects them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.tokens import Token

UP_TO = frozenset({("up", "to"), ("bis", "zu")})
Key = tuple[object, ...]


class Fact(Struct, frozen=True, gc=False):
    """One thing said with a number, a unit or a date. It equals another one when they share a key: "10:30" may be in the evening.

    kind: "number" (an amount, with or without a unit), "unit" (a unit alone), "date". A soft fact need not be in the other text,
    but
    must not be another one there ("first", "a week", "morning"). after: what the next word is compared by ("dog" in "2 dogs").
    before: the word before it ("to 5 percent"). place: indexes of its first token and of the one behind it.
    exact: the key against facts that have one too: "3/4/2025" may be in March or April, but is not "4/3/2025".
    """

    keys: frozenset[Key]
    text: str
    kind: str
    soft: bool = False
    after: str = ""
    exact: Key = ()
    before: str = ""
    place: tuple[int, int] = (0, 0)


class Walk:
    """A text's tokens and the facts found in them so far. `used`: indexes of tokens that are part of one,
    `firm`: of one that is not soft.
    """

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self.tokens = tokens
        self.lexicon = lexicon
        self.facts: list[Fact] = []
        self.used: set[int] = set()
        self.firm: set[int] = set()

    def add(self, start: int, end: int, keys: Sequence[Key], kind: str, *, soft: bool = False, exact: Key = ()) -> int:
        """Add a fact that the tokens start..end say; return end."""
        text = " ".join(token.raw for token in self.tokens[start:end])
        after = self.tokens[end].key if end < len(self.tokens) and not self.tokens[end].stop else ""
        before = self.peek(start - 1)
        if (self.peek(start - 2), before) in UP_TO:
            before = "up_to"
        self.facts.append(Fact(frozenset(keys), text, kind, soft, after, exact, before, (start, end)))
        if not soft:
            self.firm.update(range(start, end))
        self.used.update(range(start, end))
        return end

    def peek(self, at: int) -> str:
        """Return the folded word or sign at an index, "" outside the text."""
        return self.tokens[at].word if 0 <= at < len(self.tokens) else ""
