"""Guards "numbers", "units" and "dates": each amount and date of one text has its equal in the other."""

from __future__ import annotations

from collections.abc import Sequence

from nbllm.core.guards.facts import Fact
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

KINDS = {"numbers": "number", "units": "unit", "dates": "date"}


def compare(here: Reading, there: Reading, on: frozenset[str]) -> list[Verdict]:
    """Return the verdicts of those of the three guards that are on."""
    mine, theirs = without_equal(here.facts, there.facts), without_equal(there.facts, here.facts)
    return [_verdict(guard, kind, mine, theirs) for guard, kind in KINDS.items() if guard in on]


def without_equal(facts: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
    """Return the facts that share no key with a fact of the other text."""
    if not facts:
        return []
    there = frozenset().union(*(fact.keys for fact in others))
    return [fact for fact in facts if not (fact.keys & there)]


def _verdict(guard: str, kind: str, mine: list[Fact], theirs: list[Fact]) -> Verdict:
    here, there = [fact for fact in mine if fact.kind == kind], [fact for fact in theirs if fact.kind == kind]
    firm = any(not fact.soft for fact in (*here, *there))
    if firm or (here and there):
        return apart(guard, _names(here), _names(there))
    return passed(guard)


def _names(facts: list[Fact]) -> str:
    return ", ".join(fact.text for fact in facts[:3])
