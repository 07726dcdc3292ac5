"""JSON in the shape of a schema: what `fill` makes is valid, for schemas as people and pydantic write them."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from nbllm.providers.sim_json import fill
from tests.providers.simulation import DOC

small = st.integers(0, 4)


def leaf_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Strings, numbers, enums and constants with bounds that can be met."""
    lengths = st.tuples(small, st.integers(4, 30)).map(lambda t: {"type": "string", "minLength": t[0], "maxLength": t[1]})
    bounds = st.tuples(st.integers(-50, 50), st.integers(2, 100))
    integers = bounds.map(lambda t: {"type": "integer", "minimum": t[0], "maximum": t[0] + t[1]})
    steps = bounds.map(lambda t: {"type": "integer", "multipleOf": 5, "minimum": t[0], "maximum": t[0] + t[1] + 5})
    open_ends = bounds.map(lambda t: {"type": "number", "exclusiveMinimum": t[0], "exclusiveMaximum": t[0] + t[1]})
    formats = st.sampled_from(["date", "date-time", "email", "uri", "uuid"]).map(lambda f: {"type": "string", "format": f})
    fixed = st.sampled_from(
        [
            {"enum": ["a", "b"]},
            {"enum": [1, None, "x"]},
            {"const": 7},
            {"type": "boolean"},
            {"type": "null"},
            {},
            {"type": ["null", "string"]},
        ]
    )
    patterns = st.sampled_from(["^[A-Z]{2}-\\d{3}$", "^\\d{4}$", "^[a-z]+$", "^$"]).map(lambda p: {"type": "string", "pattern": p})
    return st.one_of(lengths, integers, steps, open_ends, formats, fixed, patterns)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects, arrays and unions of schemas."""
    names = st.sampled_from(["title", "name", "count", "key_points", "score", "email", "x"])
    objects = st.dictionaries(names, inner, max_size=4).map(
        lambda p: {"type": "object", "properties": p, "required": list(p), "additionalProperties": False}
    )
    arrays = st.tuples(inner, small, st.integers(4, 6)).map(
        lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[2]}
    )
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})
    return st.one_of(objects, arrays, unions)


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaf_schemas(), nested, max_leaves=6), st.integers(0, 3))
def test_what_is_made_is_valid(schema: dict[str, Any], seed: int) -> None:
    """Over nested schemas with satisfiable bounds, every value validates."""
    jsonschema.Draft202012Validator(schema).validate(fill(schema, DOC, Random(seed)))


@pytest.mark.parametrize("name", ["x", "score"])
def test_rounding_does_not_lead_past_a_bound(name: str) -> None:
    """Two decimals look like a number of a person; one that would round onto an excluded bound, or past one, does not."""
    above = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.526}
    below = {"type": "number", "minimum": 0.473, "maximum": 0.526}
    drawn = [fill({"type": "object", "properties": {name: of}}, "", Random(n)) for of in (above, below) for n in range(200)]
    assert all(0 < made[name] < 0.526 for made in drawn[:200])
    assert all(0.473 <= made[name] <= 0.526 for made in drawn[200:])


class Port(BaseModel):
    """A place on the way."""

    name: str = Field(max_length=40)
    fathoms: int | None = None


class Voyage(BaseModel):
    """What pydantic writes: $defs, $ref, anyOf with null, defaults, nested and recursive models."""

    title: str
    status: Literal["planned", "done"]
    ports: list[Port] = Field(min_length=1, max_length=2)
    rating: float = Field(ge=0, le=1)
    tags: set[str] = Field(min_length=2)
    notes: dict[str, int]
    pair: tuple[str, int]
    follows: Voyage | None = None
    children: list[Voyage] = []


@pytest.mark.parametrize("seed", range(5))
def test_pydantic_models_are_filled(seed: int) -> None:
    """The schema of a recursive pydantic model gives data that the model accepts."""
    voyage = Voyage.model_validate(fill(Voyage.model_json_schema(), DOC, Random(seed)))
    assert voyage.title


def test_strings_come_from_the_text() -> None:
    """Names are names, summaries sentences, e-mail addresses and dates those of the text."""
    text = f"{DOC} Write to office@cable.example before 1924-03-01."
    properties = {name: {"type": "string"} for name in ("name", "summary", "title")}
    properties |= {"contact": {"type": "string", "format": "email"}, "due": {"type": "string", "format": "date"}}
    made = fill({"type": "object", "properties": properties}, text, Random(1))
    assert made["name"] == "Faraday"
    assert made["contact"] == "office@cable.example"
    assert made["due"] == "1924-03-01"
    assert made["summary"][:30] in " ".join(DOC.split())


@pytest.mark.parametrize("text", ["", "\x00", "💥" * 50, "1e999 -0 00"])
def test_poor_texts_still_give_valid_values(text: str) -> None:
    """A prompt without words is no reason to fail."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "minLength": 1}, "b": {"type": "array", "items": {"type": "string"}}},
    }
    jsonschema.validate(fill({**schema, "required": ["a", "b"]}, text, Random(0)), schema)


@pytest.mark.parametrize(
    "schema", [True, {"$ref": "#/$defs/gone"}, {"type": "string", "pattern": "("}, {"allOf": [{"type": "integer"}]}]
)
def test_odd_schemas_do_not_crash(schema: Any) -> None:
    """References to nothing, broken patterns and bare allOf give some value."""
    fill(schema, DOC, Random(0))
