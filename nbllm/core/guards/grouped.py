"""Words, and the groups of synonyms that they are in."""

from __future__ import annotations

from nbllm.core.guards.lazy import lazy
from nbllm.core.guards.lexicon import Lexicon


class Grouped:
    """Some words of one language, by their bases, and the groups of synonyms that they are in."""

    bases: frozenset[str]
    lexicon: Lexicon

    @lazy
    def synonyms(self) -> frozenset[int]:
        """Return the groups of the shorter list that any of the words is in."""
        table = self.lexicon.synonyms
        return frozenset().union(*(table[base] for base in self.bases if base in table))

    @lazy
    def senses(self) -> frozenset[int]:
        """Return the groups of the larger list that any of the words is in."""
        table = self.lexicon.thesaurus
        return frozenset().union(*(table[base] for base in self.bases if base in table))
