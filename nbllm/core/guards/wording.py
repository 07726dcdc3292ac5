"""Guard "wording": not one word was swapped for another that is no synonym, in an otherwise equal text ("track" and "trick")."""

from __future__ import annotations

from itertools import pairwise

from nbllm.core.guards.done import done_already
from nbllm.core.guards.letters import shared
from nbllm.core.guards.naming import initials
from nbllm.core.guards.reading import BEGINNING as RELATED
from nbllm.core.guards.reading import SHORT_WORDS, Reading
from nbllm.core.guards.slips import slipped
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, apart, passed

MOST_STRANGE = 12  # words in a gap, after which two texts are no longer equal otherwise
SHORT_ENDING = 2  # letters of an ending that says too little about a short word ("car", "care")
LEAST_EQUAL = 0.45  # share of words from which texts are equal but for one place
FEWEST_EQUAL = 4
NOTHING: frozenset[int] = frozenset()
STEERING = frozenset({"up", "down", "out", "off", "away", "back", "over", "under"})


def wording(here: Reading, there: Reading) -> Verdict:
    """Return whether not one word of meaning was swapped for another that is no synonym, in an otherwise equal text."""
    mine, theirs = here.pair.strange(here), here.pair.strange(there)
    if not (mine or theirs):
        return _steering(here, there)
    if (
        _one_place(here, there, [*mine, *theirs])
        or done_already(here, there, mine, theirs)
        or done_already(there, here, theirs, mine)
    ):
        return apart("wording", _listed(mine), _listed(theirs))
    if not (mine and theirs):
        return _one_for_a_small_word(here, there, mine or theirs)
    if max(len(mine), len(theirs)) <= MOST_STRANGE and _frame(here, mine) == _frame(there, theirs):
        return apart("wording", _listed(mine), _listed(theirs))
    return passed("wording")


def _one_place(here: Reading, there: Reading, strange: list[Token]) -> bool:
    """Say whether most of two texts is equal, word for word, and what is strange stands in the one place where they differ."""
    a, b = _row(here), _row(there)
    shortest = min(len(a), len(b))
    start = 0
    while start < shortest and a[start].key == b[start].key:
        start += 1
    end = 0
    while end < shortest - start and a[-1 - end].key == b[-1 - end].key:
        end += 1
    if start + end < LEAST_EQUAL * max(len(a), len(b)) or start + end < FEWEST_EQUAL:
        return False
    told = (
        {id(token) for one in (here, there) for token in one.content if token.word not in one.lexicon.relative}
        - _asked(here)
        - _asked(there)
    )
    between = [row[start : len(row) - end] for row in (a, b)]
    if _more_words(here, between, strange):
        return False
    ids = told & {id(token) for token in strange}
    if not all(any(not token.stop or (token.raw[0].isupper() and not token.first) for token in row) for row in between):
        return False  # a word more, which tells more of the same
    return any(id(token) in ids for row in between for token in row)


def _more_words(here: Reading, between: list[list[Token]], strange: list[Token]) -> bool:
    """Say whether all that one text has in the place where two differ is in the other too, to the letter and in its order: it tells
    more of the same ("Tokyo an expensive city", "Tokyo expensive"). "Save a file" and "delete a saved file" do not.
    """
    names = any(token.raw[0].isupper() and not token.first for row in between for token in row)
    denials = here.lexicon.weak_negators
    if names or any(token.base in denials for token in strange):
        return False
    shorter, longer = sorted(([token.word for token in row] for row in between), key=len)
    rest = iter(longer)
    return all(word in rest for word in shorter)


def _asked(reading: Reading) -> set[int]:
    """Return the words that say what kind of thing is asked for ("which city", "qué año"): the other text asks for it otherwise."""
    words = reading.plain_words
    return {id(token) for before, token in pairwise(words) if before.word in reading.lexicon.asking}


def _row(reading: Reading) -> list[Token]:
    return [token for token in reading.tokens if token.kind != "s" and token.base not in reading.lexicon.filler]


def _one_for_a_small_word(here: Reading, there: Reading, strange: list[Token]) -> Verdict:
    """Return whether one word of meaning did not take the place of a function word ("every 4 hours" and "for 4 hours")."""
    a, b = here.plain_words, there.plain_words
    if len(a) == len(b):
        swapped = [(one, two) for one, two in zip(a, b, strict=True) if one.word != two.word]
        if len(swapped) == 1 and (swapped[0][0] in strange or swapped[0][1] in strange):
            return apart("wording", _listed([swapped[0][0]]), _listed([swapped[0][1]]))
    return passed("wording")


def _steering(here: Reading, there: Reading) -> Verdict:
    """Return whether texts of equal words differ in no single word that steers a verb ("sign up" and "sign out")."""
    a, b = [token.word for token in here.plain_words], [token.word for token in there.plain_words]
    if len(a) == len(b):
        swapped = [(one, two) for one, two in zip(a, b, strict=True) if one != two]
        if len(swapped) == 1 and {*swapped[0]} & STEERING and {*swapped[0]} <= SHORT_WORDS:
            return apart("wording", f'"{swapped[0][0]}"', f'"{swapped[0][1]}"')
    return passed("wording")


def _listed(tokens: list[Token]) -> str:
    return ", ".join(f'"{token.raw}"' for token in tokens[:3])


def strange(here: Reading, there: Reading) -> list[Token]:
    """Return words of meaning that the other text has neither in itself nor as a synonym or another form."""
    lexicon, bases, keys = here.lexicon, there.bases, there.keys
    filler, negators, strong = lexicon.filler, lexicon.negators, lexicon.strong_negators
    found: list[Token] = []
    joined: frozenset[str] | None = None
    for token in here.wide:
        base = token.base
        if base == "less" and not there.bases.isdisjoint(negators):
            continue  # "doesn't sound as harsh"
        if base == "longer" and "no" in here.bases:
            continue  # "no longer": the guard "negation" looks
        if base in bases or base in filler or token.key in keys or token.word in negators or token.word in strong:
            continue
        if joined is None:
            joined = here.joined & there.keys  # "web site", "website"
        if not (any(token.word in other for other in joined) or _known_otherwise(here, token, there)):
            found.append(token)
            if len(found) > MOST_STRANGE:
                break
    return found


def _known_otherwise(here: Reading, token: Token, there: Reading) -> bool:
    """Say whether the other text has a synonym or another form of a word, or its opposite denied."""
    base, lexicon, alone = token.base, here.lexicon, here.pair.alone(there)
    if base in lexicon.synonyms and not lexicon.synonyms[base].isdisjoint(alone.synonyms):
        return True
    if base in lexicon.thesaurus and not lexicon.thesaurus[base].isdisjoint(alone.senses):
        return True
    if base in here.pair.excused or initials(here, token, there) or slipped(here, token, there):
        return True
    for term in here.terms:  # "turn off" for "disable"
        if base in term.split("_") and (
            lexicon.synonyms.get(term, NOTHING) & there.synonyms or lexicon.thesaurus.get(term, NOTHING) & there.senses
        ):
            return True
    return any(related(base, other, lexicon.forms) for other in there.by_beginning.get(base[:RELATED], ()))


def related(one: str, two: str, forms: frozenset[str]) -> bool:
    """Say whether two words are forms of one ("culture", "cultural"; "tax", "taxable"): alike but for endings."""
    same = shared(one, two)
    enough = same > RELATED or (min(len(one), len(two)) == same and abs(len(one) - len(two)) > SHORT_ENDING)
    return enough and (not one[same:] or one[same:] in forms) and (not two[same:] or two[same:] in forms)


def _frame(reading: Reading, strange: list[Token]) -> list[str]:
    """Return the text's bases in order with a gap for the strange words: what stays when one word is swapped for another."""
    gaps = {id(token) for token in strange}
    frame: list[str] = []
    for token in reading.tokens:
        if id(token) in gaps:
            if not frame or frame[-1] != "_":
                frame.append("_")
        elif token.kind != "s" and token.base not in reading.lexicon.filler and token.word not in reading.lexicon.determiners:
            frame.append(token.key if token.kind == "w" else token.word)
    return frame
