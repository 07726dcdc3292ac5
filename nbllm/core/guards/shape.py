"""Guards on the whole text: "language", "length", and "question" (who, when, where, why)."""

from __future__ import annotations

import unicodedata

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.verdicts import Verdict, apart, passed

TIMES_LONGER = 3
WORDS_MORE = 10
SCRIPT_LETTERS = 200  # characters that are looked at for the script


def language(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts are in one language and script, as far as can be told."""
    a, b = here.text.code, there.text.code
    if a and b and a != b:
        return apart("language", a, b)
    if here.text.original.isascii() and there.text.original.isascii():
        return passed("language")
    script_a, script_b = _script(here.text.original), _script(there.text.original)
    return passed("language") if script_a == script_b or not (script_a and script_b) else apart("language", script_a, script_b)


def _script(text: str) -> str:
    if text.isascii():
        return "LATIN" if any(c.isalpha() for c in text[:SCRIPT_LETTERS]) else ""
    counts: dict[str, int] = {}
    for letter in text[:SCRIPT_LETTERS]:
        if letter.isalpha():
            script = "LATIN" if letter.isascii() else unicodedata.name(letter, "?").split()[0]
            counts[script] = counts.get(script, 0) + 1
    return max(sorted(counts), key=lambda script: counts[script]) if counts else ""


def length(here: Reading, there: Reading) -> Verdict:
    """Return whether neither text is several times as long as the other."""
    a, b = len(here.plain_words), len(there.plain_words)
    if max(a, b) > TIMES_LONGER * min(a, b) + WORDS_MORE:
        return apart("length", f"{a} words", f"{b} words")
    return passed("length")


def question(here: Reading, there: Reading) -> Verdict:
    """Return whether both ask for the same kind of thing, where both say so: a person, a time, a place, a reason."""
    mine, theirs = _asked(here), _asked(there)
    return apart("question", mine, theirs) if mine and theirs and mine != theirs else passed("question")


def _asked(reading: Reading) -> str:
    table = reading.lexicon.questions
    found = {table[token.word] for token in reading.plain_words[:3] if token.word in table}
    return found.pop() if len(found) == 1 else ""
