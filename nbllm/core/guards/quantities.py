"""Numbers with their units as facts that compare: "half an hour" is "30 minutes", "$1,000" is "1000 dollars"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbllm.core.guards.facts import Fact, Key
from nbllm.core.guards.lexicon import Lexicon, Unit
from nbllm.core.guards.moments import Moments, maybe_hour
from nbllm.core.guards.numerals import AND, DOZENS, HALF, ROMAN_NUMERALS, Value, compound, from_digits, read_words, spell
from nbllm.core.guards.tokens import Token

CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr"}
ORDINAL_ENDS = {"en": ("st", "nd", "rd", "th"), "es": ("er", "ero", "o", "a", "ª", "º")}
PLANS = frozenset({"401", "403", "457"})  # "401k" is a name
PER = frozenset({"per", "pro", "por", "an"})
YEAR = 12  # months
TIMES = ("time", "month")
PARTS = {"bi": "2", "semi": "0.5", "tri": "3"}
MORE_THAN = frozenset({("more", "than"), ("mehr", "als"), ("mas", "de")})
SEVERAL = -2  # the number that stands for more than one in words_*.txt
OLD = frozenset({"old", "alt", "alte", "alten"})
LONGEST_EXACT = 12  # digits that a float is sure to keep when it is multiplied
FRACTION = re.compile(r"(\d{1,3})/(\d{1,3})\Z")


class Reader(Moments):
    """Walks over a text's tokens and collects its facts."""

    def run(self) -> None:
        """Collect the facts of all tokens."""
        if not self.lexicon.relative.keys().isdisjoint(token.word for token in self.tokens):
            self.relative()
        telling, german = self.lexicon.telling, self.lexicon.code == "de"
        at = 0
        while at < len(self.tokens):
            token = self.tokens[at]
            if token.kind == "n":
                at = self._digits(at)
            elif token.word in telling or token.raw in ROMAN_NUMERALS or (german and _compound(token.word)):
                at = self._word(at)
            elif german and token.kind == "w" and (found := compound(token.word, self.lexicon)) is not None:
                at = self.add(at, at + 1, [(spell(found), "")], "number")
            else:
                at += 1

    # Digits

    def _digits(self, at: int) -> int:
        raw = self.tokens[at].raw
        date = self.date_in_digits(at)
        if date is not None:
            return date
        if match := FRACTION.match(raw):
            top, bottom = int(match[1]), int(match[2])
            keys: list[Key] = [(raw, "")]
            if bottom:
                return self._amount(at, at + 1, Value(spell(top / bottom), top / bottom), extra=keys)
        value = from_digits(raw, self.lexicon.code)
        if value is None:
            return self.add(at, at + 1, [(raw, "")], "number")
        ends = ORDINAL_ENDS.get(self.lexicon.code, ())
        if self.peek(at + 1) in ends and self.tokens[at + 1].glued:
            return self._amount(at, at + 2, value, ordinal=True)
        return self._amount(at, at + 1, value, ordinal=self.lexicon.code == "de" and self._german_ordinal(at))

    def _german_ordinal(self, at: int) -> bool:
        """Say whether a number with a point is an ordinal ("der 2. Versuch")."""
        after = self.tokens[at + 1 : at + 3]
        return len(after) == 2 and after[0].raw == "." and after[0].glued and not after[1].first

    # Amounts

    def _amount(self, start: int, end: int, value: Value, *, extra: Sequence[Key] = (), ordinal: bool = False) -> int:
        """Add the amount whose number stands at start..end, with the sign and currency before it and the scale, time or unit
        after it.
        """
        end, value = self._scaled(end, value)
        start, value, unit = self._before(start, value)
        if unit is None:
            moment = self.hour(start, end, value) or self.month_near(start, end, value)
            if moment is not None:
                return moment
            value, end = self._and_a_half(value, end)
            if not ordinal:  # "the second day" is no amount of days
                unit, end = self._unit(end)
            value, end = self._and_a_half(value, end)
        if unit is None:
            return self.add(start, end, [*self._bare(start, end, value, ordinal=ordinal), *extra], "number")
        if unit.dimension == "clock":
            return self.add(start, end, [("time", int(value.number * 60) % 1440)], "date")
        if unit.dimension in TIMES and self.peek(start - 1) in self.lexicon.past_before:
            self.facts.append(Fact(frozenset({("date", "past")}), self.peek(start - 1), "date"))  # "vor zwei Wochen" as "ago"
        keys = [_measured(value, unit)]
        old = self.tokens[end + 1 : end + 2] if self.peek(end) == "-" else self.tokens[end : end + 1]
        if unit.dimension == "month" and unit.factor == YEAR and old and old[0].word in OLD:
            keys.append((value.text, ""))  # "8 years old" is "8"
        if unit.dimension == "pound":
            keys += [_measured(value, Unit("gbp", 1.0)), _measured(value, Unit("mass", 453.59237))]
        return self.add(start, end, keys, "number")

    def _bare(self, start: int, end: int, value: Value, *, ordinal: bool) -> list[Key]:
        """Return the keys of a number without unit: "second child" is not "two children", but "grade 4" is "4th grade"."""
        if ordinal:
            return [(value.text, "ordinal")]
        before = self.tokens[start - 1] if start else None
        counts = end < len(self.tokens) and self.tokens[end].kind == "w" and not self.tokens[end].stop
        if before is not None and before.kind == "w" and not before.stop:
            counts = False
        return [(value.text, "")] if counts else [(value.text, ""), (value.text, "ordinal")]

    def _scaled(self, end: int, value: Value) -> tuple[int, Value]:
        word = self.peek(end)
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
        word = self.peek(start - 1) if start else ""
        if word in CURRENCIES:
            unit, start = Unit(CURRENCIES[word], 1.0), start - 1
        elif (
            word in self.lexicon.units and self.lexicon.units[word].dimension in CURRENCIES.values() and start - 1 not in self.used
        ):
            unit, start = self.lexicon.units[word], start - 1
        word = self.peek(start - 1) if start else ""
        signed = start > 1 and self.tokens[start - 1].glued and self.tokens[start].glued
        if word == "+" and signed and self.tokens[start - 2].kind == "w":
            return start - 1, Value("+" + value.text, value.number), unit  # "GMT+5" is not "GMT-5"
        spaced = start == 1 or (start > 1 and not self.tokens[start - 1].glued)
        if word in ("minus", "menos") or (word == "-" and spaced and self.tokens[start].glued):
            return start - 1, Value("-" + value.text, -value.number), unit
        return start, value, unit

    def _unit(self, end: int) -> tuple[Unit | None, int]:
        """Return the unit that stands here, behind a number, and the index after it."""
        at = end + 1 if self.peek(end) == "-" and end + 1 < len(self.tokens) else end
        word = self.peek(at)
        if word == "%":
            return Unit("percent", 1.0), at + 1
        if word in self.lexicon.unit_kinds and (measured := self.lexicon.units.get(self.peek(at + 1))):
            return Unit(f"{word} {measured.dimension}", measured.factor), at + 2
        if word in CURRENCIES:
            return Unit(CURRENCIES[word], 1.0), at + 1
        if word == "por" and self.peek(at + 1) == "ciento":
            return Unit("percent", 1.0), at + 2
        if word == "°":
            scale = {"c": "temperature_c", "f": "temperature_f"}.get(self.peek(at + 1))
            return (Unit(scale, 1.0), at + 2) if scale else (Unit("degree", 1.0), at + 1)
        if word in self.lexicon.articles and not (self.tokens[at].glued or self.tokens[at].raw.isupper()):
            return None, end  # "twice a week" has no amperes
        unit = self.lexicon.units.get(word) or self.lexicon.after_number.get(word)
        if unit is None or unit.dimension == "scale" or (word == "in" and self.peek(at + 1)):
            return None, end
        return self._with_what_follows(at, _bits(unit, self.tokens[at].raw))

    def _with_what_follows(self, at: int, unit: Unit) -> tuple[Unit, int]:
        """Return a unit with the "Celsius" or the "per hour" behind it, and the index after that."""
        scale = self.lexicon.units.get(self.peek(at + 1))
        if unit.dimension == "degree" and scale is not None and scale.dimension.startswith("temperature"):
            return scale, at + 2
        below = self.peek(at + 2)
        if self.peek(at + 1) in PER and unit.dimension == "length" and below in self.lexicon.units:
            lower = self.lexicon.units[below]
            return Unit(f"length/{lower.dimension}", unit.factor / lower.factor), at + 3
        under = self.lexicon.after_number.get(below) or self.lexicon.units.get(below)
        if self.peek(at + 1) == "/" and under is not None:
            return Unit(f"{unit.dimension}/{under.dimension}", unit.factor / under.factor), at + 3
        return unit, at + 1

    def _and_a_half(self, value: Value, end: int) -> tuple[Value, int]:
        """Take in "and a half" behind an amount ("an hour and a half", "hora y media")."""
        if self.peek(end) in AND:
            after = end + 2 if self.peek(end + 1) in self.lexicon.articles else end + 1
            if self.peek(after) in HALF:
                return Value(spell(value.number + 0.5), value.number + 0.5), after + 1
        return value, end

    # Words

    def _word(self, at: int) -> int:
        token, lexicon = self.tokens[at], self.lexicon
        word = token.word
        numeral = word in lexicon.numbers or word in lexicon.soft_numbers or (lexicon.code == "de" and _compound(word))
        number = read_words(self.tokens, at, lexicon) if numeral else None
        if number is not None:
            value, end = number
            if word in HALF or value < 1:
                end = self._skip_article(end)
            return self._amount(at, end, Value(spell(value), value), ordinal=self.peek(end - 1) in lexicon.ordinals)
        named = self.named_date(at)
        if named is not None:
            return named
        return self._soft_word(at)

    def _skip_article(self, end: int) -> int:
        while self.peek(end) in ("an", "a", "of", "einer", "de"):
            end += 1
        return end

    def _soft_word(self, at: int) -> int:
        """Add a unit alone ("a week", "in days"), a soft number ("one", "first") or a Roman numeral, where one stands here."""
        token, lexicon = self.tokens[at], self.lexicon
        word, before = token.word, self.peek(at - 1)
        if word in PARTS and self.peek(at + 1) == "-":
            return self.add(at, at + 1, [(PARTS[word], "")], "number")  # "semi-annual"
        if word == "other" and before == "every":
            return self.add(at, at + 1, [("2", "ordinal")], "number")  # "every other day" is every second
        if word in lexicon.articles and word in lexicon.soft_numbers and self.peek(at + 1) in lexicon.units:
            return at + 1
        unit = lexicon.units.get(word)
        telling = word not in lexicon.ambiguous or before in lexicon.articles or before in ("in", "per", "/")
        if unit is not None and before in lexicon.unit_kinds:
            unit = Unit(f"{before} {unit.dimension}", unit.factor)  # "square metres"
        if unit is not None and unit.dimension != "point" and telling:
            value, end = self._and_a_half(Value("1", 1.0), at + 1)
            if end > at + 1:
                return self.add(at, end, [_measured(value, unit)], "number")
            return self.add(at, end, [_measured(value, unit)], "unit", soft=True)
        if word in lexicon.soft_numbers:
            number = lexicon.soft_numbers[word]
            if number == 1 and (self.peek(at - 2), before) in MORE_THAN:
                number = SEVERAL  # "more than one"
            keys = self._bare(at, at + 1, Value(spell(number), number), ordinal=word in lexicon.ordinals)
            return self.add(at, at + 1, keys, "number", soft=True)
        if at and token.raw in ROMAN_NUMERALS and (len(token.raw) > 1 or before in lexicon.numbered):
            return self.add(at, at + 1, [(str(ROMAN_NUMERALS[token.raw]), kind) for kind in ("", "ordinal")], "number")
        return at + 1


def _compound(word: str) -> bool:
    """Say whether a German word may be a number written as one word."""
    return "und" in word or "hundert" in word or "tausend" in word or "zehnte" in word or "zigste" in word


def _bits(unit: Unit, raw: str) -> Unit:
    """Return a unit of data as its letters say: "Mb" and "Mbps" are bits, "MB" and "MBps" bytes."""
    if unit.dimension == "data" and raw.endswith("b") and raw[0].isupper():
        return Unit("data", unit.factor / 8)
    return Unit("data", unit.factor * 8) if unit.dimension == "data" and raw.endswith("Bps") else unit


def _measured(value: Value, unit: Unit) -> Key:
    if len(value.text) > LONGEST_EXACT and value.number == int(value.number):
        return value.text, unit.dimension, unit.factor
    return f"{value.number * unit.factor:.10g}", unit.dimension


def facts_of(tokens: Sequence[Token], lexicon: Lexicon) -> tuple[list[Fact], set[int], set[int]]:
    """Return the facts of a text, the indexes of the tokens that they are made of, and of those that are not soft."""
    reader = Reader(tokens, lexicon)
    reader.run()
    if any(key[0] == "time" and isinstance(key[1], int) for fact in reader.facts for key in fact.keys):
        reader.facts = [maybe_hour(fact) for fact in reader.facts]
    return reader.facts, reader.used, reader.firm
