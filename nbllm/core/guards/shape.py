"""Guards on the whole: "language", "length", "question" (who, when, where, why), "roles" (what does what to what) and "wording"
(one word swapped).
"""

from __future__ import annotations

import unicodedata
from os.path import commonprefix

from nbllm.core.guards.naming import initials
from nbllm.core.guards.reading import SHORT_WORDS, Reading
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed

TIMES_LONGER = 3
WORDS_MORE = 10
SCRIPT_LETTERS = 200  # characters that are looked at for the script
SYMMETRIC = frozenset(
    ["and", "or", "vs", "versus", "between", "und", "oder", "zwischen", "y", "o", "entre", "difference", "compare"]
)
MOST_MOVED = 12  # words that are compared pair by pair
DETERMINERS = frozenset(
    [
        "a",
        "an",
        "the",
        "my",
        "your",
        "our",
        "his",
        "her",
        "its",
        "their",
        "der",
        "die",
        "das",
        "dem",
        "den",
        "ein",
        "eine",
        "einen",
        "einem",
        "mein",
        "meine",
        "meinen",
        "meinem",
        "el",
        "la",
        "los",
        "las",
        "un",
        "una",
        "mi",
        "mis",
        "tu",
        "tus",
        "su",
        "sus",
    ]
)
STEERING = frozenset({"up", "down", "out", "off", "away", "back", "over", "under"})
RELATED = 4  # letters that two forms of one word begin with ("culture", "cultural")
FORMS = frozenset(
    [
        "",
        "e",
        "y",
        "s",
        "es",
        "ed",
        "d",
        "ing",
        "er",
        "or",
        "ers",
        "ors",
        "al",
        "ial",
        "ic",
        "ical",
        "ly",
        "ion",
        "ation",
        "tion",
        "sion",
        "ment",
        "ness",
        "ity",
        "ive",
        "able",
        "ible",
        "ous",
        "ant",
        "ent",
        "ance",
        "ence",
        "ist",
        "ism",
        "ize",
        "ise",
        "ify",
        "cy",
        "ce",
        "t",
        "te",
        "ted",
        "ting",
        "ten",
        "n",
        "en",
        "ung",
        "ungen",
        "lich",
        "heit",
        "keit",
        "bar",
        "ar",
        "ir",
        "ado",
        "ada",
        "ido",
        "ida",
        "cion",
        "ciones",
        "dor",
        "dora",
        "mente",
    ]
)


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
    near, near_there = _places(here, near=True), _places(there, near=True)
    far, far_there = _places(here, near=False), _places(there, near=False)
    stayed = frozenset(word for word in near if near_there.get(word) == near[word])
    swapped = _swapped(near, near_there, frozenset(near)) or _swapped(far, far_there, stayed)
    return failed("roles", f'"{swapped[0]}" and "{swapped[1]}" have changed places') if swapped else passed("roles")


def _swapped(mine: dict[str, str], theirs: dict[str, str], among: frozenset[str]) -> tuple[str, str] | None:
    moved = [word for word in mine if word in among and word in theirs and mine[word] != theirs[word]][:MOST_MOVED]
    for at, one in enumerate(moved):
        for two in moved[at + 1 :]:
            if mine[one] == theirs[two] and mine[two] == theirs[one] and not {mine[one], mine[two]} & {*SYMMETRIC, one, two}:
                return one, two
    return None


def _places(reading: Reading, *, near: bool) -> dict[str, str]:
    """Return word of meaning or number -> the word before it (near), or the word of meaning before it; articles and words that
    stand twice are left out.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    before = ""
    for token in reading.tokens:
        if token.kind == "s":
            before = "or" if token.raw == "/" else before
            continue
        if token.word in DETERMINERS or token.word in reading.lexicon.soft_numbers:
            continue
        key = token.word if token.kind == "n" else reading.key(token)
        if not token.stop:
            if key in found:
                twice.add(key)
            found[key] = before
        if near or not token.stop:
            before = key
    return {key: place for key, place in found.items() if key not in twice}


def wording(here: Reading, there: Reading) -> Verdict:
    """Return whether not one word of meaning was swapped for another that is no synonym, in an otherwise equal text."""
    mine, theirs = _strange(here, there), _strange(there, here)
    if not (mine or theirs):
        return _steering(here, there)
    if not (mine and theirs):
        return passed("wording")
    a, b = _frame(here, mine), _frame(there, theirs)
    if a == b:
        return apart("wording", _listed(mine), _listed(theirs))
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


def _strange(here: Reading, there: Reading) -> list[Token]:
    """Return words of meaning that the other text has neither in itself nor as a synonym or another form."""
    synonyms, filler = here.lexicon.synonyms, here.lexicon.filler
    groups = frozenset().union(*(synonyms[base] for base in there.bases if base in synonyms))
    settled = here.pair.turned
    found = []
    for token in here.content:
        base = token.base
        if base in there.bases or base in filler or here.key(token) in there.keys:
            continue
        if base in synonyms and synonyms[base] & groups:
            continue
        if token.word in here.lexicon.negators or base in settled or initials(here, token, there):
            continue
        if any(_related(base, other) for other in there.bases):
            continue
        found.append(token)
    return found


def _related(one: str, two: str) -> bool:
    """Say whether two words are forms of one ("culture", "cultural"): alike but for endings."""
    same = len(commonprefix((one, two)))
    long_enough = same >= RELATED or (same == RELATED - 1 and min(len(one), len(two)) == same and abs(len(one) - len(two)) > 2)
    return long_enough and one[same:] in FORMS and two[same:] in FORMS


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
