"""Guards "numbers", "units" and "dates": each amount and date of one text has its equal in the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec.structs import replace

from nbllm.core.guards.facts import Fact
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

BOUND_SIGNS = frozenset("+<>\u2264\u2265")  # "60+" is "over 60"
MORE_THAN_ONE = ("-2", "")  # "several" in words_*.txt
SYMMETRIC_LINKS = frozenset(
    ["and", "or", "und", "oder", "y", "o", "e", "u", "+", "x", "*", "plus", "mal", "mas", "vs", "versus", "&", ",", "."]
)
PER = frozenset({"per", "pro", "por", "/"})
MOST_FACTS = 40  # facts of a text that are counted
KINDS = {"numbers": "number", "units": "unit", "dates": "date"}


def compare(here: Reading, there: Reading, on: frozenset[str]) -> list[Verdict]:
    """Return the verdicts of those of the three guards that are on."""
    if not (here.facts or there.facts):
        return [passed(guard) for guard in KINDS if guard in on]
    ours, others = _exact(here.facts, there.facts), _exact(there.facts, here.facts)
    mine, theirs = without_equal(ours, others), without_equal(others, ours)
    both = bool(mine and theirs)
    verdicts = [_verdict(guard, kind, mine, theirs, both=both) for guard, kind in KINDS.items() if guard in on]
    if verdicts and verdicts[0].guard == "numbers" and all(verdict.passed for verdict in verdicts):
        verdicts[0] = _counted(here.facts, there.facts)
        if verdicts[0].passed:
            verdicts[0] = _steered(here, there)
        if verdicts[0].passed:
            verdicts[0] = _in_order(here, there)
        more, most = said_more_often(here.facts, there.facts), said_more_often(there.facts, here.facts)
        kinds = {fact.kind == "number" for fact in more} & {fact.kind == "number" for fact in most}
        if verdicts[0].passed and kinds:
            verdicts[0] = apart("numbers", f"{_names(more)} once more", f"{_names(most)} once more")
    return verdicts


def without_equal(facts: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
    """Return the facts that share no key with a fact of the other text."""
    there = frozenset().union(*(fact.keys for fact in others))
    return [fact for fact in facts if not (fact.keys & there)]


def _exact(facts: Sequence[Fact], others: Sequence[Fact]) -> Sequence[Fact]:
    """Return facts with their exact keys alone, where both texts have such."""
    if not (any(fact.exact for fact in facts) and any(fact.exact for fact in others)):
        return facts
    return [replace(fact, keys=frozenset({fact.exact})) if fact.exact else fact for fact in facts]


def said_more_often(facts: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
    """Return the facts that one text says more often than the other: "20 hours a week ... a day" and "20 hours a week ... a
    week".
    """
    left = list(others[:MOST_FACTS])
    found = []
    for fact in facts[:MOST_FACTS]:
        same = next((other for other in left if other.keys & fact.keys), None)
        if same is None:
            found.append(fact)
        else:
            left.remove(same)
    return found


def _verdict(guard: str, kind: str, mine: list[Fact], theirs: list[Fact], *, both: bool) -> Verdict:
    """both: each text says something that the other does not, so that soft facts differ too ("one-time" and "monthly")."""
    here, there = [fact for fact in mine if fact.kind == kind], [fact for fact in theirs if fact.kind == kind]
    firm = any(not fact.soft for fact in (*here, *there))
    if firm or (both and (here or there)):
        return apart(guard, _names(here), _names(there))
    return passed(guard)


def _counted(mine: Sequence[Fact], theirs: Sequence[Fact]) -> Verdict:
    """Return whether equal numbers count the same: "2 dogs and 3 cats" and "3 dogs and 2 cats"."""
    here, there = _by_what(mine), _by_what(theirs)
    for what in sorted(here.keys() & there.keys()):
        if not here[what].keys & there[what].keys:
            return apart("numbers", f"{here[what].text} {what}", f"{there[what].text} {what}")
    return passed("numbers")


def _steered(here: Reading, there: Reading) -> Verdict:
    """Return whether equal numbers are meant alike: not "by 5 percent" and "to 5 percent", nor "over 60" and "60"."""
    for one, other in ((here, there), (there, here)):
        table, bounds = one.lexicon.number_particles, one.lexicon.bounds
        bounded = not other.bases.isdisjoint(one.lexicon.bounded) or not BOUND_SIGNS.isdisjoint(other.text.original)
        for fact in one.facts[:MOST_FACTS]:
            same = [fellow for fellow in other.facts[:MOST_FACTS] if fellow.keys & fact.keys]
            if same and all(fellow.before in table.get(fact.before, ()) for fellow in same):
                return apart("numbers", f"{fact.before} {fact.text}", f"{same[0].before} {same[0].text}")
            share = _each(one, fact)
            other_share = _each(other, same[0]) if same and share else ""
            if share and other_share and share != other_share and not _synonyms(one, share, other_share):
                return apart("numbers", f"{fact.text} per {share}", f"{same[0].text} per {other_share}")
            if same and not bounded and fact.before in bounds and MORE_THAN_ONE not in fact.keys:
                return apart("numbers", f"{fact.before} {fact.text}", same[0].text)
    return passed("numbers")


def _each(reading: Reading, fact: Fact) -> str:
    """Return what an amount is counted for ("user" in "5 dollars per user"), "" where the text does not say."""
    behind = reading.tokens[fact.place[1] : fact.place[1] + 2]
    return behind[1].base if len(behind) == 2 and behind[0].word in PER and behind[1].kind == "w" else ""


def _synonyms(reading: Reading, one: str, two: str) -> bool:
    table = reading.lexicon.synonyms
    return bool(table.get(one, frozenset()) & table.get(two, frozenset()))


def _in_order(here: Reading, there: Reading) -> Verdict:
    """Return whether neighbours have not changed places: "10 - 4" and "4 - 10", "from May to July" and "from July to May"."""
    dated = any(fact.kind == "date" for fact in (*here.facts, *there.facts))
    if not dated and _skeleton(here) == _skeleton(there):
        for one, two in zip(_firm(here), _firm(there), strict=False):
            if not one.keys & two.keys:
                return apart("numbers", one.text, two.text)
    theirs = _neighbours(there)
    for one, link, two in _neighbours(here):
        for first, other, second in theirs:
            turned = one.keys & second.keys and two.keys & first.keys and not one.keys & two.keys
            if turned and link == other:
                return apart("numbers", f"{one.text} before {two.text}", f"{first.text} before {second.text}")
    return passed("numbers")


def _firm(reading: Reading) -> list[Fact]:
    return sorted((fact for fact in reading.facts if fact.place[1] and not fact.soft), key=lambda fact: fact.place)[:MOST_FACTS]


def _skeleton(reading: Reading) -> list[str]:
    """Return the words of a text without its amounts and dates."""
    return [token.word for at, token in enumerate(reading.tokens) if token.kind != "s" and at not in reading.firm]


def _neighbours(reading: Reading) -> list[tuple[Fact, tuple[str, ...], Fact]]:
    """Return (fact, what stands between, next fact) for facts that a word or sign links in an order that means something."""
    facts = sorted((fact for fact in reading.facts[:MOST_FACTS] if fact.place[1]), key=lambda fact: fact.place)
    found: list[tuple[Fact, tuple[str, ...], Fact]] = []
    for one, two in pairwise(facts):
        link = tuple(token.word for token in reading.tokens[one.place[1] : two.place[0]])
        if len(link) == 1 and link[0] not in SYMMETRIC_LINKS:
            found.append((one, link, two))
    return found


def _by_what(facts: Sequence[Fact]) -> dict[str, Fact]:
    """Return what is counted -> its number, for what is counted once."""
    found: dict[str, Fact] = {}
    twice = set()
    for fact in facts:
        if fact.kind == "number" and fact.after:
            if fact.after in found:
                twice.add(fact.after)
            found[fact.after] = fact
    return {what: fact for what, fact in found.items() if what not in twice}


def _names(facts: list[Fact]) -> str:
    return ", ".join(fact.text for fact in facts[:3])
