"""A verb of one text that in the other only tells what a thing is: "How do I save a file?", "How do I delete a saved file?"."""

from __future__ import annotations

from nbllm.core.guards.reading import Reading
from nbllm.core.guards.sides import PLACING
from nbllm.core.guards.tokens import Token

SHORTEST_STEM = 4
GERMAN_ENDINGS = ("te", "ten", "ter", "tes", "tem", "ene", "enen", "ener", "enes", "enem")
SPANISH_ENDINGS = ("ado", "ada", "ados", "adas", "ido", "ida", "idos", "idas")


def done_already(here: Reading, there: Reading, mine: list[Token], theirs: list[Token]) -> bool:
    """Say whether what is done here is done already there, where something else is done with it.

    `mine`, `theirs`: the words that only one of the texts has. Those of `there` begin with what is done instead; `here` has none but
    its verb.
    """
    words = there.plain_words
    for at, token in enumerate(words):
        verb = _verb_of(token, here)
        if verb is None or not _tells(there, at) or any(one is not verb for one in mine):
            continue
        if any(one in words[:at] for one in theirs if one is not token):
            return True
    return False


def _verb_of(token: Token, here: Reading) -> Token | None:
    """Return the verb of a text of which a word of the other is the participle."""
    if token.stop:
        return None
    if here.lexicon.code == "en":
        past = token.word != token.base and not token.word.endswith(("ing", "s", "er", "est", "ly"))
        return next((one for one in here.content if one.word == one.base == token.base and _does(here, one)), None) if past else None
    stem = _stem(token.word, here.lexicon.code)
    if len(stem) < SHORTEST_STEM:
        return None
    same = (one for one in here.content if one.word.startswith(stem) and one.word != token.word and one.raw[0].islower())
    return next(same, None)


def _does(reading: Reading, word: Token) -> bool:
    """Say whether an English word stands where a verb does, not behind an article or "with"."""
    words = reading.plain_words
    at = next(at for at, token in enumerate(words) if token is word)
    before = words[at - 1].word if at else ""
    return before == "to" or (before not in PLACING and before not in reading.lexicon.determiners)


def _stem(word: str, code: str) -> str:
    """Return what a participle has in common with forms of its verb: "gespeicherte" "speich", "guardado" "guard"."""
    if code == "es":
        return next((word.removesuffix(ending) for ending in SPANISH_ENDINGS if word.endswith(ending)), "")
    if not word.endswith(GERMAN_ENDINGS):
        return ""
    stem = word.removeprefix("ge")
    return stem[: max(SHORTEST_STEM, len(stem) - SHORTEST_STEM - 1)] if stem != word or word.startswith(("ver", "be", "ent", "er")) else ""


def _tells(reading: Reading, at: int) -> bool:
    """Say whether a participle stands beside what it tells of: before it, in Spanish behind it."""
    words = reading.plain_words
    beside = at - 1 if reading.lexicon.code == "es" else at + 1
    return 0 <= beside < len(words) and not words[beside].stop
