"""Guard "roles": what does what to what. "From euros to dollars" is not "from dollars to euros"."""

from __future__ import annotations

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, failed, passed

MOST_MOVED = 12  # words that are compared pair by pair


def roles(here: Reading, there: Reading) -> Verdict:
    """Return whether no two things have changed places: "from euros to dollars" and "from dollars to euros"."""
    near, near_there = _places(here, near=True), _places(there, near=True)
    far, far_there = _places(here, near=False), _places(there, near=False)
    stayed = frozenset(word for word in near if near_there.get(word) == near[word])
    same = here.lexicon.symmetric
    swapped = _swapped(near, near_there, frozenset(near), same) or _swapped(far, far_there, stayed, same)
    return failed("roles", f'"{swapped[0]}" and "{swapped[1]}" have changed places') if swapped else passed("roles")


def _swapped(mine: dict[str, str], theirs: dict[str, str], among: frozenset[str], same: frozenset[str]) -> tuple[str, str] | None:
    moved = [word for word in mine if word in among and word in theirs and mine[word] != theirs[word]][:MOST_MOVED]
    for at, one in enumerate(moved):
        for two in moved[at + 1 :]:
            if mine[one] == theirs[two] and mine[two] == theirs[one] and not {mine[one], mine[two]} & {*same, one, two}:
                return one, two
    return None


def _places(reading: Reading, *, near: bool) -> dict[str, str]:
    """Return word of meaning or number -> the word before it (near), or the word of meaning before it; articles and words that
    stand twice are left out.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    before = ""
    for token in reading.tokens:
        if token.kind == "s":
            before = "or" if token.raw == "/" else before
            continue
        if token.word in reading.lexicon.determiners or token.word in reading.lexicon.soft_numbers:
            continue
        key = token.word if token.kind == "n" else reading.key(token)
        if not token.stop:
            if key in found:
                twice.add(key)
            found[key] = before
        if near or not token.stop:
            before = key
    return {key: place for key, place in found.items() if key not in twice}
