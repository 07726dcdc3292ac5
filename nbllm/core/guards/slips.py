"""Words with a slip of the pen: a letter wrong, missing or too many, or two that changed places."""

from __future__ import annotations

from nbllm.core.guards.letters import shared
from nbllm.core.guards.reading import Reading
from nbllm.core.guards.tokens import Token

SHORTEST_MISSPELT = 4
LONGEST_EXACT = 6  # letters from which one wrong letter is a slip
SHORTEST_SLIP, LONGEST_SLIP = 7, 24  # letters of a word in which a slip is looked for
LETTERS = "etaoinsrhldcumfpgwybvkxjqz"


def slip(word: str, common: frozenset[str]) -> bool:
    """Say whether a word is a common one with a letter wrong, missing or too many, or with two that changed places."""
    if not SHORTEST_SLIP <= len(word) <= LONGEST_SLIP:
        return False
    for at in range(1, len(word)):
        head, tail = word[:at], word[at:]
        if head + tail[1:] in common or (len(tail) > 1 and head + tail[1] + tail[0] + tail[2:] in common):
            return True
        for letter in LETTERS:
            longer = head + letter
            if longer + tail in common or longer + tail[1:] in common:
                return True
    return False


def misspelt(here: Reading, token: Token, there: Reading) -> bool:
    """Say whether an unknown word is a common word of the other text with one letter wrong, missing or too many ("diffrence")."""
    word, common = token.word, here.lexicon.common
    if len(word) < SHORTEST_MISSPELT or word in common:
        return False
    for other in there.content:
        # In a short word another letter makes another name ("flask" and "flash").
        enough = len(word) >= LONGEST_EXACT or len(word) != len(other.word) or sorted(word) == sorted(other.word)
        same = enough and other.word in common and other.word[0] == word[0] and other.base not in here.keys
        if same and one_apart(word, other.word):
            return True
    return False


def slipped(here: Reading, token: Token, there: Reading) -> bool:
    """Say whether the other text has the same word, and one of the two is misspelt ("pasword")."""
    word, listed = token.word, here.lexicon.listed
    if len(word) < LONGEST_EXACT or not listed or here.lexicon.code != "en":
        return False
    known = word in listed or token.base in listed
    if known and not there.unlisted:
        return False
    for other in there.unlisted if known else there.content:
        near = other.word[0] == word[0] and len(other.word) >= LONGEST_EXACT
        if near and known != (other.word in listed or other.base in listed) and one_apart(word, other.word):
            return True
    return False


def one_apart(one: str, two: str) -> bool:
    """Say whether two words differ by one letter that is wrong, missing or too many, or by two neighbours that changed places."""
    if abs(len(one) - len(two)) > 1:
        return False
    start = shared(one, two)
    end = shared(one[start:][::-1], two[start:][::-1])
    a, b = one[start : len(one) - end], two[start : len(two) - end]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])
