"""Small pure helpers over JSON Schema for the simulated model's structured answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from nbllm.providers.sim_reading import content_words

Schema = Mapping[str, Any]
MAX_DEPTH = 12
"""How deep a value may nest; beyond half of it, optional and nullable things are left out."""


def type_of(schema: Schema, depth: int) -> str:
    """Return the JSON type to make: the stated one (of several the first that is not null), else what the keywords imply."""
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kinds = [one for one in kind if one != "null"]
        kind = "null" if "null" in kind and (depth > MAX_DEPTH // 2 or not kinds) else kinds[0]
    if isinstance(kind, str) and kind in {"object", "array", "string", "integer", "number", "boolean", "null"}:
        return kind
    if schema.keys() & {"properties", "required", "additionalProperties", "minProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems"}:
        return "array"
    if schema.keys() & {"minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"}:
        return "number"
    return "string"


def merge(first: Schema, second: Schema) -> dict[str, Any]:
    """Return both schemas as one: properties and required together, of the rest the second's."""
    merged = {**first, **second}
    for key in ("properties", "$defs"):
        if key in first and key in second:
            merged[key] = {**first[key], **second[key]}
    if "required" in first and "required" in second:
        merged["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return merged


def bounds(schema: Schema, step: float | None) -> tuple[float, float]:
    """Return the smallest and largest allowed number; exclusive bounds are moved in by one step (or a millionth)."""
    low, high = float(schema.get("minimum", -math.inf)), float(schema.get("maximum", math.inf))
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    gap = float(step) if step else 1e-6
    if isinstance(above, int | float) and not isinstance(above, bool):
        low = max(low, above + gap if step is None or math.isclose(above / step, round(above / step)) else above)
    if isinstance(below, int | float) and not isinstance(below, bool):
        high = min(high, below - gap if step is None or math.isclose(below / step, round(below / step)) else below)
    return low, high


def drawn(low: float, high: float, random: Random) -> float:
    """Return a number with two decimals between two finite bounds; the bound where rounding would lead past it."""
    return min(max(round(random.uniform(low, high), 2), low), high)


def between(low: float, high: float, random: Random) -> float:
    """Return a number between the bounds; an infinite bound counts as ten away from the other."""
    if math.isfinite(low) and math.isfinite(high):
        return drawn(low, high, random) if high - low > 0.02 else (low + high) / 2
    if math.isfinite(low):
        return low + random.randint(0, 9)
    return high - random.randint(0, 9) if math.isfinite(high) else float(random.randint(1, 9))


def fit(text: str, schema: Schema) -> str:
    """Return a text within minLength and maxLength: cut at a word where possible, repeated where too short."""
    least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
    while len(text) < least:
        text = f"{text} {text}" if text.strip() else "." * least
    if most is not None and len(text) > int(most):
        cut = text[: int(most)]
        shorter = cut.rsplit(" ", 1)[0].rstrip(" ,;:")
        text = shorter if len(shorter) >= max(least, len(cut) // 2) and content_words(shorter) else cut
    return text
