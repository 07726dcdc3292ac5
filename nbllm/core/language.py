"""In which language a text is, as far as a rule of a route needs to know: by its script, else by its commonest words.

Function words are a tenth to a half of any running text, and few of them belong to two languages; short or mixed texts are unknown.
"""

from __future__ import annotations

import re
from collections import Counter

READ_CHARS = 2000
_MIN_HITS = 2
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = {
    "en": "the of and to in is that it for was with as are be this have from not what which how you your can does do an on at by",
    "de": "der die das und ist nicht ein eine den von zu mit sich auf für dem auch es an werden aus er hat dass wie ich sie wir",
    "fr": "le la les des et est une que dans pour qui sur pas au avec ce il par plus sont je vous nous ou du quelle être cette",
    "es": "el los las de y que en un una es por con para como su del al lo se más pero qué cómo está este son hay muy cuál",
    "it": "il lo gli di e che è un una per con non sono del della nel si come più anche questo quale mi ho dei delle cosa perché",
    "pt": "o os as de e que em um uma é por com para como do da não se mais mas são você este qual está dos das ao",
    "nl": "de het een en van is dat op te in niet zijn met voor aan er ook als bij maar wat hoe deze naar wordt kan ik je",
    "sv": "och att det som en är på för av med den inte har till ett om hur vad jag du var kan",
    "pl": "i w nie na się z do to jest że jak co po o dla czy od przez są który jakie",
    "tr": "ve bir bu için ile ne çok daha da de olarak gibi var mi nasıl nedir olan",
}
_WORDS: dict[str, list[str]] = {}
for _code, _words in _COMMON.items():
    for _one in _words.split():
        _WORDS.setdefault(_one, []).append(_code)
_SCRIPTS = (
    ("ja", "\u3040", "\u30ff"),
    ("ko", "\uac00", "\ud7af"),
    ("zh", "\u4e00", "\u9fff"),
    ("ru", "\u0400", "\u04ff"),
    ("el", "\u0370", "\u03ff"),
    ("ar", "\u0600", "\u06ff"),
    ("he", "\u0590", "\u05ff"),
    ("hi", "\u0900", "\u097f"),
    ("th", "\u0e00", "\u0e7f"),
)
LANGUAGES = (*_COMMON, *(code for code, _, _ in _SCRIPTS))
"""Codes that can be told apart (ISO 639-1). A script stands for its commonest language: "ru" for all that is in Cyrillic."""


def language_of(text: str) -> str | None:
    """Return the code of the language of a text, None when that is not clear. Only the first READ_CHARS characters are read."""
    text = text[:READ_CHARS]
    if not text.isascii():
        letters = [c for c in text if c.isalpha()]
        for code, first, last in _SCRIPTS:  # kana before ideographs: Japanese has both
            share = sum(first <= c <= last for c in letters)
            if share * (5 if code == "ja" else 2) > len(letters):
                return code
    hits = Counter(code for word in _WORD.findall(text.lower()) for code in _WORDS.get(word, ()))
    (best, most), (_, second) = [*hits.most_common(2), ("", 0), ("", 0)][:2]
    return best if most >= _MIN_HITS and most > second else None
