"""Schemas: what users give becomes JSON Schema, answers become data or a short problem."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from nbllm.core.schema import Invalid, parse, schema_json
from nbllm.errors import SchemaError


class Model(BaseModel):
    x: int
    tags: list[str] = []
    day: date | None = None


@dataclass
class Data:
    a: int
    b: str = "q"


class Typed(TypedDict):
    a: int
    b: NotRequired[list[str]]


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Checked(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


GOOD: list[tuple[Any, str, Any]] = [
    (Model, '{"x": 1, "day": "2026-11-21"}', Model(x=1, day=date(2026, 11, 21))),
    (Model, '```json\n{"x": 1}\n```', Model(x=1)),
    (Model, '\n```\n{"x": 1}\n```\n', Model(x=1)),
    (Data, '{"a": 1}', Data(1)),
    (Typed, '{"a": 1, "b": ["x"]}', {"a": 1, "b": ["x"]}),
    (list[Typed], '[{"a": 1}]', [{"a": 1}]),
    (Colour, "red", Colour.red),
    (Colour, '"red"', Colour.red),
    (Literal["a", "b"], "a", "a"),
    (list[int], "[1, 2]", [1, 2]),
    (dict[str, float], '{"a": 1.5}', {"a": 1.5}),
    (str, "plain text", "plain text"),
    (str, '"quoted"', "quoted"),
    (str, "12", "12"),
    (int, "12", 12),
    (Annotated[int, Field(ge=3)], "3", 3),
    (int | None, "null", None),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": 2}', {"a": 1, "b": 2}),
    ({"enum": ["yes", "no"]}, "yes", "yes"),
    ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, "[1]", [1]),
    ({"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}}, '{"pattern": "("}', {"pattern": "("}),
    ({"type": "string", "pattern": "^(a+)+$"}, "aaa", "aaa"),
    ({}, '{"any": [1]}', {"any": [1]}),
]


@pytest.mark.parametrize(("schema", "text", "data"), GOOD)
def test_answers_become_data(schema: Any, text: str, data: Any) -> None:
    """Every kind of schema builds its data, from bare JSON or from one code fence."""
    assert parse(schema, text) == data


BAD: list[tuple[Any, str, str]] = [
    (Model, "", "empty"),
    (Model, 'Here you are: {"x": 1}', "no JSON"),
    (Model, '{"x": 1} and more', "no JSON"),
    (Model, '```json\n{"x": 1}\n```\nI hope this helps!', "no JSON"),
    (Model, '{"x": 1, "x": 2}', "twice"),
    (Model, '{"x": NaN}', "NaN"),
    (Model, '{"x": -Infinity}', "Infinity"),
    (Model, '{"x": 1e999}', "too large"),
    (Model, "[" * 100_000, "nested"),
    (Model, '{"x": ' + "1" * 5000 + "}", "cannot be read"),
    (Model, '{"x": "a"}', "x: Input should be a valid integer"),
    (Model, "{}", "x: Field required"),
    (Checked, '{"x": 3}', "must be even"),
    (list[int], '{"a": 1}', "array"),
    (Literal["a", "b"], "c", "'a' or 'b'"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, '{"b": 1}', "'a' is a required property"),
    ({"properties": {"a": {"items": {"type": "integer"}}}}, '{"a": [1, "x"]}', "a.1: 'x' is not of type 'integer'"),
    ({"enum": ["yes", "no"]}, "maybe", "maybe"),
    ({"type": "array", "uniqueItems": True}, '[1, 1.0, {"a": 1}]', "twice"),
    ({"type": "string", "pattern": "^a+$"}, "b", "does not match"),
    ({"type": "integer"}, '"' + "a" * 100_000 + '"', "integer"),
]


@pytest.mark.parametrize(("schema", "text", "says"), BAD)
def test_what_does_not_fit_is_a_short_problem(schema: Any, text: str, says: str) -> None:
    """The problem names place and cause, is fit to be sent back, and never longer than a model needs."""
    with pytest.raises(Invalid) as caught:
        parse(schema, text)
    assert says in caught.value.problem
    assert len(caught.value.problem) <= 1500


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("Answer", "no schema"), (5, "no schema"), (None, "no schema"), ([int], "no schema"), (len, "no type"), (json, "no type"),
        (object(), "no schema"), (Model(x=1), "no schema"), ({"type": "objekt"}, "#/type"), ({"name": "str"}, "no keyword"),
        ({"type": "object", "properties": {"a": {"type": 5}}}, "#/properties/a/type"), ({"a": int}, "no JSON"),
        ({"x": float("nan")}, "no JSON"),
        ({"$ref": "https://example.org/schema"}, "nothing is fetched"), ({"items": {"$ref": "other.json#/x"}},
        "nothing is fetched"),
        ({"$ref": "#/$defs/x"}, "not in it"), ({"$ref": "#"}, "without end"), ({"anyOf": [{"$ref": "#"}]}, "without end"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "^(?=a)(a+)+$"}, "forever"), ({"patternProperties": {"^(a|a)*$": {}}}, "forever"),
        ({"description": "x" * 300_000}, "characters"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused_before_anything_is_sent(schema: Any, says: str) -> None:
    """SchemaError says what is wrong with it and what would do."""
    with pytest.raises(SchemaError, match=says):
        schema_json(schema)


def test_a_schema_that_holds_itself_is_refused() -> None:
    """A dict with itself inside is no JSON."""
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"a": schema}
    with pytest.raises(SchemaError):
        schema_json(schema)


def test_the_same_definition_gives_the_same_json() -> None:
    """Cells are run again: a class defined anew has the same JSON, and callers get copies of their own."""

    def define() -> type[BaseModel]:
        class Answer(BaseModel):
            b: int
            a: str = "x"

        return Answer

    first, second = schema_json(define()), schema_json(define())
    assert json.dumps(first) == json.dumps(second)
    first.clear()
    assert schema_json(define()) == second
    assert list(second["properties"]) == ["b", "a"]
    assert json.dumps(schema_json(Typed)) == json.dumps(schema_json(Typed))


def test_nothing_is_ever_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reference, metaschema or $schema address opens a socket."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    schema = {"$schema": "https://evil.example/meta", "$id": "https://evil.example/x", "type": "integer"}
    assert parse(schema, "1") == 1
    with pytest.raises(SchemaError):
        schema_json({"$ref": "http://evil.example/x"})


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "pattern": "^(a+)+$"}, '"' + "a" * 100_000 + 'b"'),
        ({"type": "string", "pattern": "^(?!b)(a*)$"}, '"' + "a" * 100_000 + 'b"'),
        ({"patternProperties": {"^(?!b)a*$": {}}}, '{"' + "a" * 100_000 + 'b": 1}'),
        ({"type": "array", "uniqueItems": True}, "[" + ",".join(['{"a": [1]}'] * 30_000) + "]"),
        ({"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 3}, "[" * 40 + "1" + "]" * 40),
    ],
)
def test_no_answer_can_stall_a_check(schema: Any, text: str) -> None:
    """Patterns, uniqueItems and recursion that take exponential or quadratic time elsewhere end here."""
    started = time.thread_time()
    with pytest.raises(Invalid):
        parse(schema, text)
    assert time.thread_time() - started < 20


@given(st.text(max_size=60))
def test_any_text_is_data_or_a_problem(text: str) -> None:
    """No answer makes parsing fail in any other way."""
    for schema in (Model, {"type": "object"}, list[int]):
        with contextlib.suppress(Invalid):
            parse(schema, text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=3), c, max_size=3),
    )
)
def test_what_fits_comes_back_as_it_was(data: Any) -> None:
    """Plain data survives the way through JSON and an open schema, fenced or not."""
    assert parse({}, json.dumps(data)) == data
    assert parse({}, f"```json\n{json.dumps(data, indent=1)}\n```") == data


def test_importing_it_loads_neither_pydantic_nor_jsonschema() -> None:
    """A session without schemas does not pay for them."""
    code = "import sys, nbllm.core.schema; print(sorted({'pydantic', 'jsonschema'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("rfc3987") is not None, reason="jsonschema takes another checker here")
def test_a_schema_does_not_load_the_checker_of_a_format_that_nobody_asks_for(tmp_path: Path) -> None:
    """What jsonschema takes along compiles grammars for a second; whoever checks that format finds it working all the same."""
    (tmp_path / "rfc3987_syntax.py").write_text("print('loaded')\ndef is_valid_syntax(term, value): return value == 'good'\n")
    code = """
import sys
from nbllm.core.schema import schema_of
schema_of({"type": "object"})
import jsonschema
print("checks")
checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
print(checker.conforms("good", "iri"), checker.conforms("bad", "iri"), checker.conforms("good", "iri-reference"))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["checks", "loaded", "True", "False", "True"]
