"""Numbers as people write them - digits, words, fractions, Roman numerals - to one value each. No units here (quantities.py has
them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from nbllm.core.guards.lexicon import Lexicon
from nbllm.core.guards.tokens import Token

LONGEST_WORD = 40  # characters of a German number in one word that are looked at
LONGEST_PADDED = 2  # "03" is 3; "0800" is a number of its own
DOZENS = frozenset({"dozen", "dozens", "dutzend", "docena", "docenas"})
GERMAN_BEGINS = re.compile("zwei|drei|vier|fuenf|sechs|sieben|acht|neun|zehn|elf|zwoelf|zwanzig|halb|doppel")
SHORTEST_REST, LONG_REST = 4, 6  # letters behind the number of a compound
LONGEST_NUMBER = 10  # "fuenfzehn", "siebzig"
GERMAN_ORDINALS = ("sten", "ster", "stes", "ste", "ten", "ter", "tes", "te")
CENTURIES = frozenset(map(float, (16, 17, 18, 19, 20)))
AND = frozenset({"and", "und", "y"})
HALF = frozenset({"half", "halb", "halbe", "media", "medio"})
ROMAN_ONES = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
ROMAN_NUMERALS = {tens * "X" + ones: 10 * tens + at for tens in range(4) for at, ones in enumerate(ROMAN_ONES) if tens or at}
GROUPED = {"en": re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?\Z"), "other": re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?\Z")}


class Value(Struct, frozen=True, gc=False):
    """A number: `text` compares bare numbers ("3.10" is not "3.1": it may be a version), `number` compares amounts."""

    text: str
    number: float


def spell(number: float) -> str:
    """Return a number as digits, whole ones without a point."""
    return str(int(number)) if number == int(number) else f"{number:.10g}"


def from_digits(raw: str, code: str) -> Value | None:
    """Return the value of digits with separators: "1,000", "1.000,50" (German, Spanish), "3.10"; None: no plain number ("3:5:7",
    "1.2.3").
    """
    if raw.isdecimal():
        digits = (raw.lstrip("0") or "0") if len(raw) <= LONGEST_PADDED else raw
        return Value(digits if digits.isascii() else str(int(digits[:300])), _float(digits))
    if ":" in raw or "/" in raw:
        return None
    style = "en" if code == "en" else "other"
    if GROUPED[style].match(raw):
        return _grouped(raw, *((",", ".") if style == "en" else (".", ",")))
    if raw.count(".") + raw.count(",") == 1:
        text = ("0" if raw[0] == "." else "") + raw.replace(",", ".")
        return Value(text, _float(text))
    other = "other" if style == "en" else "en"
    if GROUPED[other].match(raw):
        return _grouped(raw, *((".", ",") if style == "en" else (",", ".")))
    return None


def _grouped(raw: str, group: str, point: str) -> Value:
    text = raw.replace(group, "").replace(point, ".")
    return Value(text, _float(text))


def _float(digits: str) -> float:
    return float(digits[:300])


def word_value(word: str, lexicon: Lexicon) -> float | None:
    """Return the number that one folded word stands for, German compounds ("einundzwanzig") included; None: it stands for none."""
    value = lexicon.numbers.get(word)
    if value is None and lexicon.code == "de" and 6 < len(word) <= LONGEST_WORD:
        return german(word, lexicon.numbers) or _german_ordinal(word, lexicon.numbers)
    return value


def compound(word: str, lexicon: Lexicon) -> float | None:
    """Return the number that a German compound begins with ("Dreizimmerwohnung", "zweistündig"), None when it begins with none."""
    if not GERMAN_BEGINS.match(word) or word in lexicon.common or len(word) > LONGEST_WORD:
        return None
    for length in range(min(LONGEST_NUMBER, len(word) - SHORTEST_REST), 2, -1):
        value = lexicon.numbers.get(word[:length])
        rest = word[length:]
        if value is not None and (rest in lexicon.common or len(rest) > LONG_REST):
            return value
    return None


def _german_ordinal(word: str, numbers: Mapping[str, float]) -> float | None:
    """Return the value of a German ordinal in one word ("neunzehnten"), None when it is none."""
    for ending in GERMAN_ORDINALS:
        if word.endswith(ending):
            return german(word.removesuffix(ending), numbers)
    return None


def german(word: str, numbers: Mapping[str, float]) -> float | None:
    """Return the value of a German number in one word, None when it is none."""
    for name, size in (("tausend", 1000), ("hundert", 100)):
        before, found, after = word.partition(name)
        if found:
            many = _german_small(before, numbers) if before else 1.0
            rest = 0.0 if not after else german(after.removeprefix("und"), numbers)
            return None if many is None or rest is None else many * size + rest
    return _german_small(word, numbers)


def _german_small(word: str, numbers: Mapping[str, float]) -> float | None:
    if word in ("ein", "eine"):
        return 1.0
    if word in numbers:
        return numbers[word]
    ones, found, tens = word.partition("und")
    if not found or tens not in numbers:
        return None
    one = 1.0 if ones == "ein" else numbers.get(ones)
    return None if one is None else one + numbers[tens]


def read_words(tokens: Sequence[Token], start: int, lexicon: Lexicon) -> tuple[float, int] | None:
    """Return the value of the number in words that starts here, and the index after it ("two hundred and fifty"); None: none
    starts here.
    """
    total, current, end, at = 0.0, -1.0, start, start
    while at < len(tokens):
        token = tokens[at]
        if at > start and (token.word in AND or (token.raw == "-" and token.glued)):
            if at + 1 >= len(tokens) or tokens[at + 1].kind != "w":
                break
            at += 1
            token = tokens[at]
        value = word_value(token.word, lexicon)
        if value is None and token.word in lexicon.soft_numbers:
            value = _soft(tokens, at, start, lexicon)
        if value is None:
            break
        joined = _join(total, current, value, token.word)
        if joined is None:
            break
        total, current = joined
        at += 1
        end = at
    return None if end == start else (total + max(current, 0.0), end)


def read_fraction(tokens: Sequence[Token], at: int, lexicon: Lexicon) -> tuple[float, int] | None:
    """Return the value of a fraction in words that starts here, and the index after it ("two thirds", "un tercio"); None: none
    does.
    """
    word = tokens[at].word
    alone = lexicon.parts.get(word)
    before = tokens[at - 1].word if at else ""
    if alone is not None and before in lexicon.articles:
        return 1 / alone, at + 1
    step = 2 if at + 2 < len(tokens) and tokens[at + 1].raw == "-" else 1
    if at + step >= len(tokens):
        return None
    below = lexicon.parts.get(tokens[at + step].word)
    above = lexicon.numbers.get(word) or lexicon.soft_numbers.get(word)
    if tokens[at].kind == "n" and word.isascii() and word.isdecimal() and len(word) == 1:
        above = float(word)
    if below is None or above is None or not 1 <= above < below or above != int(above):
        return None
    return above / below, at + step + 1


def _soft(tokens: Sequence[Token], at: int, start: int, lexicon: Lexicon) -> float | None:
    """Return the value of "one" or "first" inside a larger number ("one hundred", "twenty-first"); alone it is no firm number."""
    value = lexicon.soft_numbers[tokens[at].word]
    if at > start:
        return value if value > 0 else None
    if at + 1 < len(tokens) and (lexicon.numbers.get(tokens[at + 1].word, 0.0) >= 100 or tokens[at + 1].word in DOZENS):
        return value
    return None


def _join(total: float, current: float, value: float, word: str) -> tuple[float, float] | None:
    """Return (total, current) after one more number word, None when it starts another number."""
    if current < 0:
        return (value, 0.0) if value >= 1000 and total == 0 else (total, value)
    if word in DOZENS:
        return total, (current or 1.0) * value
    if value >= 1000:
        return total + max(current, 1.0) * value, 0.0
    if current == 0 and total and value >= 100:
        return total, value
    if value == 100 and 0 < current < 100:
        return total, current * 100
    if total == 0 and current in CENTURIES and 10 <= value < 100 and value == int(value):
        return total, current * 100 + value  # "nineteen eighty-four"
    if current % 100 == 0 and value < 100 and value == int(value) and (current or total):
        return total, current + value
    if current % 10 == 0 and current % 100 >= 20 and value < 10 and value == int(value):
        return total, current + value
    return None
