"""Guard "roles": what does what to what. "From euros to dollars" is not "from dollars to euros"."""

from __future__ import annotations

from itertools import islice, pairwise

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.sides import Sides
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, failed, passed

MOST_MOVED = 12  # words that are compared pair by pair
ASKING = frozenset({"who", "whom", "which", "what", "whose"})
FURTHEST_AGENT, MOST_AGENTS = 6, 3  # words behind "by" that are looked at
LONGEST_EXCHANGED = 3  # words
PERSONS = frozenset({"i", "we", "he", "she", "they", "you", "ich", "wir", "er", "sie"})
DOING = frozenset({"do", "does", "did"})
FROM = frozenset({"from", "von", "vom", "aus", "desde"})
TO = frozenset({"to", "into", "onto", "nach", "zum", "zur", "hacia"})
MUTUAL = frozenset(
    ["same", "equal", "similar", "related", "married", "between", "differ", "different", "difference", "far", "compare", "like"]
)
EITHER_WAY = MUTUAL | {
    "marry",
    "meet",
    "border",
    "face",
    "play",
    "fight",
    "resemble",
    "touch",
    "join",
}  # what A does to B, B does to A


def roles(here: Reading, there: Reading) -> Verdict:
    """Return whether no two things have changed places: "from euros to dollars" and "from dollars to euros"."""
    near, far = _places(here)
    near_there, far_there = _places(there)
    stayed = frozenset(word for word in near if near_there.get(word) == near[word])
    same = here.lexicon.symmetric
    sides = tuple(here.pair.turned_around.values())
    swapped = _swapped(near, near_there, frozenset(near), same, sides)
    swapped = swapped or _swapped(far, far_there, stayed, same | {""}, sides)
    swapped = swapped or _exchanged(here, there) or _acted(here, there)
    if swapped:
        return failed("roles", f'"{swapped[0]}" and "{swapped[1]}" have changed places')
    way = _other_way(here, there)
    if way:
        return failed("roles", f'"{way}" is where it comes from in one, and where it goes in the other')
    done = _done_by(here, there) or _passive(here, there) or _passive(there, here) or _done_to(here, there) or _done_to(there, here)
    return failed("roles", f'"{done}" does it here, and has it done there') if done else passed("roles")


def _exchanged(here: Reading, there: Reading) -> tuple[str, str] | None:
    """Return the two words that have changed places in otherwise equal texts ("Maria sold it to Peter", "Peter sold it to
    Maria").
    """
    if len(here.plain_words) != len(there.plain_words):
        return None
    a, b = _row(here), _row(there)
    if len(a) != len(b) or not MUTUAL.isdisjoint(here.bases):
        return None
    differ = [at for at, (one, two) in enumerate(zip(a, b, strict=True)) if one.key != two.key]
    if len(differ) < 2:
        return None
    a, b = a[differ[0] : differ[-1] + 1], b[differ[0] : differ[-1] + 1]
    mine, theirs = [token.key for token in a], [token.key for token in b]
    symmetric = here.lexicon.symmetric | here.lexicon.determiners
    for size in range(1, min(LONGEST_EXCHANGED, len(a) // 2) + 1):
        for other in range(1, min(LONGEST_EXCHANGED, len(a) - size) + 1):
            between = mine[size : len(a) - other]
            turned = mine[len(a) - other :] + between + mine[:size]
            if turned != theirs or not (_things(a[:size]) and _things(a[len(a) - other :])):
                continue
            # "when Mrs Lee Mr Roy ...", but not "Mrs Lee, Mr Roy"
            beside = not between and min(size, other) > 1 and here.places[id(a[size])] == here.places[id(a[size - 1])] + 1
            if beside or not symmetric.issuperset(between):
                return a[0].raw, a[-1].raw
    return None


def _acted(here: Reading, there: Reading) -> tuple[str, str] | None:
    """Return who does what to whom here and has it done there, said with another verb ("A beat B", "B defeated A")."""
    theirs = [(one.key, verb.base, two.key) for one, verb, two in _clauses(there)]
    for one, verb, two in _clauses(here) if theirs else ():
        opposites = here.lexicon.opposites.get(verb.base, frozenset())
        if any(who == two.key and whom == one.key and does not in opposites for who, does, whom in theirs):
            return one.raw, two.raw
    return None


def _clauses(reading: Reading) -> list[tuple[Token, Token, Token]]:
    """Return (who, does what, to whom), as far as three words in a row can say it, both of them names or behind an article."""
    words, small = reading.plain_words, reading.lexicon.determiners
    named = {id(token) for before, token in pairwise(words) if before.word in small}
    named.update(id(token) for token in words if token.raw[0].isupper() and not token.first and not token.stop)
    if len(named) < 2:
        return []
    row = [token for token in words if token.word not in small]
    return [
        (one, verb, two)
        for one, verb, two in zip(row, row[1:], row[2:], strict=False)
        if {id(one), id(two)} <= named
        and not verb.stop
        and verb.raw.islower()
        and verb.base not in EITHER_WAY
        and id(verb) not in named
    ]


def _other_way(here: Reading, there: Reading) -> str:
    """Return what something comes from in one text and goes to in the other: "from A to B", "move a B over to A"."""
    if FROM.isdisjoint(here.bases) and FROM.isdisjoint(there.bases):
        return ""
    mine, theirs = _ends(here), _ends(there)
    if any(theirs.get(word) == end for word, end in mine.items()):
        return ""  # "onto my new phone from the old one", "from my old phone to the new one"
    return next((word for word, end in mine.items() if theirs.get(word, end) != end), "")


def _ends(reading: Reading) -> dict[str, bool]:
    """Return what the words behind "from" and "to" are compared by -> whether it goes there."""
    words, small, found = reading.plain_words, reading.lexicon.determiners, dict[str, bool]()
    both: set[str] = set()
    for at, token in enumerate(words):
        if token.word not in FROM and token.word not in TO:
            continue
        for other in islice((word for word in words[at + 1 : at + 4] if word.word not in small), 2):
            if other.stop:
                break
            if found.setdefault(other.key, token.word in TO) != (token.word in TO):
                both.add(other.key)
    return {word: end for word, end in found.items() if word not in both}


def _things(tokens: list[Token]) -> bool:
    """Say whether words name somebody or something that does or is done to."""
    return any(not token.stop or token.word in PERSONS for token in tokens)


def _done_by(here: Reading, there: Reading) -> str:
    """Return who does something here by whom it is not done there, though both are in both texts: "bound by the criminal court",
    "bound by the findings of a civil court".
    """
    if "by" not in here.bases or "by" not in there.bases:
        return ""
    mine, theirs = _agents(here), _agents(there)
    for verb in mine.keys() & theirs.keys():
        one, two = mine[verb] - theirs[verb], theirs[verb] - mine[verb]
        if one & there.bases and two & here.bases:
            return min(one & there.bases)
    return ""


def _passive(here: Reading, there: Reading) -> str:
    """Return the name by which something is done here and to which it is done there: "is A owned by B", "does A own B"."""
    if "by" not in here.bases or "by" in there.bases:
        return ""
    words, others = here.plain_words, there.plain_words
    for verb, by, agent in zip(words, words[1:], words[2:], strict=False):
        done = by.word == "by" and not verb.stop and verb.word != verb.base and not verb.word.endswith("s")
        if not (done and agent.raw[0].isupper() and not agent.stop):
            continue
        at = next((at for at, token in enumerate(others) if token.base == verb.base), len(others))
        ahead, behind = ({token.key for token in part} for part in (others[:at], others[at + 1 :]))
        if agent.key in behind - ahead:
            return agent.raw
    return ""


def _agents(reading: Reading) -> dict[str, frozenset[str]]:
    """Return verb -> bases of the first words behind its "by"."""
    words, found = reading.plain_words, {}
    for at in range(1, len(words) - 1):
        if words[at].word == "by" and not words[at - 1].stop:
            behind = [token.base for token in words[at + 1 : at + 1 + FURTHEST_AGENT] if not token.stop]
            found[words[at - 1].base] = frozenset(behind[:MOST_AGENTS])
    return found


def _row(reading: Reading) -> list[Token]:
    return [token for token in reading.tokens if token.kind != "s"]


def _done_to(here: Reading, there: Reading) -> str:
    """Return the name that does something here and has it done there: "which artists did he influence", "which artists influenced
    him".
    """
    if here.bases.isdisjoint(DOING) or not there.bases.isdisjoint(DOING):
        return ""
    words, others = here.plain_words, there.plain_words
    if not any(token.word in ASKING for token in words[:3]) or not any(token.word in ASKING for token in others[:3]):
        return ""
    at = next((at for at, token in enumerate(words) if token.word in DOING), 0)
    if not at or at == len(words) - 1:
        return ""
    subject = next((token for token in words[at + 1 :] if token.word not in here.lexicon.determiners), None)
    if subject is None or subject.stop:
        return ""
    verbs = {token.base for token in words[words.index(subject) + 1 :] if not (token.stop or token.raw[0].isupper())}
    behind = [token for token in others if token.word not in there.lexicon.determiners]
    for verb, thing in pairwise(behind):
        if verb.base in verbs and verb.word != verb.base + "ing" and thing.key == subject.key:
            return subject.raw
    return ""


def _swapped(
    mine: dict[str, str], theirs: dict[str, str], among: frozenset[str], same: frozenset[str], sides: tuple[Sides, ...]
) -> tuple[str, str] | None:
    """Return two words that have changed places, but not the two sides of a comparison that was turned around."""
    moved = [word for word in mine if word in among and word in theirs and mine[word] != theirs[word]][:MOST_MOVED]
    for at, one in enumerate(moved):
        for two in moved[at + 1 :]:
            crossed = mine[one] == theirs[two] and mine[two] == theirs[one] and not {mine[one], mine[two]} & {*same, one, two}
            if crossed and not any(compared.hold(one, two) for compared in sides):
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
