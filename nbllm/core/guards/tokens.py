"""A text as tokens: words with their bases, numbers and signs, and which of its languages it is in."""

from __future__ import annotations

import re

from msgspec import Struct

from nbllm.core.guards.letters import fold, plain
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.words import GuardWords

TOKEN = re.compile(r"(\s*)(?:(\d+(?:[.,:/]\d+)*|(?<![\w.])\.\d+)|([^\W\d_]+(?:'[^\W\d_]+)*(?:\+\+|\#(?!\w))?)|(\S))")
PLURAL_INITIALS = re.compile(r"[A-Z]{2,}s\Z")
ABBREVIATION = re.compile(r"\b([A-Z])\.(?:\s?([A-Z])\.)(?:\s?([A-Z])\.)?(?!\w)")  # "U.S."
FOR_EXAMPLE = re.compile(r"\b(?:e\.\s?g\.|i\.\s?e\.|z\.\s?B\.|d\.\s?h\.|p\.\s?ej\.)", re.IGNORECASE)
BEFORE_NOUNS = frozenset({"a", "the", "my", "your", "his", "her", "their", "no", "any", "without", "valid"})
SENTENCE_ENDS = frozenset(".?!:\n\"'([{¿¡-*>")
TITLE_SHARE = 0.75  # with more capitals than this, a capital says nothing about a word


class Token(Struct, gc=False):
    """One piece of a text. kind: "n" number, "w" word, "s" sign. `first`: it opens a sentence. `glued`: no space before it.

    `attach` adds what its language says of it.
    """

    raw: str
    word: str
    kind: str
    first: bool
    glued: bool
    base: str = ""
    key: str = ""
    stop: bool = False


class Text(Struct):
    """A text cut into tokens. `capitals`: its capital letters mean something."""

    tokens: list[Token]
    code: str | None
    capitals: bool
    original: str


def cut(text: str, words: GuardWords) -> Text:
    """Return the tokens of a text and its language (None: no function word of a known language)."""
    source = plain(text).strip()  # white space at the end would be searched again and again
    if ".\u0020" in source or source.count(".") > 1:
        source = FOR_EXAMPLE.sub(",", ABBREVIATION.sub(r"\1\2\3", source))
    tokens: list[Token] = []
    first = True
    for space, number, word, sign in TOKEN.findall(source):
        if word:
            tokens.append(Token(word, word.lower() if word.isascii() else fold(word), "w", first, not space))
            first = False
        elif number:
            tokens.append(Token(number, number, "n", first, not space))
            first = False
        else:
            tokens.append(Token(sign, sign, "s", first, not space))
            if sign in SENTENCE_ENDS and (space or sign not in "-'\"." or (sign == "." and not _short(tokens, words.short_forms))):
                first = True
    return Text(tokens, _language(tokens, words), _telling(tokens), source)


def _short(tokens: list[Token], forms: frozenset[str]) -> bool:
    """Say whether the word before a full stop is a short form ("v.", "Dr."), so that no sentence ends there."""
    return len(tokens) > 1 and tokens[-2].kind == "w" and (len(tokens[-2].raw) == 1 or tokens[-2].word in forms)


def _telling(tokens: list[Token]) -> bool:
    long = [token.raw for token in tokens if token.kind == "w" and len(token.raw) > 2 and not token.first]
    return sum(1 for raw in long if raw[0].isupper()) <= max(1, TITLE_SHARE * len(long))


def _language(tokens: list[Token], words: GuardWords) -> str | None:
    """Return the language whose own function words are the most; common words decide where there is none."""
    seen = {token.word for token in tokens if token.kind == "w"}
    best, most, second = None, 0, 0
    for code, own in words.telling.items():
        count = len(seen & own)
        if count > most:
            best, most, second = code, count, most
        elif count > second:
            second = count
    if most > second:
        return best
    counts = sorted(((len(seen & lexicon.common), code) for code, lexicon in words.languages.items()), reverse=True)
    if counts and counts[0][0] > (counts[1][0] if len(counts) > 1 else 0):
        return counts[0][1]
    return None


def attach(text: Text, lexicon: Lexicon, words: GuardWords) -> list[Token]:
    """Give each word its base in the language, and what it is compared by; say which are function words. Return the words.

    A word is compared by the name that stands for it ("American" by "usa"), else by its base. "us" is no name, "US" is one.
    """
    lemmas, stop, aliases, phrases = lexicon.lemmas, lexicon.stop, words.aliases, words.phrases
    found = [token for token in text.tokens if token.kind == "w"]
    openers = []
    for at, token in enumerate(found):
        word = token.word
        if word == "will" and at and found[at - 1].word in BEFORE_NOUNS:
            token.base = token.key = word  # a testament
        elif word in stop or word.endswith("n't") or ("'" in word and word.partition("'")[0] in stop):
            token.stop = True
            token.base = token.key = word
            if text.capitals and len(word) > 1 and word in aliases and token.raw.isupper():
                token.key = aliases[word]
                token.stop = False
        else:
            token.base = lemmas(word) if word[-1] != "s" or not PLURAL_INITIALS.match(token.raw) else word[:-1]
            token.key = aliases.get(word) or aliases.get(token.base) or token.base
        if word in phrases:
            openers.append(at)
    for at in openers:
        for several, name in phrases[found[at].word]:
            same = found[at : at + len(several)]
            if tuple(token.word for token in same) == several:
                for token in same:
                    token.key = name
    return found
