"""Guard "negation": both texts deny the same thing, or neither denies anything. "Cannot" is "unable to"; two denials are none."""

from __future__ import annotations

from msgspec import Struct

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed

GUARD = "negation"
CONCORD = frozenset(
    ["no", "nunca", "jamas", "nadie", "nada", "ningun", "ninguna", "ninguno", "tampoco"]
)  # Spanish: several of them deny once
FILLERS = frozenset({"or", "oder", "o", "only", "just", "nur", "solo", "whether"})
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


class Polarity(Struct):
    """What a text denies. hard: words that deny, in order; heads: the base of what each denies; weak: words that may deny
    ("avoid").
    """

    hard: list[str]
    heads: list[str]
    weak: list[str]


def of(reading: Reading) -> Polarity:
    """Return the polarity of a text."""
    lexicon, words = reading.lexicon, reading.plain_words
    spanish = lexicon.code == "es"
    found = Polarity([], [], [])
    agreed = False
    for at, token in enumerate(words):
        word = token.word
        if word in lexicon.weak_negators or token.base in lexicon.weak_negators:
            found.weak.append(token.base)
            continue
        if not (word in lexicon.negators or word in lexicon.strong_negators or word.endswith("n't")):
            continue
        if _idle(reading, at):
            continue
        if spanish and word in CONCORD:
            if agreed:
                continue
            agreed = True
        found.hard.append(token.raw)
        found.heads.append(
            next((other.base for other in words[at + 1 :] if not other.stop and other.word not in lexicon.negators), "")
        )
    return found


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
    weak_a = [word for word in a.weak if word not in b.weak]
    weak_b = [word for word in b.weak if word not in a.weak]
    options_a = {(len(a.hard) + extra) % 2 for extra in range(len(weak_a) + 1)}
    options_b = {(len(b.hard) + extra) % 2 for extra in range(len(weak_b) + 1)}
    if not options_a & options_b:
        return apart(GUARD, _said(a), _said(b))
    if len(a.hard) == len(b.hard):
        for mine, theirs in zip(a.heads, b.heads, strict=True):
            if mine != theirs and mine in there.bases and theirs in here.bases and mine and theirs:
                return failed(GUARD, f'denies "{mine}" here, "{theirs}" there')
    return passed(GUARD)


def _said(polarity: Polarity) -> str:
    return ", ".join(f'"{word}"' for word in (*polarity.hard, *polarity.weak)[:4]) or "no denial"
