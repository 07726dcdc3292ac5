"""Dates and times of day as facts: "3 March" is "March 3rd", "3 pm" is "15:00", "next week" is not "last week"."""

from __future__ import annotations

import re

from msgspec.structs import replace

from nbllm.core.guards.facts import Fact, Key, Walk
from nbllm.core.guards.numerals import Value

NAMED_DAYS: dict[str, tuple[Key, ...]] = {
    "christmas": (("md", 12, 25),),
    "christmas_eve": (("md", 12, 24),),
    "new_years_eve": (("md", 12, 31),),
    "new_year": (("md", 1, 1),),
    "halloween": (("md", 10, 31),),
}
EVES: dict[tuple[str, str], Key] = {("christmas", "eve"): ("md", 12, 24), ("xmas", "eve"): ("md", 12, 24)}
AFTER_NEXT = {("before", "yesterday"): "foreyesterday", ("after", "tomorrow"): "overmorrow"}
DAY = 86400.0  # seconds
HALF_DAY = 720  # minutes
NAMED_TIMES = {"noon": HALF_DAY, "midnight": 0}
PARTS_OF_HOUR = {0.25: 15.0, 0.5: 30.0}
LINKS = frozenset({"of", "the", "de", "del", "den", "dem", ",", "."})
MOST_LINKS = 3
DAY_DATE = re.compile(r"(\d{1,2})([./])(\d{1,2})\2(\d{4}|\d{2})\Z")
DAY_MONTH = re.compile(r"(\d{1,2})\.(\d{1,2})\Z")
CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::[0-5]\d)?\Z")


class Moments(Walk):
    """The part of the walk that knows dates and times of day."""

    def date_in_digits(self, at: int) -> int | None:
        """Add the date or time that starts with the number here ("2024-03-05", "5.3.2024", "10:30"); None: none does."""
        raw = self.tokens[at].raw
        if len(raw) == 4 and raw.isdecimal() and self.peek(at + 1) == "-" and self.peek(at + 3) == "-":
            return self.iso_date(at)
        point = self.peek(at + 1) == "." and self.tokens[at + 1].glued
        if self.lexicon.code == "de" and point and (match := DAY_MONTH.match(raw)):
            return self.add(at, at + 2, [("md", int(match[2]), int(match[1]))], "date")
        if match := DAY_DATE.match(raw):
            first, second, year = int(match[1]), int(match[3]), match[4]
            orders = [(second, first)] if match[2] == "." else [(first, second), (second, first)]
            self.add(at, at + 1, [(year if len(year) == 4 else "20" + year, "")], "date")
            return self.add(at, at + 1, [("md", *order) for order in orders], "date", exact=("slash", first, second))
        if match := CLOCK.match(raw):
            return self.clock(at, int(match[1]) * 60 + int(match[2]), raw)
        return None

    def iso_date(self, at: int) -> int:
        """Add the date that starts with the year here ("2024-03-05"), or the year alone when none follows."""
        year, month, day = (self.tokens[at + step].raw for step in (0, 2, 4))
        if not (month.isdecimal() and day.isdecimal() and len(month) == len(day) == 2):
            return self.add(at, at + 1, [(year, "")], "number")
        self.add(at, at + 1, [(year, "")], "number")
        return self.add(at + 2, at + 5, [("md", int(month), int(day))], "date")

    def clock(self, at: int, minutes: int, raw: str) -> int:
        """Add a time of day in minutes; without am and pm it may be in either half."""
        half, end = self.half_of_day(at + 1)
        if half is None:
            if self.peek(end) in ("uhr", "h", "hrs"):
                end += 1
            both = [minutes, minutes + HALF_DAY] if minutes < HALF_DAY + 60 else [minutes]
            keys: list[Key] = [*(("time", m % 1440) for m in both), (raw, "")]
            return self.add(at, end, keys, "date", exact=("clock", minutes))  # "7:15" may be "7:15 pm", but is not "19:15"
        return self.add(at, end, [("time", minutes % HALF_DAY + half)], "date")

    def half_of_day(self, at: int) -> tuple[int | None, int]:
        """Return (0 for am or 720 for pm, index after it), (None, at) when neither stands here."""
        word = self.peek(at)
        if word in ("am", "pm"):
            return (0 if word == "am" else HALF_DAY), at + 1
        if word in ("a", "p") and self.peek(at + 1) == "." and self.peek(at + 2) == "m":
            return (0 if word == "a" else HALF_DAY), at + (4 if self.peek(at + 3) == "." else 3)
        part = self.lexicon.parts_of_day.get("_".join(token.word for token in self.tokens[at : at + 3]))
        return (None, at) if part is None else (0 if part == "am" else HALF_DAY, at + 3)

    def hour(self, start: int, end: int, value: Value) -> int | None:
        """Add the time that a number is with what stands behind it ("3 pm", "9 in the morning", "5 o'clock"); None: it is none."""
        half, after = self.half_of_day(end)
        if half is not None and 0 < value.number <= 12:
            hours, _, rest = value.text.partition(".")  # "7.30 pm"
            return self.add(start, after, [("time", (int(hours) * 60 + int(rest or 0)) % HALF_DAY + half)], "date")
        past = self._minutes_past(end, value)
        if past is not None:
            minutes, after = past
            return self.add(start, after, [("time", minutes % HALF_DAY), ("time", minutes % HALF_DAY + HALF_DAY)], "date")
        if self.peek(end) == "o'clock":
            minutes = int(value.number * 60) % HALF_DAY
            return self.add(start, end + 1, [("time", minutes), ("time", minutes + HALF_DAY)], "date")
        return None

    def _minutes_past(self, end: int, value: Value) -> tuple[int, int] | None:
        """Return (minutes of the day, index after them) for "quarter past nine", "quarter to nine" and "nueve menos cuarto"."""
        word, after = self.peek(end), self.peek(end + 1)
        if self.lexicon.code == "de" and value.number == 0.5 and 1 <= self.lexicon.numbers.get(word, 0.0) <= 12:
            return int(self.lexicon.numbers[word] * 60 - 30), end + (2 if after == "uhr" else 1)
        if (
            self.lexicon.code == "es"
            and word == "y"
            and after == "media"
            and 1 <= value.number <= 12
            and self.peek(end - 2) in ("las", "la")
        ):
            return int(value.number) * 60 + 30, end + 2
        if self.lexicon.code == "es" and after == "cuarto" and word in ("y", "menos"):
            return int(value.number) * 60 + (15 if word == "y" else -15), end + 2
        hour = float(after) if after.isascii() and after.isdecimal() and len(after) <= 2 else self.lexicon.numbers.get(after, 0.0)
        if 1 <= hour <= 12 and self.lexicon.code == "de" and value.number == 0.25 and word in ("vor", "nach"):
            return int(hour * 60 + (15 if word == "nach" else -15)), end + 2
        if not 1 <= hour <= 12 or self.lexicon.code != "en":
            return None
        minutes = PARTS_OF_HOUR.get(value.number, value.number)
        if word == "past" and minutes < 60:
            return int(hour * 60 + minutes), end + 2
        return (int(hour * 60 - 15), end + 2) if word == "to" and value.number == 0.25 else None

    def month_near(self, start: int, end: int, value: Value) -> int | None:
        """Add the day of a month, when a month's name stands before or behind the number."""
        day = value.number
        if not (1 <= day <= 31 and day == int(day)):
            return None
        after = end
        while self.peek(after) in LINKS:
            after += 1
        month = self.lexicon.months.get(self.peek(after))
        if month is not None and after - end <= MOST_LINKS:
            return self.add(start, after + 1, [("md", month, int(day))], "date")
        before = start - 1
        while before >= 0 and self.tokens[before].word in LINKS and start - before <= MOST_LINKS:
            before -= 1
        month = self.lexicon.months.get(self.tokens[before].word) if before >= 0 else None
        if month is None:
            return None
        self.facts = [fact for fact in self.facts if fact.keys != {("month", month)}]
        return self.add(before, end, [("md", month, int(day))], "date")

    def named_date(self, at: int) -> int | None:
        """Add the month, weekday, day or part of a day that a word names; None: it names none."""
        token, lexicon = self.tokens[at], self.lexicon
        word = token.word
        if word in lexicon.months and self._is_month(at):
            return self.add(at, at + 1, [("month", lexicon.months[word])], "date")
        if word in lexicon.weekdays and (word not in lexicon.ambiguous or (token.raw[0].isupper() and not token.first)):
            return self.add(at, at + 1, [("weekday", lexicon.weekdays[word])], "date")
        if word in lexicon.dates:
            name = lexicon.dates[word]
            key = ("time", NAMED_TIMES[name]) if name in NAMED_TIMES else ("date", name)
            if (self.peek(at - 1), name) in AFTER_NEXT:
                key = ("date", AFTER_NEXT[self.peek(at - 1), name])
            eve = EVES.get((word, self.peek(at + 1)))
            if eve is not None:
                return self.add(at, at + 2, [eve], "date")
            return self.add(at, at + 1, [key, *NAMED_DAYS.get(name, ()), *self._one_ago(at, name)], "date")
        if word in lexicon.soft_dates:
            return self.add(at, at + 1, [("date", lexicon.soft_dates[word])], "date", soft=True)
        return None

    def _one_ago(self, at: int, name: str) -> list[Key]:
        """Return what "a week ago" is too: "last week"; and "a day ago": "yesterday"."""
        if name != "past" or self.peek(at - 2) not in self.lexicon.articles:
            return []
        unit = self.lexicon.units.get(self.peek(at - 1))
        day = unit is not None and unit.dimension == "time" and unit.factor == DAY
        return [("date", "yesterday")] if day else [("relative", "past")] if unit is not None else []

    def _is_month(self, at: int) -> bool:
        token = self.tokens[at]
        if token.word not in self.lexicon.ambiguous:
            return True
        return self.peek(at - 1) in self.lexicon.month_signs or (token.raw[0].isupper() and not token.first)

    def relative(self) -> None:
        """Add "next", "last" and "this" beside a unit or the name of a time ("next week", "semana pasada")."""
        lexicon = self.lexicon
        times = (lexicon.units, lexicon.months, lexicon.weekdays, lexicon.dates)
        for at, token in enumerate(self.tokens):
            name = lexicon.relative.get(token.word) if token.kind == "w" else None
            if name is None:
                continue
            counted = at + 2 if self.peek(at + 1).isdecimal() or self.peek(at + 1) in lexicon.numbers else at + 1
            sides = (self.peek(counted), self.peek(at - 1) if at and lexicon.code == "es" else "")
            if any(side in table for side in sides for table in times):
                self.facts.append(Fact(frozenset({("relative", name)}), token.raw, "date", soft=name == "this"))


def maybe_hour(fact: Fact) -> Fact:
    """Let a bare number be an hour too, in a text that has a time ("10 instead of 8 am")."""
    for key in fact.keys:
        if key[1] == "" and str(key[0]).isdecimal() and len(str(key[0])) <= 2 and 1 <= int(str(key[0])) <= 12:
            minutes = int(str(key[0])) * 60
            both = {("time", minutes % HALF_DAY), ("time", minutes % HALF_DAY + HALF_DAY)}
            return replace(fact, keys=fact.keys | both)
    return fact
