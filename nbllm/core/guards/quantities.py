"""Numbers with their units, and dates, as facts that compare: "half an hour" is "30 minutes", "3 March" is "March 3rd"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from nbllm.core.guards.numerals import AND, DOZENS, HALF, Value, from_digits, read_words, roman, spell
from nbllm.core.guards.tokens import Token
from nbllm.core.guards.words import Lexicon, Unit

Key = tuple[object, ...]
CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr"}
ORDINAL_ENDS = frozenset({"st", "nd", "rd", "th", "er", "o", "a", "ª", "º"})
NAMED_DAYS: dict[str, tuple[Key, ...]] = {"christmas": (("md", 12, 25),)}
PARTS_OF_DAY = {
    "in the morning": "am",
    "in the afternoon": "pm",
    "in the evening": "pm",
    "de la manana": "am",
    "de la tarde": "pm",
    "de la noche": "pm",
}
PLANS = frozenset({"401", "403", "457"})  # "401k" is a name
PER = frozenset({"per", "pro", "por", "an"})
NAMED_TIMES = {"noon": 720, "midnight": 0}
LINKS = frozenset({"of", "the", "de", "del", "den", "dem", ",", "."})
DAY_DATE = re.compile(r"(\d{1,2})([./])(\d{1,2})\2(\d{4}|\d{2})\Z")
DAY_MONTH = re.compile(r"(\d{1,2})\.(\d{1,2})\Z")
CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::[0-5]\d)?\Z")
FRACTION = re.compile(r"(\d{1,3})/(\d{1,3})\Z")
MONTH_BEFORE = frozenset(
    [
        "in",
        "since",
        "until",
        "till",
        "by",
        "of",
        "last",
        "next",
        "late",
        "early",
        "mid",
        "during",
        "from",
        "between",
        "this",
        "every",
    ]
)
NUMBERED = frozenset(
    [
        "war",
        "phase",
        "type",
        "stage",
        "part",
        "class",
        "level",
        "grade",
        "section",
        "article",
        "title",
        "act",
        "volume",
        "chapter",
        "elizabeth",
        "tier",
    ]
)


class Fact(Struct, frozen=True, gc=False):
    """One thing said with a number, a unit or a date. It equals another fact when they share a key: "10:30" may be morning or
    evening.

    kind: "number" (an amount, with or without a unit), "unit" (a unit alone), "date". A soft fact need not be in the other text,
    but must not be
    another one there ("first", "a week", "morning").
    """

    keys: frozenset[Key]
    text: str
    kind: str
    soft: bool = False


class Reader:
    """Walks over a text's tokens and collects its facts. `used`: indexes of tokens that are part of one."""

    def __init__(self, tokens: Sequence[Token], lexicon: Lexicon) -> None:
        self.tokens = tokens
        self.lexicon = lexicon
        self.facts: list[Fact] = []
        self.used: set[int] = set()

    def run(self) -> None:
        """Collect the facts of all tokens."""
        self._relative()
        at = 0
        while at < len(self.tokens):
            token = self.tokens[at]
            if token.kind == "n":
                at = self._digits(at)
            elif token.kind == "w":
                at = self._word(at)
            else:
                at += 1

    def _add(self, start: int, end: int, keys: Sequence[Key], kind: str, *, soft: bool = False) -> int:
        text = " ".join(token.raw for token in self.tokens[start:end])
        self.facts.append(Fact(frozenset(keys), text, kind, soft))
        self.used.update(range(start, end))
        return end

    def _peek(self, at: int) -> str:
        return self.tokens[at].word if at < len(self.tokens) else ""

    # Digits

    def _digits(self, at: int) -> int:
        raw = self.tokens[at].raw
        if (
            len(raw) == 4
            and raw.isdecimal()
            and self._peek(at + 1) == "-"
            and at + 4 < len(self.tokens)
            and self._peek(at + 3) == "-"
        ):
            return self._iso_date(at)
        if (
            self.lexicon.code == "de"
            and self._peek(at + 1) == "."
            and self.tokens[at + 1].glued
            and (match := DAY_MONTH.match(raw))
        ):
            return self._add(at, at + 2, [("md", int(match[2]), int(match[1]))], "date")
        if match := DAY_DATE.match(raw):
            first, second, year = int(match[1]), int(match[3]), match[4]
            orders = [(second, first)] if match[2] == "." else [(first, second), (second, first)]
            self._add(at, at + 1, [(year if len(year) == 4 else "20" + year, "")], "date")
            return self._add(at, at + 1, [("md", *order) for order in orders], "date")
        if match := CLOCK.match(raw):
            return self._clock(at, int(match[1]) * 60 + int(match[2]), raw)
        if match := FRACTION.match(raw):
            top, bottom = int(match[1]), int(match[2])
            keys: list[Key] = [(raw, "")]
            if bottom:
                return self._amount(at, at + 1, Value(spell(top / bottom), top / bottom), extra=keys)
        value = from_digits(raw, self.lexicon.code)
        if value is None:
            return self._add(at, at + 1, [(raw, "")], "number")
        end = at + 1
        if end < len(self.tokens) and self.tokens[end].glued and self._peek(end) in ORDINAL_ENDS:
            end += 1
        return self._amount(at, end, value)

    def _iso_date(self, at: int) -> int:
        year, month, day = (self.tokens[at + step].raw for step in (0, 2, 4))
        if not (month.isdecimal() and day.isdecimal() and len(month) == len(day) == 2):
            return self._add(at, at + 1, [(year, "")], "number")
        self._add(at, at + 1, [(year, "")], "number")
        return self._add(at + 2, at + 5, [("md", int(month), int(day))], "date")

    def _clock(self, at: int, minutes: int, raw: str) -> int:
        half, end = self._half_of_day(at + 1)
        if half is None:
            if self._peek(end) in ("uhr", "h", "hrs"):
                end += 1
            both = [minutes, minutes + 720] if minutes < 780 else [minutes]
            return self._add(at, end, [*(("time", m % 1440) for m in both), (raw, "")], "date")
        return self._add(at, end, [("time", minutes % 720 + half)], "date")

    def _half_of_day(self, at: int) -> tuple[int | None, int]:
        """Return (0 for am or 720 for pm, index after it), (None, at) when neither stands here."""
        word = self._peek(at)
        if word in ("am", "pm"):
            return (0 if word == "am" else 720), at + 1
        if word in ("a", "p") and self._peek(at + 1) == "." and self._peek(at + 2) == "m":
            return (0 if word == "a" else 720), at + (4 if self._peek(at + 3) == "." else 3)
        return None, at

    # Amounts

    def _amount(self, start: int, end: int, value: Value, *, extra: Sequence[Key] = ()) -> int:
        """Add the amount whose number stands at start..end, with the sign and currency before it and the scale, time or unit
        after it.
        """
        end, value = self._scaled(end, value)
        start, value, unit = self._before(start, value)
        if unit is None:
            half, after = self._half_of_day(end)
            if half is None and (part := PARTS_OF_DAY.get(" ".join(token.word for token in self.tokens[end : end + 3]))):
                half, after = (0 if part == "am" else 720), end + 3
            if half is not None and 0 < value.number <= 12:
                return self._add(start, after, [("time", int(value.number * 60) % 720 + half)], "date")
            if self._peek(end) == "o'clock":
                return self._add(start, end + 1, [("time", int(value.number * 60)), ("time", int(value.number * 60) + 720)], "date")
            month = self._month_near(start, end, value)
            if month is not None:
                return month
            unit, end = self._unit(end)
            value, end = self._and_a_half(value, end)
        if unit is None:
            return self._add(start, end, [(value.text, ""), *extra], "number")
        if unit.dimension == "clock":
            return self._add(start, end, [("time", int(value.number * 60) % 1440)], "date")
        keys = [_measured(value, unit)]
        old = self.tokens[end + 1 : end + 2] if self._peek(end) == "-" else self.tokens[end : end + 1]
        if unit.dimension == "month" and old and old[0].word in ("old", "alt", "alte", "alten"):
            keys.append((value.text, ""))  # "8 years old" is "8"
        if unit.dimension == "pound":
            keys += [_measured(value, Unit("gbp", 1.0)), _measured(value, Unit("mass", 453.59237))]
        return self._add(start, end, keys, "number")

    def _scaled(self, end: int, value: Value) -> tuple[int, Value]:
        word = self._peek(end)
        scale = self.lexicon.numbers.get(word, 0.0)
        if scale < 100 and word not in DOZENS:
            letter = self.lexicon.after_number.get(word)
            scale = letter.factor if letter is not None and letter.dimension == "scale" else 0.0
            if not scale or value.text in PLANS or (len(word) == 1 and not self.tokens[end].glued):
                return end, value
        number = value.number * scale
        return end + 1, Value(spell(number), number)

    def _before(self, start: int, value: Value) -> tuple[int, Value, Unit | None]:
        """Take in what stands before a number: a currency, "minus" or a minus sign."""
        unit = None
        word = self._peek(start - 1) if start else ""
        if word in CURRENCIES:
            unit, start = Unit(CURRENCIES[word], 1.0), start - 1
        elif (
            word in self.lexicon.units and self.lexicon.units[word].dimension in CURRENCIES.values() and start - 1 not in self.used
        ):
            unit, start = self.lexicon.units[word], start - 1
        word = self._peek(start - 1) if start else ""
        spaced = start == 1 or (start > 1 and not self.tokens[start - 1].glued)
        if word in ("minus", "menos") or (word == "-" and spaced and self.tokens[start].glued):
            return start - 1, Value("-" + value.text, -value.number), unit
        return start, value, unit

    def _unit(self, end: int) -> tuple[Unit | None, int]:
        """Return the unit that stands here, behind a number, and the index after it."""
        at = end + 1 if self._peek(end) == "-" and end + 1 < len(self.tokens) else end
        word = self._peek(at)
        if word == "%":
            return Unit("percent", 1.0), at + 1
        if word in CURRENCIES:
            return Unit(CURRENCIES[word], 1.0), at + 1
        if word == "por" and self._peek(at + 1) == "ciento":
            return Unit("percent", 1.0), at + 2
        if word == "°":
            scale = {"c": "temperature_c", "f": "temperature_f"}.get(self._peek(at + 1))
            return (Unit(scale, 1.0), at + 2) if scale else (Unit("degree", 1.0), at + 1)
        if word in self.lexicon.articles and not (self.tokens[at].glued or self.tokens[at].raw.isupper()):
            return None, end  # "twice a week" has no amperes
        unit = self.lexicon.units.get(word) or self.lexicon.after_number.get(word)
        if unit is None or unit.dimension == "scale" or (word == "in" and self._peek(at + 1)):
            return None, end
        if unit.dimension == "data" and self.tokens[at].raw.endswith("b") and self.tokens[at].raw[0].isupper():
            unit = Unit("data", unit.factor / 8)  # Mb and Gb are bits
        if unit.dimension == "data" and self.tokens[at].raw.endswith("Bps"):
            unit = Unit("data", unit.factor * 8)  # MBps are bytes, Mbps bits
        if unit.dimension == "degree" and self._peek(at + 1) in self.lexicon.units:
            scale_unit = self.lexicon.units[self._peek(at + 1)]
            if scale_unit.dimension.startswith("temperature"):
                return scale_unit, at + 2
        below = self._peek(at + 2)
        if self._peek(at + 1) in PER and unit.dimension == "length" and below in self.lexicon.units:
            lower = self.lexicon.units[below]
            return Unit(f"length/{lower.dimension}", unit.factor / lower.factor), at + 3
        if self._peek(at + 1) == "/" and (lower := self.lexicon.after_number.get(below) or self.lexicon.units.get(below)):
            return Unit(f"{unit.dimension}/{lower.dimension}", unit.factor / lower.factor), at + 3
        return unit, at + 1

    def _and_a_half(self, value: Value, end: int) -> tuple[Value, int]:
        """Take in "and a half" behind an amount ("an hour and a half", "hora y media")."""
        if self._peek(end) in AND:
            after = end + 2 if self._peek(end + 1) in self.lexicon.articles else end + 1
            if self._peek(after) in HALF:
                return Value(spell(value.number + 0.5), value.number + 0.5), after + 1
        return value, end

    def _month_near(self, start: int, end: int, value: Value) -> int | None:
        """Add the day of a month, when a month's name stands before or behind the number."""
        day = value.number
        if not (1 <= day <= 31 and day == int(day)):
            return None
        after = end
        while self._peek(after) in LINKS:
            after += 1
        month = self.lexicon.months.get(self._peek(after))
        if month is not None and after - end <= 3:
            return self._add(start, after + 1, [("md", month, int(day))], "date")
        before = start - 1
        while before >= 0 and self.tokens[before].word in LINKS and start - before <= 3:
            before -= 1
        month = self.lexicon.months.get(self.tokens[before].word) if before >= 0 else None
        if month is None:
            return None
        self.facts = [fact for fact in self.facts if fact.keys != {("month", month)}]
        return self._add(before, end, [("md", month, int(day))], "date")

    # Words

    def _relative(self) -> None:
        """Add "next", "last" and "this" beside a unit or the name of a time ("next week", "semana pasada")."""
        lexicon = self.lexicon
        times = (lexicon.units, lexicon.months, lexicon.weekdays, lexicon.dates)
        for at, token in enumerate(self.tokens):
            name = lexicon.relative.get(token.word) if token.kind == "w" else None
            if name is None:
                continue
            sides = (self._peek(at + 1), self._peek(at - 1) if at and lexicon.code == "es" else "")
            if any(side in table for side in sides for table in times):
                self.facts.append(Fact(frozenset({("relative", name)}), token.raw, "date", soft=name == "this"))

    def _word(self, at: int) -> int:
        token, lexicon = self.tokens[at], self.lexicon
        word = token.word
        numeral = word in lexicon.numbers or word in lexicon.soft_numbers or _compound(word, lexicon)
        number = read_words(self.tokens, at, lexicon) if numeral else None
        if number is not None:
            value, end = number
            if word in HALF or value < 1:
                end = self._skip_article(end)
            return self._amount(at, end, Value(spell(value), value))
        if word in lexicon.months and self._is_month(at):
            return self._add(at, at + 1, [("month", lexicon.months[word])], "date")
        if word in lexicon.weekdays and (word not in lexicon.ambiguous or (token.raw[0].isupper() and not token.first)):
            return self._add(at, at + 1, [("weekday", lexicon.weekdays[word])], "date")
        if word in lexicon.dates:
            name = lexicon.dates[word]
            key = ("time", NAMED_TIMES[name]) if name in NAMED_TIMES else ("date", name)
            return self._add(at, at + 1, [key, *NAMED_DAYS.get(name, ())], "date")
        if word in lexicon.soft_dates:
            return self._add(at, at + 1, [("date", lexicon.soft_dates[word])], "date", soft=True)
        return self._soft_word(at)

    def _skip_article(self, end: int) -> int:
        while self._peek(end) in ("an", "a", "of", "einer", "de"):
            end += 1
        return end

    def _is_month(self, at: int) -> bool:
        token = self.tokens[at]
        if token.word not in self.lexicon.ambiguous:
            return True
        before = self._peek(at - 1) if at else ""
        if before in MONTH_BEFORE:
            return True
        return token.raw[0].isupper() and not token.first

    def _soft_word(self, at: int) -> int:
        """Add a unit alone ("a week", "in days"), a soft number ("one", "first") or a Roman numeral, where one stands here."""
        token, lexicon = self.tokens[at], self.lexicon
        word, before = token.word, self._peek(at - 1) if at else ""
        if word == "other" and before == "every":
            return self._add(at, at + 1, [("2", "")], "number")
        if word in lexicon.articles and word in lexicon.soft_numbers and self._peek(at + 1) in lexicon.units:
            return at + 1
        unit = lexicon.units.get(word)
        telling = word not in lexicon.ambiguous or before in lexicon.articles or before in ("in", "per", "/")
        if unit is not None and unit.dimension != "point" and telling:
            value, end = self._and_a_half(Value("1", 1.0), at + 1)
            if end > at + 1:
                return self._add(at, end, [_measured(value, unit)], "number")
            return self._add(at, end, [_measured(value, unit)], "unit", soft=True)
        if word in lexicon.soft_numbers:
            return self._add(at, at + 1, [(spell(lexicon.soft_numbers[word]), "")], "number", soft=True)
        if at and token.raw.isupper() and (len(token.raw) > 1 or before in NUMBERED) and (value_ := roman(token.raw)):
            return self._add(at, at + 1, [(str(value_), "")], "number")
        return at + 1


def _compound(word: str, lexicon: Lexicon) -> bool:
    return lexicon.code == "de" and ("und" in word or "hundert" in word or "tausend" in word)


def _measured(value: Value, unit: Unit) -> Key:
    if len(value.text) > 12 and value.number == int(value.number):
        return value.text, unit.dimension, unit.factor
    return f"{value.number * unit.factor:.10g}", unit.dimension


def facts_of(tokens: Sequence[Token], lexicon: Lexicon) -> tuple[list[Fact], set[int]]:
    """Return the facts of a text and the indexes of the tokens that they are made of."""
    reader = Reader(tokens, lexicon)
    reader.run()
    if any(key[0] == "time" and isinstance(key[1], int) for fact in reader.facts for key in fact.keys):
        reader.facts = [_maybe_hour(fact) for fact in reader.facts]
    return reader.facts, reader.used


def _maybe_hour(fact: Fact) -> Fact:
    """Let a bare number be an hour too, in a text that has a time ("10 instead of 8 am")."""
    for key in fact.keys:
        if key[1] == "" and str(key[0]).isdecimal() and len(str(key[0])) <= 2 and 1 <= int(str(key[0])) <= 12:
            minutes = int(str(key[0])) * 60
            return Fact(fact.keys | {("time", minutes % 720), ("time", minutes % 720 + 720)}, fact.text, fact.kind, fact.soft)
    return fact
