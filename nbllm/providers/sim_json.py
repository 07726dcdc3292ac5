"""JSON in the shape of a JSON Schema, with values taken from a text: the simulated model's structured answers.

`fill` knows what pydantic, dataclasses and hand-written schemas use: type, enum, const, properties, required, items, prefixItems,
minItems, maxItems, uniqueItems, minLength, maxLength, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, format,
pattern (values of the text, and common shapes, that match it), $ref, anyOf, oneOf, allOf, default, examples. It does not search
for contradictions: for a schema that nothing satisfies, or with `not` or `if`, the result may be invalid, as a model's would be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from nbllm.providers.sim_reading import important, keywords, names, sentences, shorten, stems
from nbllm.providers.sim_schema import MAX_DEPTH, Schema, between, bounds, drawn, fit, merge, type_of
from nbllm.providers.sim_text import label_of, title_of

_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "person@example.com",
    "uri": "https://example.com/",
    "uuid": "8a3e1c5e-6f0b-4f57-9d0b-2f6c3b1a7d42",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
    "duration": "PT1H",
}
_FOUND = {
    "date": r"\b\d{4}-\d{2}-\d{2}\b",
    "email": r"[\w.+-]+@[\w-]+\.[\w.-]*\w",
    "uri": r"https?://[^\s\"'<>)]+[\w/]",
}
_SHAPES = (
    "a",
    "A",
    "1",
    "12",
    "123",
    "12345",
    "a1",
    "A1",
    "AB",
    "ABC",
    "AB-123",
    "ab-cd",
    "ab_cd",
    "USD",
    "en",
    "en-GB",
    "1.0.0",
    "#aabbcc",
    "",
)
_LONG = r"summary|description|explanation|reason|rationale|body|text|content|answer|details|comment|evidence|quote|abstract"


def fill(schema: Schema | bool, text: str, random: Random, *, noise: float = 0.1) -> Any:
    """Return a JSON value in the shape of `schema`, its strings and numbers taken from `text` where something there fits."""
    return _Filler(schema if isinstance(schema, Mapping) else {}, text, random, noise).value(schema, "", 0)


class _Filler:
    """One filling: the schema's root (for $ref), the text, and which of its numbers and names were used."""

    def __init__(self, root: Schema, text: str, random: Random, noise: float) -> None:
        self._root = root
        self._text = text
        self._random = random
        self._noise = noise
        self._sentences = sentences(text)
        self._numbers = [float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?", text)][:50]
        self._names = names(text)
        self._numbers_used = 0
        self._names_used = 0

    def value(self, schema: Schema | bool, name: str, depth: int) -> Any:
        """Return a value for the (sub)schema; `name` is the property it stands under and steers what is taken."""
        if not isinstance(schema, Mapping):
            return self._phrase(name)
        schema = self._resolved(schema)
        for given in ("const", "default"):
            if given in schema:
                return schema[given]
        if schema.get("enum"):
            return self._choice(list(schema["enum"]))
        for choice in ("anyOf", "oneOf"):
            if schema.get(choice):
                return self.value(self._branch(schema, choice, depth), name, depth + 1)
        makers: dict[str, Callable[[Schema, str, int], Any]] = {
            "object": lambda s, _, d: self._object(s, d),
            "array": self._array,
            "string": lambda s, n, _: self._string(s, n),
            "integer": lambda s, n, _: int(self._number(s, n, whole=True)),
            "number": lambda s, n, _: self._number(s, n, whole=False),
            "boolean": lambda *_: self._random.random() < 0.5,
            "null": lambda *_: None,
        }
        return makers[type_of(schema, depth)](schema, name, depth)

    def _resolved(self, schema: Schema) -> dict[str, Any]:
        """Return the schema with its $ref followed and its allOf merged in; what stands beside a $ref counts too."""
        merged = dict(schema)
        for _ in range(MAX_DEPTH):
            reference, parts = merged.pop("$ref", None), merged.pop("allOf", None)
            if reference is None and not parts:
                break
            for part in [self._at(reference)] if reference is not None else parts or []:
                merged = merge(merged, part)
            if reference is not None and parts:
                merged["allOf"] = parts
        return merged

    def _at(self, reference: str) -> Schema:
        place: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if key:
                place = place.get(key, {}) if isinstance(place, Mapping) else {}
        return place if isinstance(place, Mapping) else {}

    def _branch(self, schema: Schema, choice: str, depth: int) -> Schema:
        """Return one branch of anyOf/oneOf, with the schema around it: the first that is not null, null when it gets too deep."""
        branches = [self._resolved(branch) for branch in schema[choice] if isinstance(branch, Mapping)]
        nulls = [branch for branch in branches if branch.get("type") == "null"]
        others = [branch for branch in branches if branch.get("type") != "null"]
        if nulls and (depth > MAX_DEPTH // 2 or not others):
            return nulls[0]
        if depth > MAX_DEPTH // 2:  # a recursive union: the simplest branch ends it
            others.sort(key=lambda branch: type_of(branch, depth) in {"object", "array"})
        around = {key: value for key, value in schema.items() if key != choice}
        return merge(around, others[0]) if others else around

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = list(schema.get("required") or ())
        wanted = [key for key in properties if key in required or depth < MAX_DEPTH // 2]
        made = {key: self.value(properties[key], key, depth + 1) for key in wanted}
        extra = schema.get("additionalProperties", True)
        for key in required:
            if key not in made:
                made[key] = self.value(extra if isinstance(extra, Mapping) else {}, key, depth + 1)
        missing = int(schema.get("minProperties") or (1 if isinstance(extra, Mapping) and not properties else 0)) - len(made)
        for key in [word.lower() for word in keywords(self._text, max(0, missing))]:
            made.setdefault(key, self.value(extra if isinstance(extra, Mapping) else {}, key, depth + 1))
        return made

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least, most = int(schema.get("minItems") or 0), schema.get("maxItems")
        made = [self.value(item, name, depth + 1) for item in schema.get("prefixItems") or ()]
        items = schema.get("items", {})
        if items is False:
            return made
        count = max(least, len(made), 0 if made or depth > MAX_DEPTH // 2 else 3 if depth < 4 else 1)
        count = min(count, int(most)) if most is not None else count
        inner = self._resolved(items) if isinstance(items, Mapping) else {}
        if type_of(inner, depth) == "string" and not inner.keys() & {"enum", "const", "format", "pattern", "anyOf", "oneOf"}:
            made += [fit(text, inner) for text in self._texts(name, count - len(made))]
        tries = 0
        while len(made) < count and tries < 20 * (count + 1):
            tries += 1
            one = self.value(inner, name, depth + 1)
            if not schema.get("uniqueItems") or one not in made:
                made.append(one)
            elif isinstance(one, str) and not inner.get("enum"):
                made.append(fit(f"{tries} {one}", inner))
        return made[: int(most)] if most is not None else made

    def _texts(self, name: str, count: int) -> list[str]:
        """Return different texts for a list: sentences for points and quotes, names for people, else keywords."""
        if re.search(r"point|sentence|bullet|fact|quote|finding|step|reason|summar|highlight", name, re.IGNORECASE):
            chosen = important(self._sentences, count, self._random, self._noise)
            return [shorten(sentence, 32) for sentence in chosen]
        if re.search(r"name|people|person|place|entit|author|compan|cit", name, re.IGNORECASE) and self._names:
            return self._names[:count]
        return [word.lower() for word in keywords(self._text, count)]

    def _string(self, schema: Schema, name: str) -> str:
        form, pattern = schema.get("format"), schema.get("pattern")
        if form in _FORMATS:
            found = re.search(_FOUND[form], self._text) if form in _FOUND else None
            return found.group() if found else _FORMATS[form]
        if pattern:
            return self._matching(str(pattern), schema)
        return fit(self._phrase(name), schema)

    def _matching(self, pattern: str, schema: Schema) -> str:
        try:
            wanted = re.compile(pattern)
        except re.error:
            return fit(self._phrase(""), schema)
        words = self._text.split()[:2000]
        for candidate in [
            *words,
            *(word.strip(".,;:!?()\"'") for word in words),
            *(w.lower() for w in words),
            *_FORMATS.values(),
            *_SHAPES,
        ]:
            if wanted.search(candidate) and fit(candidate, schema) == candidate:
                return candidate
        found = wanted.search(self._text)
        return found.group() if found else fit(self._phrase(""), schema)

    def _phrase(self, name: str) -> str:
        """Return a text that fits a property of that name."""
        asked = name.replace("_", " ")
        if re.search(r"\b(title|headline|subject|heading)\b", asked, re.IGNORECASE):
            return title_of(self._text) or "Untitled"
        if re.search(r"\b(sentiment|tone|mood)\b", asked, re.IGNORECASE):
            return label_of(self._text, ["positive", "negative", "neutral"], self._random)
        if re.search(r"\b(name|author|person|city|place|country|company|customer)\b", asked, re.IGNORECASE) and self._names:
            self._names_used += 1
            return self._names[(self._names_used - 1) % len(self._names)]
        if re.search(rf"\b({_LONG})\b", asked, re.IGNORECASE) and self._sentences:
            return " ".join(shorten(one, 40) for one in important(self._sentences, 2, self._random, self._noise))
        about = [one for one in self._sentences if set(stems(asked)) & set(stems(one))]
        if about:
            return shorten(about[0], 14)
        words = keywords(self._text, 8)
        return self._random.choice(words) if words else (asked or "none")

    def _choice(self, options: list[Any]) -> Any:
        texts = [option for option in options if isinstance(option, str)]
        if len(texts) == len(options):
            return label_of(self._text, texts, self._random)
        return self._random.choice(options)

    def _number(self, schema: Schema, name: str, *, whole: bool) -> float:
        """Return a number of the text that is within bounds, else one between them."""
        step = schema.get("multipleOf") or (1 if whole else None)
        low, high = bounds(schema, step)
        years = [float(year) for year in re.findall(r"\b(?:1\d{3}|20\d\d)\b", self._text)] if "year" in name.lower() else []
        usable = [
            n for n in [*years, *self._numbers] if low <= n <= high and (step is None or math.isclose(n / step, round(n / step)))
        ]
        share = re.search(r"confidence|score|probability|ratio|share|certainty", name, re.IGNORECASE)
        if share and not whole and low <= 0.5 <= high:
            return drawn(max(low, 0.5), min(high, 0.99), self._random)
        if usable:
            self._numbers_used += 1
            number = usable[(self._numbers_used - 1) % len(usable)]
        else:
            number = between(low, high, self._random)
        if step is not None:
            number = (
                min(
                    max(round(number / step), math.ceil(low / step) if math.isfinite(low) else round(number / step)),
                    math.floor(high / step) if math.isfinite(high) else round(number / step),
                )
                * step
            )
        return int(number) if float(number).is_integer() and (whole or abs(number) < 2**53) else number
