"""All guards over two texts."""

from __future__ import annotations

from collections.abc import Callable

from nbllm.core.guards import amounts, contrast, literals, naming, polarity, roles, shape, wording
from nbllm.core.guards.pair import Pair
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import cut
from nbllm.core.guards.verdicts import Verdict, failed, passed
from nbllm.core.guards.words import GuardWords, shipped

LONGEST = 8_000  # characters: reading longer texts would take more than some ms, so they only pass when they are equal

Guard = Callable[[Reading, Reading], Verdict]
GUARDS: dict[str, Guard] = {
    "negation": polarity.compare,
    "opposites": contrast.opposites,
    "quantifiers": contrast.quantifiers,
    "names": naming.names,
    "quotes": literals.quotes,
    "language": shape.language,
    "length": shape.length,
    "question": shape.question,
    "roles": roles.roles,
    "wording": wording.wording,
}
ALL = frozenset({*amounts.KINDS, *GUARDS})


def check(query: str, stored: str, *, words: GuardWords | None = None, on: frozenset[str] = ALL) -> tuple[Verdict, ...]:
    """Return one verdict for each guard in `on`: whether the stored question may stand for the query.

    `words`: word lists, `shipped()` when None. Texts over LONGEST characters pass only when they are equal, spaces aside:
    what no guard has read is not let pass. Raises ValueError for a guard that does not exist.
    """
    if not on <= ALL:
        raise ValueError(f"no such guard: {', '.join(sorted(on - ALL))}; there are {', '.join(sorted(ALL))}")
    names = [name for name in (*amounts.KINDS, *GUARDS) if name in on]
    too_long = max(len(query), len(stored)) > LONGEST
    if query == stored or (not too_long and query.split() == stored.split()):
        return tuple(passed(name) for name in names)
    if too_long:
        detail = f"texts of {len(query):,} and {len(stored):,} characters differ; over {LONGEST:,} only equal ones pass"
        return tuple(failed(name, detail) for name in names)
    here, there = _read_both(query, stored, words or shipped())
    return (*amounts.compare(here, there, on), *(guard(here, there) for name, guard in GUARDS.items() if name in on))


def _read_both(query: str, stored: str, words: GuardWords) -> tuple[Reading, Reading]:
    """Read each text in its language. One that shows none ("KfW 442?") is read in the other's, and both in English where neither
    shows one.
    """
    a, b = cut(query, words), cut(stored, words)
    code_a, code_b = a.code or b.code or "en", b.code or a.code or "en"
    here, there = Reading(a, words.languages[code_a], words), Reading(b, words.languages[code_b], words)
    here.pair = there.pair = Pair(here, there)
    return here, there
