"""A verb of one text that in the other only tells what a thing is: "How do I save a file?", "How do I delete a saved file?"."""

from __future__ import annotations

from collections.abc import Mapping

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.sides import PLACING
from nbllm.core.guards.tokens import Token

SHORTEST_STEM = 3  # letters
LONGEST_ENDING = 5  # letters: "-enem"
MOST_ALIKE = 40  # verbs that begin alike
RELATIVE = frozenset({"that", "which"})
NO_PARTICIPLES = ("ing", "s", "er", "est", "ly")
GERMAN_BEGINNINGS = ("ge", "ver", "be", "ent", "er")
GERMAN_ENDINGS = ("te", "ten", "ter", "tes", "tem", "ene", "enen", "ener", "enes", "enem")
SPANISH_ENDINGS = ("ado", "ada", "ados", "adas", "ido", "ida", "idos", "idas")
Verbs = Mapping[str, list[Token]]


def done_already(here: Reading, there: Reading, mine: list[Token], theirs: list[Token]) -> bool:
    """Say whether what is done in one text is done already in the other, where something else is done with it.

    `mine`, `theirs`: the words that only `here` and only `there` has. Of `here` that is nothing but its verb, if anything.
    """
    if len(mine) > 1 or not theirs:
        return False
    verbs, other = _verbs(here), {id(token) for token in theirs}
    instead = False
    for at, token in enumerate(there.plain_words):
        if instead and not token.stop and _tells(there, at):
            verb = _verb_of(token, verbs, here.lexicon.code)
            if verb is not None and all(one is verb for one in mine):
                return True
        instead = instead or id(token) in other
    return False


def _verbs(reading: Reading) -> Verbs:
    """Return what may be verbs by their first letters: in English, words in their base form and not behind an article or "with"."""
    found: dict[str, list[Token]] = {}
    left_out, english, before = reading.lexicon.determiners, reading.lexicon.code == "en", ""
    for token in reading.plain_words:
        does = token.word == token.base and (before == "to" or not (before in PLACING or before in left_out))
        if not token.stop and (does if english else token.raw[0].islower() or token.first):
            same = found.setdefault(token.word[:SHORTEST_STEM], [])
            if len(same) < MOST_ALIKE:
                same.append(token)
        before = token.word
    return found


def _verb_of(token: Token, verbs: Verbs, code: str) -> Token | None:
    """Return the verb of which a word is the participle."""
    if code == "en":
        past = token.word != token.base and not token.word.endswith(NO_PARTICIPLES)
        return next((verb for verb in verbs.get(token.base[:SHORTEST_STEM], ()) if past and verb.base == token.base), None)
    stem = _stem(token.word, code)
    same = verbs.get(stem[:SHORTEST_STEM], ()) if len(stem) >= SHORTEST_STEM else ()
    return next((verb for verb in same if verb.word.startswith(stem) and verb.word != token.word), None)


def _stem(word: str, code: str) -> str:
    """Return what a participle has in common with forms of its verb: "gespeicherte" "speich", "guardado" "guard"."""
    if code == "es":
        return next((word.removesuffix(ending) for ending in SPANISH_ENDINGS if word.endswith(ending)), "")
    if not word.endswith(GERMAN_ENDINGS) or not (word.startswith(GERMAN_BEGINNINGS) or "iert" in word):
        return ""
    stem = word.removeprefix("ge")
    return stem[: max(SHORTEST_STEM, len(stem) - LONGEST_ENDING)]


def _tells(reading: Reading, at: int) -> bool:
    """Say whether a participle stands beside what it tells of: before it, in Spanish behind it, or behind "that is"."""
    words = reading.plain_words
    if at >= 2 and words[at - 2].word in RELATIVE:
        return True
    beside = at - 1 if reading.lexicon.code == "es" else at + 1
    return 0 <= beside < len(words) and not words[beside].stop
