"""Guard "negation": both texts deny the same thing, or neither denies anything. "Cannot" is "unable to"; "not uncommon" is
"common".
"""

from __future__ import annotations

from msgspec import Struct

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed

GUARD = "negation"
MOST_HEADS = 3  # words behind a denial that it may be about
NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis")
SENTENCE_SIGNS = frozenset(".?!:")
COMMANDS = frozenset({"don't", "dont"})  # at the beginning they forbid; "isn't" and "can't" there only ask


class Denial(Struct, frozen=True):
    """A word that denies. heads: bases of what it denies, up to a comma, "and" or "but"; near: they stand right behind it ("not
    safe").

    sure: false where the first may be a subject ("doesn't my screen turn on"); doubled: it denies a denial ("not uncommon").
    """

    word: str
    heads: frozenset[str]
    near: bool = False
    sure: bool = True
    doubled: str = ""


class Weak(Struct, frozen=True):
    """A word that may deny ("avoid", "stop working"), and what."""

    base: str
    heads: frozenset[str]


class Polarity(Struct):
    """What a text denies: words that deny, in order, and words that may deny."""

    hard: list[Denial]
    weak: list[Weak]


def of(reading: Reading) -> Polarity:
    """Return the polarity of a text."""
    lexicon, words = reading.lexicon, reading.plain_words
    found = Polarity([], [])
    agreed: set[str] = set()
    openers, negators, strong = lexicon.openers, lexicon.negators, lexicon.strong_negators
    for at, token in enumerate(words):
        word = token.word
        if word == "noch" and "weder" in agreed:
            found.hard.append(_denial(reading, at))
        elif (
            word in negators
            or word in strong
            or (token.stop and word.endswith("n't"))
            or (word in openers and _pair(words, at) in negators)
        ):
            if not _idle(reading, at) and not _concord(word, agreed, lexicon.concord):
                found.hard.append(_denial(reading, at))
        elif token.base in lexicon.weak_negators:
            if word == "free" and reading.hyphenated(token):
                found.hard.append(Denial(token.raw, frozenset({words[at - 1].base}), sure=False))
            elif not (word == "free" and words[at + 1 : at + 2] and words[at + 1].word == "of"):
                found.weak.append(Weak(token.base, _heads(reading, at)))
    return found


def _pair(words: list[Token], at: int) -> str:
    """Return a word and the next as one ("other_than"), but nothing for "free of charge"."""
    if at + 1 >= len(words) or (at + 2 < len(words) and words[at + 2].word in ("charge", "cost")):
        return ""
    return f"{words[at].word}_{words[at + 1].word}"


def _concord(word: str, agreed: set[str], concord: frozenset[str]) -> bool:
    """Say whether a word only agrees with a denial before it: "no veo nada"."""
    if word in concord and agreed & concord and word != "no":
        return True
    agreed.add(word)
    return False


def _heads(reading: Reading, at: int) -> frozenset[str]:
    """Return bases of the first words of meaning behind a word, as far as it can deny them."""
    lexicon, words = reading.lexicon, reading.plain_words
    found: list[str] = []
    for token in reading.clause_after(words[at]):
        if token.word in lexicon.denial_ends or len(found) >= 2 * MOST_HEADS:
            break
        if not token.stop and token.word not in lexicon.negators and token.word not in lexicon.vague:
            found += [token.base, token.word]
    return frozenset(found)


def _denial(reading: Reading, at: int) -> Denial:
    lexicon, words = reading.lexicon, reading.plain_words
    word = words[at].word
    before = words[at - 1].word if at else ""
    behind = words[at + 1].word if at + 1 < len(words) else ""
    verbal = word.endswith("n't") or word in lexicon.auxiliaries or word == "cannot" or before in lexicon.doing
    inverted = verbal and (
        at == 0 or (words[at - 1].stop and before not in lexicon.doing and at < 3 and before not in lexicon.pronouns)
    )
    doubled = any(behind.startswith(prefix) and behind[len(prefix) :] in lexicon.common for prefix in NEGATIVE_PREFIXES)
    return Denial(
        words[at].raw, _heads(reading, at), near=not verbal, sure=not inverted, doubled=words[at + 1].base if doubled else ""
    )


def _idle(reading: Reading, at: int) -> bool:
    """Say whether a word that denies does not do so here: "or not", "not only", "No. 5", "isn't it?" and "Can't I ...?"."""
    lexicon, words = reading.lexicon, reading.plain_words
    token = words[at]
    before = words[at - 1].word if at else ""
    after = words[at + 1].word if at + 1 < len(words) else ""
    if token.word in ("not", "nicht", "no"):
        if before in ("or", "oder", "o") or after == "matter":
            return True
        if after in ("only", "just", "nur", "solo") and any(other.word in ("but", "sondern", "sino") for other in words[at + 2 :]):
            return True
        if token.word == "no":
            place = reading.places[id(token)]
            following = reading.tokens[place + 1 : place + 3]
            if len(following) == 2 and following[0].raw == "." and following[1].kind == "n":
                return True
            return at == len(words) - 1 and at > 0 and reading.tokens[place - 1].raw in ",¿"
    if token.word.endswith("n't") or token.word in lexicon.auxiliaries:
        place = reading.places[id(token)]
        sign = reading.tokens[place - 1].raw if place else "."
        if sign in SENTENCE_SIGNS and token.word not in COMMANDS:
            return True
        return sign == "," and at >= len(words) - 2 and after in lexicon.pronouns
    return False


def compare(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts deny alike."""
    a, b = of(here), of(there)
    if not (a.hard or b.hard or a.weak or b.weak):
        return passed(GUARD)
    loose = here.lexicon.loose_negators | there.lexicon.loose_negators
    mine, theirs = _counted(a, here, there), _counted(b, there, here)
    if not (_counts(mine, a, b, loose) & _counts(theirs, b, a, loose)):
        return apart(GUARD, _said(a), _said(b))
    if len(mine) == len(theirs):
        for one, two in zip(mine, theirs, strict=True):
            if not one.heads & two.heads and one.heads and two.heads and _moved(one, two, here, there):
                return failed(GUARD, f'denies "{min(one.heads)}" here, "{min(two.heads)}" there')
    return passed(GUARD)


def _moved(mine: Denial, theirs: Denial, here: Reading, there: Reading) -> bool:
    """Say whether a denial went from one thing to another: "with A, without B" and "with B, without A"."""
    if not (mine.sure and theirs.sure):
        return False
    if (mine.near and mine.heads & there.bases) or (theirs.near and theirs.heads & here.bases):
        return True
    return bool(theirs.heads & here.bases and mine.heads & there.bases)


def _counted(one: Polarity, here: Reading, there: Reading) -> list[Denial]:
    """Return the denials that count: not "not uncommon", unless the other text has "uncommon", and not "not safe", if it has
    "unsafe".
    """
    counted = [denial for denial in one.hard if not (denial.doubled and denial.doubled not in there.bases)]
    return [denial for denial in counted if not (denial.near and denial.heads & here.pair.turned)]


def _counts(counted: list[Denial], one: Polarity, other: Polarity, loose: frozenset[str]) -> set[int]:
    """Return how often a text may deny: a word that may deny ("avoid") counts or not, where the other text has not the same."""
    count = len(counted)
    bases = {weak.base for weak in other.weak}
    strange = [weak for weak in one.weak if weak.base not in bases]
    if count == 0 and not (other.hard or other.weak) and any(weak.base not in loose for weak in strange):
        return {1}  # "foods to avoid" against "foods": nothing in the other text may stand for it
    maybe = sum(1 for weak in strange if weak.base not in loose or any(weak.heads & denial.heads for denial in other.hard))
    return set(range(count, count + maybe + 1))


def _said(polarity: Polarity) -> str:
    words = [*(denial.word for denial in polarity.hard), *(weak.base for weak in polarity.weak)]
    return ", ".join(f'"{word}"' for word in words[:4]) or "no denial"
