"""Guards on the whole: "language", "length", "question" (who, when, where, why), "roles" (what does what to what) and "wording"
(one word swapped).
"""

from __future__ import annotations

import unicodedata

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed

TIMES_LONGER = 3
WORDS_MORE = 10
SCRIPT_LETTERS = 200  # characters that are looked at for the script
SYMMETRIC = frozenset(
    ["and", "or", "vs", "versus", "between", "und", "oder", "zwischen", "y", "o", "entre", "difference", "compare"]
)
RELATED = 5  # letters that two forms of one word begin with ("culture", "cultural")


def language(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts are in one language and script, as far as can be told."""
    a, b = here.text.code, there.text.code
    if a and b and a != b:
        return apart("language", a, b)
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


def roles(here: Reading, there: Reading) -> Verdict:
    """Return whether no two things have changed places: "from euros to dollars" and "from dollars to euros"."""
    mine, theirs = _places(here), _places(there)
    shared = [word for word in mine if word in theirs and mine[word] != theirs[word]]
    for at, one in enumerate(shared[:12]):
        for two in shared[at + 1 : 12]:
            if mine[one] == theirs[two] and mine[two] == theirs[one] and not {mine[one], mine[two]} & SYMMETRIC:
                return failed("roles", f'"{one}" and "{two}" have changed places')
    return passed("roles")


def _places(reading: Reading) -> dict[str, str]:
    """Return word of meaning or number -> the word before it, articles left out; words that stand twice are left out."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    before = ""
    for token in reading.tokens:
        if token.kind == "s":
            before = "or" if token.raw == "/" else before
            continue
        key = token.word if token.kind == "n" else reading.key(token)
        if token.word in reading.lexicon.articles or token.word in (
            "the",
            "der",
            "die",
            "das",
            "dem",
            "den",
            "el",
            "la",
            "los",
            "las",
        ):
            continue
        if not token.stop:
            if key in found:
                twice.add(key)
            found[key] = before
        before = key
    return {key: place for key, place in found.items() if key not in twice}


def wording(here: Reading, there: Reading) -> Verdict:
    """Return whether not one word of meaning was swapped for another that is no synonym, in an otherwise equal text."""
    mine, theirs = _strange(here, there), _strange(there, here)
    if not (mine and theirs):
        return passed("wording")
    a, b = _frame(here, mine), _frame(there, theirs)
    if a == b:
        return apart("wording", _listed(mine), _listed(theirs))
    return passed("wording")


def _listed(tokens: list[Token]) -> str:
    return ", ".join(f'"{token.raw}"' for token in tokens[:3])


def _strange(here: Reading, there: Reading) -> list[Token]:
    """Return words of meaning that the other text has neither in itself nor as a synonym or another form."""
    synonyms, filler = here.lexicon.synonyms, here.lexicon.filler
    groups = frozenset().union(*(synonyms[base] for base in there.bases if base in synonyms))
    found = []
    for token in here.content:
        base = token.base
        if base in there.bases or base in filler or here.key(token) in there.keys:
            continue
        if base in synonyms and synonyms[base] & groups:
            continue
        if any(_related(base, other) for other in there.bases):
            continue
        found.append(token)
    return found


def _related(one: str, two: str) -> bool:
    return len(one) >= RELATED and one[:RELATED] == two[:RELATED] and abs(len(one) - len(two)) <= RELATED


def _frame(reading: Reading, strange: list[Token]) -> list[str]:
    """Return the text's bases in order with a gap for the strange words: what stays when one word is swapped for another."""
    gaps = {id(token) for token in strange}
    frame: list[str] = []
    for token in reading.tokens:
        if id(token) in gaps:
            if not frame or frame[-1] != "_":
                frame.append("_")
        elif token.kind != "s":
            frame.append(reading.key(token) if token.kind == "w" else token.word)
    return frame
