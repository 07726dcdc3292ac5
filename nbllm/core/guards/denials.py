"""What a text denies: words that deny, what they are about, and words that may deny."""

from __future__ import annotations

from itertools import pairwise

from msgspec import Struct

from nbllm.core.guards.affixes import NEGATIVE_PREFIXES, PREFIX_BEGINNINGS, affixed
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import Token

MOST_HEADS = 3  # words behind a denial that it may be about
SENTENCE_SIGNS = frozenset(".?!:")
COSTS = frozenset(
    ["cuesta", "cuestan", "cost", "costs", "charge", "fee", "fees", "costo", "coste", "kosten", "gebuehr", "gebuehren"]
)  # "at no cost" is free
VERBAL_COSTS = COSTS - {"charge"}  # a phone that won't charge is not free
ASKERS = frozenset(["i", "we", "they", "he", "she", "it"])  # "don't I have to ...?" forbids nothing
HINDERING = frozenset(["keep", "block", "ban", "bar", "hinder", "deter", "discourage"])  # somebody from doing something
KEPT_OUT = frozenset([("out", "of"), ("away", "from")])  # "keep squirrels out of the garden"
COMMANDS = frozenset({"don't", "dont"})  # at the beginning they forbid; "isn't" and "can't" there only ask


class Denial(Struct, frozen=True):
    """A word that denies. heads: bases of what it denies, up to a comma, "and" or "but"; near: they stand right behind it ("not
    safe"). list_heads: the same with what "and" adds ("besides cake and compote"). first: base of the first of them, if any.

    sure: false where the first may be a subject ("doesn't my screen turn on"); doubled: it denies a denial ("not uncommon").
    """

    word: str
    heads: frozenset[str]
    near: bool = False
    sure: bool = True
    doubled: str = ""
    list_heads: frozenset[str] = frozenset()
    first: str = ""


class Weak(Struct, frozen=True):
    """A word that may deny ("avoid", "stop working"), and what."""

    base: str
    heads: frozenset[str]
    firm: bool = False


class Polarity(Struct):
    """What a text denies: words that deny, in order, and words that may deny."""

    hard: list[Denial]
    weak: list[Weak]
    affixed: list[Weak]


def of(reading: Reading) -> Polarity:
    """Return the polarity of a text."""
    lexicon, words = reading.lexicon, reading.plain_words
    found = Polarity([], [], [])
    agreed: set[str] = set()
    negators, strong, phrases = lexicon.negators, lexicon.strong_negators, lexicon.denying_phrases
    for at, token in enumerate(words):
        word, phrase = token.word.removesuffix("'s"), ""
        if word == "noch" and "weder" in agreed:
            found.hard.append(_denial(reading, at))
        elif (
            word in negators
            or word in strong
            or (token.stop and word.endswith("n't"))
            or ((word in phrases or token.base in phrases) and (phrase := _phrase(words, at, lexicon)) in negators)
        ):
            if words[at + 1 : at + 2] and words[at + 1].word in (
                VERBAL_COSTS if word.endswith("n't") or word in lexicon.auxiliaries else COSTS
            ):
                agreed.add(word)
                found.weak.append(Weak("free", frozenset()))
            elif not _idle(reading, at) and not _concord(word, agreed, lexicon.concord):
                found.hard.append(_denial(reading, at))
        elif token.base in HINDERING and _kept_from(words[at + 1 : at + 6]):
            found.weak.append(Weak("keep_from", _heads(reading, at)))
        elif phrase:
            found.weak.append(Weak(phrase, _heads(reading, at + phrase.count("_"))))
        elif token.base in lexicon.weak_negators:
            if word == "free" and reading.hyphenated(token):
                found.hard.append(Denial(token.raw, frozenset({words[at - 1].base}), sure=False))
            elif not (word == "free" and words[at + 1 : at + 2] and words[at + 1].word == "of"):
                found.weak.append(Weak(token.base, _heads(reading, at), _of_doing(words, at, lexicon)))
        elif word[:2] in PREFIX_BEGINNINGS and (root := affixed(token, lexicon)):
            found.affixed.append(Weak(token.base, frozenset({root})))
    return found


def _phrase(words: list[Token], at: int, lexicon: Lexicon) -> str:
    """Return the phrase that denies and begins here ("other_than", "turn_down" for "turned down"), "" when none does; "free of
    charge" denies nothing, nor does "how far from".
    """
    token = words[at]
    known = lexicon.denying_phrases.get(token.word) or lexicon.denying_phrases.get(token.base)
    for phrase in known or ():
        behind = words[at + 1 : at + len(phrase)]
        if len(behind) == len(phrase) - 1 and all(
            part in (other.word, other.base) for other, part in zip(behind, phrase[1:], strict=True)
        ):
            after = words[at + len(phrase)].word if at + len(phrase) < len(words) else ""
            asked = token.word == "far" and (
                after in lexicon.determiners or (at > 0 and words[at - 1].word in ("how", "too", "so"))
            )
            return "" if asked or after in ("charge", "cost") else "_".join(phrase)
    return ""


def _concord(word: str, agreed: set[str], concord: frozenset[str]) -> bool:
    """Say whether a word only agrees with a denial before it: "no veo nada"."""
    if word in concord and agreed & concord and word != "no":
        return True
    agreed.add(word)
    return False


def _heads(reading: Reading, at: int, *, listed: bool = False) -> frozenset[str]:
    """Return bases of the first words of meaning behind a word, as far as it can deny them; listed: and behind "and"."""
    lexicon, words = reading.lexicon, reading.plain_words
    found: list[str] = []
    joined = False
    for token in reading.clause_after(words[at]):
        if len(found) >= 2 * MOST_HEADS or (joined and token.stop):
            break
        joined = token.word in lexicon.denial_ends
        if joined and not listed:
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
        words[at].raw,
        _heads(reading, at),
        near=not verbal,
        sure=not inverted,
        doubled=words[at + 1].base if doubled else "",
        list_heads=_heads(reading, at, listed=True),
        first=next(
            (token.base for token in reading.clause_after(words[at]) if not token.stop and token.word not in lexicon.vague), ""
        ),
    )


def _kept_from(behind: list[Token]) -> bool:
    """Say whether "keep" or such a word forbids: "keep users from logging in"."""
    return any(
        (one.word == "from" and two.word.endswith("ing")) or (one.word, two.word) in KEPT_OUT for one, two in pairwise(behind)
    )


def _of_doing(words: list[Token], at: int, lexicon: Lexicon) -> bool:
    """Say whether a word denies the doing behind it ("stop paying", "fail to pay"), not a thing ("stopped working")."""
    after = words[at + 1 : at + 3]
    if not after or after[0].base in lexicon.filler or words[at].word == "free":
        return False
    return after[0].word.endswith("ing") or (len(after) > 1 and after[0].word == "to" and after[1].base not in lexicon.filler)


def _idle(reading: Reading, at: int) -> bool:
    """Say whether a word that denies does not do so here: "or not", "not only", "No. 5", "isn't it?" and "Can't I ...?"."""
    lexicon, words = reading.lexicon, reading.plain_words
    token = words[at]
    before = words[at - 1].word if at else ""
    after = words[at + 1].word if at + 1 < len(words) else ""
    if token.word in ("not", "nicht", "no"):
        if (
            after in ("more", "less", "fewer", "later", "mehr", "weniger")
            and words[at + 2 : at + 3]
            and words[at + 2].word in ("than", "als")
        ):
            return True  # "no more than five": a bound
        if before in ("or", "oder", "o") or after == "matter":
            return True
        if after in ("only", "just", "nur", "solo") and any(other.word in ("but", "sondern", "sino") for other in words[at + 2 :]):
            return True
        if token.word == "no":
            place = reading.places[id(token)]
            following = reading.tokens[place + 1 : place + 3]
            if len(following) == 2 and following[0].raw == "." and (following[1].kind == "n" or following[1].raw in "?,;"):
                return True
            return at == len(words) - 1 and at > 0 and reading.tokens[place - 1].raw in ",¿"
    if token.word.endswith("n't") or token.word in lexicon.auxiliaries:
        place = reading.places[id(token)]
        sign = reading.tokens[place - 1].raw if place else "."
        if sign in SENTENCE_SIGNS and (token.word not in COMMANDS or after in ASKERS):
            return True
        return sign == "," and (after in lexicon.pronouns or after == "there")
    return False
