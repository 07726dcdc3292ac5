"""Guard "negation": both texts deny the same thing, or neither denies anything. "Cannot" is "unable to"; "not uncommon" is "common"."""

from __future__ import annotations

from msgspec import Struct

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed

GUARD = "negation"
CONCORD = frozenset(
    ["no", "nunca", "jamas", "nadie", "nada", "ningun", "ninguna", "ninguno", "tampoco"]
)  # Spanish: several of them deny once
LOOSE = frozenset({"stop", "quit", "fail", "free", "cease", "miss", "stopp", "stoppen", "aufhor", "frei", "parar", "dejar", "libre"})  # also mean other things
DOING = frozenset({"do", "does", "did", "can", "could", "will", "would", "has", "have", "had", "may", "might", "must"})
PRONOUNS = frozenset({"i", "you", "he", "she", "it", "we", "they", "who", "which", "that", "this"})
NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis")
AUXILIARIES = frozenset(
    [
        "cant",
        "wont",
        "isnt",
        "arent",
        "wasnt",
        "werent",
        "doesnt",
        "didnt",
        "hasnt",
        "havent",
        "hadnt",
        "shouldnt",
        "wouldnt",
        "couldnt",
        "mustnt",
        "dont",
    ]
)


class Denial(Struct, frozen=True):
    """A word that denies. head: base of what it denies; near: the head stands right behind it ("not safe", "without eggs").

    sure: false where the head may be a subject ("doesn't my screen turn on"); doubled: the head is a denial itself ("not uncommon").
    """

    word: str
    head: str
    near: bool = False
    sure: bool = True
    doubled: bool = False


class Polarity(Struct):
    """What a text denies: words that deny, in order, and bases of words that may deny ("avoid")."""

    hard: list[Denial]
    weak: list[str]


def of(reading: Reading) -> Polarity:
    """Return the polarity of a text."""
    lexicon, words = reading.lexicon, reading.plain_words
    found = Polarity([], [])
    agreed: set[str] = set()
    for at, token in enumerate(words):
        word = token.word
        pair = f"{word}_{words[at + 1].word}" if at + 1 < len(words) else ""
        strong = word in lexicon.negators or word in lexicon.strong_negators or word.endswith("n't") or pair in lexicon.negators
        if strong:
            if not _idle(reading, at) and not _concord(word, agreed):
                found.hard.append(_denial(reading, at))
        elif token.base in lexicon.weak_negators:
            if word == "free" and reading.hyphenated(token):
                found.hard.append(Denial(token.raw, words[at - 1].base, sure=False))
            else:
                found.weak.append(token.base)
    return found


def _concord(word: str, agreed: set[str]) -> bool:
    """Say whether a word only agrees with a denial before it: "no veo nada", "neither this nor that", "ni esto ni aquello"."""
    if word in CONCORD and agreed & CONCORD and word != "no":
        return True
    if word in ("nor", "ni") and agreed & {"neither", "ni", "nor"}:
        return True
    agreed.add(word)
    return False


def _denial(reading: Reading, at: int) -> Denial:
    lexicon, words = reading.lexicon, reading.plain_words
    word = words[at].word
    behind = next((other for other in words[at + 1 :] if not other.stop and other.word not in lexicon.negators), None)
    if behind is None:
        return Denial(words[at].raw, "", sure=False)
    before = words[at - 1].word if at else ""
    verbal = word.endswith("n't") or word in AUXILIARIES or word == "cannot" or before in DOING
    inverted = verbal and (at == 0 or (words[at - 1].stop and before not in DOING and at < 3 and before not in PRONOUNS))
    doubled = any(behind.word.startswith(prefix) and behind.word[len(prefix) :] in lexicon.common for prefix in NEGATIVE_PREFIXES)
    return Denial(words[at].raw, behind.base, near=not verbal, sure=not inverted, doubled=doubled and words[at + 1] is behind)


def _idle(reading: Reading, at: int) -> bool:
    """Say whether a word that denies does not do so here: "or not", "not only", "No. 5", a tag question's "isn't it?"."""
    words = reading.plain_words
    token = words[at]
    before = words[at - 1].word if at else ""
    after = words[at + 1].word if at + 1 < len(words) else ""
    if token.word in ("not", "nicht", "no"):
        if before in ("or", "oder", "o") or after in ("only", "just", "nur", "solo", "matter"):
            return True
        if token.word == "no":
            place = reading.tokens.index(token)
            following = reading.tokens[place + 1 : place + 3]
            if len(following) == 2 and following[0].raw == "." and following[1].kind == "n":
                return True
            return at == len(words) - 1 and at > 0 and place > 0 and reading.tokens[place - 1].raw in ",¿"
    if token.word.endswith("n't") or token.word in AUXILIARIES:
        return at > 2 and at >= len(words) - 2 and after in ("it", "he", "she", "they", "you", "we", "i", "that")
    return False


def compare(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts deny alike."""
    a, b = of(here), of(there)
    if not (_counts(a, b, there) & _counts(b, a, here)):
        return apart(GUARD, _said(a), _said(b))
    if len(a.hard) == len(b.hard):
        for mine, theirs in zip(a.hard, b.hard, strict=True):
            if mine.head != theirs.head and mine.head and theirs.head and _moved(mine, theirs, here, there):
                return failed(GUARD, f'denies "{mine.head}" here, "{theirs.head}" there')
    return passed(GUARD)


def _moved(mine: Denial, theirs: Denial, here: Reading, there: Reading) -> bool:
    """Say whether a denial went from one word to another that both texts have: "with A, without B" and "with B, without A"."""
    if not (mine.sure and theirs.sure):
        return False
    if (mine.near and mine.head in there.bases) or (theirs.near and theirs.head in here.bases):
        return True
    return theirs.head in here.bases and mine.head in there.bases


def _counts(one: Polarity, other: Polarity, there: Reading) -> set[int]:
    """Return how often a text may deny: words that may deny ("avoid") count or not where the other text has not the same."""
    count = sum(0 if denial.doubled and denial.head not in there.bases else 1 for denial in one.hard)
    maybe = sum(1 for word in one.weak if word not in other.weak)
    if count == 0 and any(word not in LOOSE for word in one.weak) and not (other.hard or other.weak):
        return {1}  # "foods to avoid" against "foods": nothing in the other text may stand for it
    return set(range(count, count + maybe + 1))


def _said(polarity: Polarity) -> str:
    return ", ".join(f'"{word}"' for word in [*(denial.word for denial in polarity.hard), *polarity.weak][:4]) or "no denial"
