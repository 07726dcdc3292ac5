"""What stands around a number and measures it: currencies, signs, scales and units."""

from __future__ import annotations

from nbllm.core.guards.facts import Key
from nbllm.core.guards.lexicon import Unit
from nbllm.core.guards.moments import Moments
from nbllm.core.guards.numerals import AND, DOZENS, HALF, Value, spell

CURRENCIES = {"$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr"}
PLANS = frozenset({"401", "403", "457"})  # "401k" is a name
PER = frozenset({"per", "pro", "por", "an"})
PERCENT = frozenset({"%", "percent", "percentage", "prozent"})
POINTS = frozenset({"point", "points", "punkte", "punkten", "punkt"})
LONGEST_EXACT = 12  # digits that a float is sure to keep when it is multiplied

OPENING = frozenset("[(:=,<>")  # a minus sign right behind one of these belongs to its number ("[:-3]")


class Measures(Moments):
    """The part of the walk that knows units."""

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
        spaced = start == 1 or (start > 1 and (not self.tokens[start - 1].glued or self.tokens[start - 2].raw in OPENING))
        if word in ("minus", "menos") or (word == "-" and spaced and self.tokens[start].glued):
            return start - 1, Value("-" + value.text, -value.number), unit
        return start, value, unit

    def _unit(self, end: int) -> tuple[Unit | None, int]:
        """Return the unit that stands here, behind a number, and the index after it."""
        at = end + 1 if self.peek(end) == "-" and end + 1 < len(self.tokens) else end
        word = self.peek(at)
        if word in PERCENT:
            points = self.peek(at + 1) in POINTS
            return Unit("percent points" if points else "percent", 1.0), at + (2 if points else 1)
        if word in self.lexicon.unit_kinds and (measured := self.lexicon.units.get(self.peek(at + 1))):
            return Unit(f"{word} {measured.dimension}", measured.factor), at + 2
        if word in CURRENCIES:
            return Unit(CURRENCIES[word], 1.0), at + 1
        if word == "per" and self.peek(at + 1) == "cent":
            return Unit("percent", 1.0), at + 2
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


def _bits(unit: Unit, raw: str) -> Unit:
    """Return a unit of data as its letters say: "Mb" and "Mbps" are bits, "MB" and "MBps" bytes."""
    if unit.dimension == "data" and raw.endswith("b") and raw[0].isupper():
        return Unit("data", unit.factor / 8)
    return Unit("data", unit.factor * 8) if unit.dimension == "data" and raw.endswith("Bps") else unit


def measured(value: Value, unit: Unit) -> Key:
    """Return what an amount with a unit is compared by: its value in base units and the dimension."""
    if len(value.text) > LONGEST_EXACT and value.number == int(value.number):
        return value.text, unit.dimension, unit.factor
    return f"{value.number * unit.factor:.10g}", unit.dimension
