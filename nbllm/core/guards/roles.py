"""Guard "roles": what does what to what. "From euros to dollars" is not "from dollars to euros"."""

from __future__ import annotations

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, failed, passed

MOST_MOVED = 12  # words that are compared pair by pair


def roles(here: Reading, there: Reading) -> Verdict:
    """Return whether no two things have changed places: "from euros to dollars" and "from dollars to euros"."""
    near, far = _places(here)
    near_there, far_there = _places(there)
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


def _places(reading: Reading) -> tuple[dict[str, str], dict[str, str]]:
    """Return word of meaning or number -> the word before it, and -> the word of meaning before it. Left out: articles, and words
    that stand twice.
    """
    near: dict[str, str] = {}
    far: dict[str, str] = {}
    twice: set[str] = set()
    before = meaning = ""
    left_out, soft = reading.lexicon.determiners, reading.lexicon.soft_numbers
    for token in reading.tokens:
        word = token.word
        if token.kind == "s":
            if word == "/":
                before = "or"
        elif word not in left_out and word not in soft:
            key = token.key or word
            if not token.stop:
                if key in near:
                    twice.add(key)
                near[key], far[key], meaning = before, meaning, key
            before = key
    for key in twice:
        del near[key], far[key]
    return near, far
