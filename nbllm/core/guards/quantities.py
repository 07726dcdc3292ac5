"""Numbers with their units as facts that compare: "half an hour" is "30 minutes", "$1,000" is "1000 dollars"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbllm.core.guards.facts import Fact, Key
from nbllm.core.guards.lexicon import Lexicon, Unit
from nbllm.core.guards.measures import CURRENCIES, Measures, measured
from nbllm.core.guards.moments import maybe_hour
from nbllm.core.guards.numerals import (
    GERMAN_ORDINALS,
    HALF,
    ROMAN_NUMERALS,
    Value,
    compound,
    from_digits,
    read_fraction,
    read_words,
    spell,
)
from nbllm.core.guards.tokens import Token

ORDINAL_ENDS = {"en": ("st", "nd", "rd", "th"), "es": ("er", "ero", "o", "a", "ª", "º")}
YEAR_FROM = 1000
HALF_DAY_HOURS = 12
YEAR = 12  # months
TIMES = ("time", "month")
PART_OF = frozenset({"of", "off", "von", "der", "des", "de", "del", "?", ".", ","})
PARTS = {"bi": "2", "semi": "0.5", "tri": "3"}
MORE_THAN = frozenset({("more", "than"), ("mehr", "als"), ("mas", "de")})
SEVERAL = -2  # the number that stands for more than one in words_*.txt
OLD = frozenset({"old", "alt", "alte", "alten"})
AROUND_THE_CLOCK = "24/7"
AFTER_BACK = frozenset({"", ",", ".", "?", "i", "we", "my", "our", "he", "she", "they", "and", "but"})
FRACTION = re.compile(r"(\d{1,3})/(\d{1,3})\Z")


class Reader(Measures):
    """Walks over a text's tokens and collects its facts."""

    def run(self) -> None:
        """Collect the facts of all tokens."""
        words = {token.word for token in self.tokens}
        if not self.lexicon.relative.keys().isdisjoint(words):
            self.relative()
        self.parted = not self.lexicon.parts.keys().isdisjoint(words)
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
        if raw == AROUND_THE_CLOCK:
            return self.add(at, at + 1, [(raw, "")], "number", soft=True)
        date = self.date_in_digits(at)
        if date is not None:
            return date
        if match := FRACTION.match(raw):
            top, bottom = int(match[1]), int(match[2])
            keys: list[Key] = [(raw, "")]
            if bottom:
                return self._amount(at, at + 1, Value(spell(top / bottom), top / bottom), extra=keys)
        if raw.isdecimal() and raw.endswith("0") and self.peek(at + 1) == "s" and self.tokens[at + 1].glued and len(raw) in (2, 4):
            return self._decade(at, int(raw))
        if len(raw) == 2 and raw.isdecimal() and self.peek(at - 1) == "'" and self.tokens[at].glued:
            return self.add(at, at + 1, [("19" + raw, ""), ("20" + raw, "")], "number")  # "May '27"
        value = from_digits(raw, self.lexicon.code)
        if value is None:
            return self.add(at, at + 1, [(raw, "")], "number")
        ends = ORDINAL_ENDS.get(self.lexicon.code, ())
        if self.peek(at + 1) in ends and self.tokens[at + 1].glued:
            return self._amount(at, at + 2, value, ordinal=True)
        return self._amount(at, at + 1, value, ordinal=self.lexicon.code == "de" and self._german_ordinal(at))

    def _decade(self, at: int, year: int) -> int:
        """Add a decade or a century ("1990s", "90s", "1800s")."""
        keys: list[Key] = [(str(year % 100), ""), (str(year % 100), "decade")]
        if year > YEAR_FROM and year % 100 == 0:
            keys = [(str(year // 100 + 1), "ordinal"), (str(year), "")]
        return self.add(at, at + 2, keys, "number", exact=("decade", year) if year > YEAR_FROM else ())

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
            later = self.lexicon.soft_dates.get(self.peek(end)) if value.number < HALF_DAY_HOURS else None
            if later in ("evening", "afternoon"):
                return self.add(start, end + 1, [("time", int(value.number * 60) + 720)], "date")
            return self.add(start, end, [("time", int(value.number * 60) % 1440)], "date")
        if unit.dimension in TIMES and self.peek(start - 1) in self.lexicon.past_before:
            self.facts.append(Fact(frozenset({("date", "past")}), self.peek(start - 1), "date"))  # "vor zwei Wochen" as "ago"
        if unit.dimension in TIMES and self.peek(end) == "back" and self.peek(end + 1) in AFTER_BACK:
            self.facts.append(Fact(frozenset({("date", "past")}), "back", "date"))  # "ten days back" as "ago"
        keys = [measured(value, unit)]
        old = self.tokens[end + 1 : end + 2] if self.peek(end) == "-" else self.tokens[end : end + 1]
        if unit.dimension == "month" and unit.factor == YEAR and old and old[0].word in OLD:
            keys.append((value.text, ""))  # "8 years old" is "8"
        if unit.dimension == "pound":
            keys += [measured(value, Unit("gbp", 1.0)), measured(value, Unit("mass", 453.59237))]
        return self.add(start, end, keys, "number")

    def _bare(self, start: int, end: int, value: Value, *, ordinal: bool) -> list[Key]:
        """Return the keys of a number without unit: "second child" is not "two children", but "grade 4" is "4th grade"."""
        if ordinal:
            return [(value.text, "ordinal")]
        before = self.tokens[start - 1] if start else None
        counts = end < len(self.tokens) and self.tokens[end].kind == "w" and not self.tokens[end].stop
        if before is not None and before.kind == "w" and not before.stop and not (counts and self._plural(start, end)):
            counts = False
        return [(value.text, "")] if counts else [(value.text, ""), (value.text, "ordinal")]

    def _plural(self, start: int, end: int) -> bool:
        """Say whether a word in the plural is counted, by no "grade" or "class" before the number ("add two drops")."""
        before, after = self.tokens[start - 1], self.tokens[end]
        counted = after.word != after.base and after.word.endswith("s") and (before.first or before.raw.islower())
        return counted and before.base not in self.lexicon.numbered

    # Words

    def _word(self, at: int) -> int:
        token, lexicon = self.tokens[at], self.lexicon
        word = token.word
        if word == "second" and self.peek(at + 1) == "-" and self.peek(at + 2) == "hand":
            return at + 3
        numeral = word in lexicon.numbers or word in lexicon.soft_numbers or (lexicon.code == "de" and _compound(word))
        if lexicon.code == "de" and word in lexicon.ambiguous and self.peek(at - 1) not in lexicon.nominal:
            numeral = False  # "worauf muss man achten", not "am achten Mai"
        part = read_fraction(self.tokens, at, lexicon) if self.parted else None
        if part is not None and not self._is_ordinal_place(at, part[1]):
            share = Value(spell(part[0]), part[0])
            return self._amount(at, self._skip_article(part[1]), share, extra=[(f"{100 * part[0]:.10g}", "percent")])
        number = read_words(self.tokens, at, lexicon) if numeral else None
        if number is not None:
            value, end = number
            if word in HALF or value < 1:
                end = self._skip_article(end)
            extra = [(f"{100 * value:.10g}", "percent")] if 0 < value < 1 else []
            last = self.peek(end - 1)
            ordinal = last in lexicon.ordinals or (
                lexicon.code == "de" and end == at + 1 and last.endswith(GERMAN_ORDINALS) and value > HALF_DAY_HOURS
            )
            return self._amount(at, end, Value(spell(value), value), extra=extra, ordinal=ordinal)
        named = self.named_date(at)
        if named is not None:
            return named
        return self._soft_word(at)

    def _is_ordinal_place(self, at: int, end: int) -> bool:
        """Say whether "a third" counts and parts nothing: "a third party", "a second time", "a quarter past"."""
        if end > at + 1 or self.peek(end) in PART_OF or end >= len(self.tokens) or self.tokens[end].stop:
            return end == at + 1 and self.peek(at) in ("quarter", "viertel", "cuarto")  # an hour's or a year's
        return True

    def _skip_article(self, end: int) -> int:
        while self.peek(end) in ("an", "a", "of", "einer", "de"):
            end += 1
        return end

    def _is_number(self, at: int) -> bool:
        return at < len(self.tokens) and self.tokens[at].kind == "n"

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
        if unit is not None and unit.dimension in CURRENCIES.values() and self._is_number(at + 1):
            return at + 1  # "EUR 50": the number takes it in
        if unit is not None and before in lexicon.unit_kinds:
            unit = Unit(f"{before} {unit.dimension}", unit.factor)  # "square metres"
        if unit is not None and unit.dimension != "point" and telling:
            value, end = self._and_a_half(Value("1", 1.0), at + 1)
            if end > at + 1:
                return self.add(at, end, [measured(value, unit)], "number")
            return self.add(at, end, [measured(value, unit)], "unit", soft=True)
        if word in lexicon.ordinals and word in lexicon.soft_numbers:
            dated = self.month_near(at, at + 1, Value("1", 1.0))
            if dated is not None:
                return dated  # "am ersten Mai"
        if word == "couple" and self.peek(at + 1) == "of" and (counted := lexicon.units.get(self.peek(at + 2))):
            return self.add(at, at + 3, [measured(Value("2", 2.0), counted)], "number", soft=True)
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


def facts_of(tokens: Sequence[Token], lexicon: Lexicon) -> tuple[list[Fact], set[int], set[int]]:
    """Return the facts of a text, the indexes of the tokens that they are made of, and of those that are not soft."""
    reader = Reader(tokens, lexicon)
    reader.run()
    if any(key[0] == "time" and isinstance(key[1], int) for fact in reader.facts for key in fact.keys):
        reader.facts = [maybe_hour(fact) for fact in reader.facts]
    return reader.facts, reader.used, reader.firm
