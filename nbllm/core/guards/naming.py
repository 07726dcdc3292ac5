"""Guard "names": what one text calls by its own name, the other does too. A word that no list of common words has is a name."""

from __future__ import annotations

from itertools import pairwise

from nbllm.core.guards.lemmas import Lemmas
from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.reading import LEFT_OUT, Reading, is_short
from nbllm.core.guards.slips import misspelt, slip
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.verdicts import Verdict, apart, passed

MOST_NAMES = 40  # names of one text alone, after which the texts are different enough
SHORTEST_JOIN = 5
LONG_GERMAN = 8  # letters from which one half that is a common word makes a compound
SHORTEST_RARE = 4
PREFIXES = ("un", "in", "im", "non", "re", "over", "mis", "pre", "dis", "de", "co", "sub", "multi", "semi", "self", "super", "out")
TECHNICAL = ("scopy", "ectomy", "otomy", "ology", "ologist", "itis", "osis", "graphy", "gram", "therapy")
SHORT_GERMAN = 6  # an ending says nothing about a word of so few letters


def names(here: Reading, there: Reading) -> Verdict:
    """Return whether each name of one text is in the other. A word that no list of common words has is a name, however it is
    written.
    """
    mine, theirs = _missing(here, there), _missing(there, here)
    mine, theirs = _sure(here, mine, there, theirs)
    if bool(mine) != bool(theirs):
        mine, theirs = _without_first_names(here, mine, there), _without_first_names(there, theirs, here)
    if mine and theirs:
        return apart("names", _listed(mine), _listed(theirs))
    part = _part(here, there) or _part(there, here)
    if part:
        return apart("names", part, "")
    # Words that are common otherwise ("People & Culture") differ when both texts have one that the other has not.
    kinds = _kinds(here, there)
    if kinds is not None:
        return apart("names", *kinds)
    written_here, written_there = _capitals(here, there), _capitals(there, here)
    if mine or theirs or (written_here and written_there):
        return apart("names", _listed(mine or written_here), _listed(theirs or written_there))
    return passed("names")


def _sure(here: Reading, mine: list[Token], there: Reading, theirs: list[Token]) -> tuple[list[Token], list[Token]]:
    """Leave out the words that may be no names: all where none is sure, and those that only one text has."""
    if mine and theirs:
        firm = any(is_firm(here, token) for token in mine) or any(is_firm(there, token) for token in theirs)
        return (mine, theirs) if firm else ([], [])
    return [token for token in mine if is_firm(here, token)], [token for token in theirs if is_firm(there, token)]


def _kinds(here: Reading, there: Reading) -> tuple[str, str] | None:
    """Return a word of each text that names another thing of the same kind ("sodium" and "potassium"), None when there is none."""
    table = here.lexicon.kinds
    mine, theirs = (
        [token for token in one.content if token.base in table and token.key not in other.keys and not one.hyphenated(token)]
        for one, other in ((here, there), (there, here))
    )
    for token in mine:
        for other in theirs:
            if table[token.base] & table[other.base] and not _same(here.lexicon, token.base, other.base):
                return token.raw, other.raw
    return None


def _same(lexicon: Lexicon, one: str, two: str) -> bool:
    tables = (lexicon.synonyms, lexicon.thesaurus)
    return any(table.get(one, frozenset()) & table.get(two, frozenset()) for table in tables)


def _without_first_names(here: Reading, missing: list[Token], there: Reading) -> list[Token]:
    """Leave out a first or last name beside a name that both texts have: "Donald" in "Donald Trump", but not "South" in "South
    Korea".
    """
    words = here.plain_words
    found = []
    for token in missing:
        at = words.index(token)
        beside = [*words[at + 1 : at + 2], *words[max(0, at - 1) : at]]
        part = any(other.raw[0].isupper() and not other.first and other.key in there.keys for other in beside)
        hyphen = here.tokens[here.places[id(token)] + 1 : here.places[id(token)] + 2]
        part = part and not (hyphen and hyphen[0].raw == "-")  # "Anti-Federalists"
        if not (part and token.raw.removesuffix("'s").istitle() and token.base not in here.lexicon.common):
            found.append(token)
    return found


def _part(here: Reading, there: Reading) -> str:
    """Return a name of both texts that is part of a longer one in the first ("West Virginia"), "" when there is none."""
    parts, tails = here.lexicon.name_parts, here.lexicon.name_tails
    if here.bases.isdisjoint(parts) and here.bases.isdisjoint(tails):
        return ""
    for one, two in pairwise(here.plain_words):
        if one.raw[0].isupper() and two.raw[0].isupper():
            more, name = (one, two) if one.word in parts else (two, one)
            part = more is one or (two.word in tails and not one.first and one.base not in here.lexicon.common)
            if (
                part
                and more.word not in there.bases
                and more.key not in there.keys
                and name.key in there.keys
                and not _derived(here, more.key, there)
            ):
                return f"{one.raw} {two.raw}"
    return ""


def _listed(tokens: list[Token]) -> str:
    return ", ".join(token.raw for token in tokens[:3])


def _capitals(here: Reading, there: Reading) -> list[Token]:
    """Return common words written like names, which the other text has in no form."""
    if here.lexicon.code == "de" or not here.text.capitals:
        return []
    return [
        token
        for token in here.content
        if token.raw[0].isupper()
        and not token.first
        and token.key not in there.keys
        and token.base not in there.bases
        and not _derived(here, token.key, there)
        and not initials(here, token, there)
    ]


def _missing(here: Reading, there: Reading) -> list[Token]:
    keys = there.keys
    found = []
    for at, token in enumerate(here.content):
        key = token.key
        if key in keys or token.word in there.bases or not is_name(here, token):
            continue
        if (len(key) == 1 and here.tokens[here.places[id(token)] - 1].raw == "°") or (
            token.word in there.joined
            or _same_sense(here.lexicon, token.base, there)
            or misspelt(here, token, there)
            or _in_join(here, at, there)
            or _derived(here, key, there)
            or initials(here, token, there)
        ):
            continue
        found.append(token)
        if len(found) == MOST_NAMES:
            break
    return found


def _same_sense(lexicon: Lexicon, base: str, there: Reading) -> bool:
    return base in lexicon.thesaurus and not lexicon.thesaurus[base].isdisjoint(there.senses)


def is_name(reading: Reading, token: Token) -> bool:
    """Say whether a word is a name: listed as one, unknown, written with inner capitals, a single letter, or (not in German) a
    capital.
    """
    lexicon, raw = reading.lexicon, token.raw
    if token.word in reading.words.names or token.base in reading.words.names:
        return True
    if len(raw) == 1:
        return raw not in "aiAIxX"
    known = token.word in lexicon.common or token.base in lexicon.common
    if (
        not known
        and reading.text.capitals
        and (raw[1:] != raw[1:].lower() or (lexicon.code != "de" and raw[0].isupper() and not token.first))
    ):
        return True
    if known:
        return False
    if raw.islower() and lexicon.code != "en" and reading.has_capitals:
        return False  # German and Spanish verbs have more forms than a list can hold, and who writes capitals writes names with one
    if lexicon.code == "de":
        if token.first and any(token.word.removesuffix(end) + "en" in lexicon.common for end in ("e", "t", "st")):
            return False  # a verb that opens a question ("Bekomme ich ...")
        return not _german(token.word, lexicon)
    if lexicon.code == "es":
        return (raw[0].isupper() and not token.first) or not token.word.endswith(lexicon.endings)
    return not _compound(token.word, lexicon.common)


def is_firm(reading: Reading, token: Token) -> bool:
    """Say whether a name is sure to be one: no word in small letters that a larger list has, that is made of known words, or that
    is a known word with a slip. Such a word ("flatmate", "unvaccinated", "differnce") says nothing alone, only beside another name.
    """
    lexicon, word = reading.lexicon, token.word
    if lexicon.code == "de" and len(word) >= SHORTEST_RARE and word not in reading.words.names:
        place = reading.places[id(token)]
        before = reading.tokens[place - 1].word if place else ""
        ahead = reading.tokens[place - 2].word if place > 1 else ""
        return before not in lexicon.nominal or ahead == "bei"  # "ein Erbe", "der Brauch": with an article it is a thing
    small = token.raw.islower() or (token.first and token.raw.istitle())
    if lexicon.code != "en" or not small or word in reading.words.names or token.base in reading.words.names:
        return True
    if len(word) < SHORTEST_RARE:
        return token.base not in lexicon.rare
    known = lexicon.listed
    return not (
        token.base in lexicon.rare
        or _made_of(lexicon.lemmas, word, known)
        or any(_compound(form, known) for form in {word, word.removesuffix("s")})
        or slip(word, lexicon.common)
    )


def _made_of(lemmas: Lemmas, word: str, known: frozenset[str]) -> bool:
    """Say whether a word is a known one behind a prefix or before an ending ("unvaccinated", "arthroscopy")."""
    if word.endswith(TECHNICAL):
        return True
    return any(word.startswith(prefix) and lemmas(word[len(prefix) :]) in known for prefix in PREFIXES)


def _german(word: str, lexicon: Lexicon) -> bool:
    """Say whether an unknown German word is an ordinary one: a usual ending, a common word behind a prefix, or made of two common
    words.
    """
    if len(word) > SHORT_GERMAN and word.endswith(lexicon.endings):
        return True
    if len(word) > LONG_GERMAN and any(
        word[:cut] in lexicon.common or word[cut:] in lexicon.common for cut in range(4, len(word) - 3)
    ):
        return True
    return any(word.startswith(prefix) and word[len(prefix) :] in lexicon.common for prefix in lexicon.beginnings)


def _compound(word: str, common: frozenset[str]) -> bool:
    """Say whether a word is two common words written as one."""
    if len(word) < 7 or len(word) > 40:
        return False
    for cut in range(3, len(word) - 2):
        if word[cut:] in common and (
            word[:cut] in common or word[:cut].removesuffix("s") in common or word[:cut].removesuffix("n") in common
        ):
            return True
    return False


def _in_join(here: Reading, at: int, there: Reading) -> bool:
    content = here.content
    word = content[at].word
    neighbours = [content[at - 1].word + word] if at else []
    if at + 1 < len(content):
        neighbours.append(word + content[at + 1].word)
    lemmas = here.lexicon.lemmas
    return any(len(both) >= SHORTEST_JOIN and (both in there.keys or lemmas(both) in there.keys) for both in neighbours)


def _derived(here: Reading, key: str, there: Reading) -> bool:
    """Say whether the other text has a name that this one comes from: "India" and "Indian"."""
    for other in there.keys:
        short, long = (key, other) if len(key) < len(other) else (other, key)
        if len(short) >= 4 and long.startswith(short) and long[len(short) :] in here.lexicon.derived:
            return True
    return False


def initials(here: Reading, token: Token, there: Reading) -> bool:
    """Say whether a name is the initials of words of the other text, or one of words whose initials the other text has."""
    if is_short(token) and any(token.word in letters for letters in there.initials):
        return True
    for short in there.shorts:
        for letters, left_out in zip(here.initials, LEFT_OUT, strict=True):
            at = letters.find(short)
            if at >= 0:
                words = [word for word in here.plain_words if word.word not in left_out]
                if any(word is token for word in words[at : at + len(short)]):
                    return True
    return False
