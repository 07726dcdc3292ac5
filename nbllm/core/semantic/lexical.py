"""The built-in embedder: words and letter groups, hashed. It compares wording, not meaning, and says so: lexical."""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NAME = "lexical/1"
"""Its name and version: part of every partition, raised with every change of what it returns."""
DIMENSIONS = 384
_WORD = re.compile(r"\w+(?:['\u2019]\w+)?", re.UNICODE)
_PAIR, _GRAM, _COMMON = 0.6, 0.35, 0.25
_MOST_WORDS = 2_000
_COMMON_WORDS = frozenset(
    """
    a an the of to in on at for and or is are was were be been do does did can could would should will i me my
    you your it its this that these those with as by from please der die das den dem des ein eine einen einem
    einer und oder ist sind war ich mein du dein es zu im in am auf für von mit bitte kann el la los las un una
    unos unas de del y o es son en por para con mi tu que
    """.split()  # noqa: SIM905 - a list of eighty strings reads worse
)


def embed(text: str) -> NDArray[np.float32]:
    """Return a unit vector of shape (384,): hashed words, pairs of neighbouring words and letter trigrams (feature hashing with
    signs: Weinberger and others, 2009). Common words count little. A text without a word is embedded by its characters.
    """
    vector = np.zeros(DIMENSIONS, dtype=np.float64)
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())[:_MOST_WORDS] or [text.strip() or "\0"]
    for place, word in enumerate(words):
        for code, weight in _features(word):
            vector[code] += weight
        if place:
            slot, sign = _slot(f"{words[place - 1]} {word}")
            vector[slot] += sign * _PAIR * _weight(word) * _weight(words[place - 1])
    size = float(np.sqrt(vector @ vector))
    if not size:  # features of opposite signs that cancel each other out
        vector[_slot(text)[0]], size = 1.0, 1.0
    return (vector / size).astype(np.float32)


@lru_cache(maxsize=20_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    """Return (dimension, signed weight) of a word and its trigrams."""
    scale = _weight(word)
    slot, sign = _slot(word)
    found = [(slot, sign * scale)]
    padded = f"^{word[:200]}$"
    for start in range(max(1, len(padded) - 2)):
        slot, sign = _slot("#" + padded[start : start + 3])
        found.append((slot, sign * scale * _GRAM))
    return tuple(found)


def _weight(word: str) -> float:
    return _COMMON if word in _COMMON_WORDS else 1.0


def _slot(feature: str) -> tuple[int, float]:
    code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
    return code % DIMENSIONS, 1.0 if code & 0x8000_0000 else -1.0
