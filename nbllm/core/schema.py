"""Schemas: what users give as `schema=` to JSON Schema, and answers back to data.

A schema is a pydantic model, a dataclass, a TypedDict, any type that pydantic understands (`list[int]`, `Literal["a", "b"]`) or a
JSON Schema as a dict. The answer must be one JSON text, bare or in one ``` fence; where the schema is a string, the bare text will
do. Duplicate keys, NaN and infinities are refused: they are no JSON, and parsers differ on them.

Limits, so that neither a schema nor an answer can stall for long: schemas of 256 KB, answers of 16 million characters, 100 levels,
and for JSON Schema dicts the limits of nbllm.core.json_schema. No reference is ever fetched. A type's own validators are the user's
code and take the time they take.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn, Protocol

from nbllm.errors import SchemaError

MAX_SCHEMA_CHARS = 256 * 1024
MAX_TEXT_CHARS = 16 * 1024 * 1024
MAX_PROBLEMS = 5
MAX_PROBLEM_CHARS = 1500

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*(?:json|JSON|jsonc|json5)?[ \t]*\r?\n")
_USE = "Use a pydantic model, a dataclass, a TypedDict, a type such as list[int], or a JSON Schema dict."


class Invalid(ValueError):
    """An answer that does not fit. `problem` is short and fit to be sent back to the model."""

    def __init__(self, problem: str) -> None:
        self.problem = problem if len(problem) <= MAX_PROBLEM_CHARS else problem[: MAX_PROBLEM_CHARS - 1] + "…"
        super().__init__(self.problem)


class Schema(Protocol):
    """A schema that was understood. `json` is its JSON Schema, the same for the same definition however often a cell is run."""

    json: dict[str, Any]

    def parse(self, text: str) -> Any:
        """Return the data of an answer; raises Invalid."""


def schema_json(schema: Any) -> dict[str, Any]:
    """Return the JSON Schema for wire and cache key, a copy of its own; raises SchemaError when `schema` is none."""
    copy: dict[str, Any] = json.loads(json.dumps(schema_of(schema).json))
    return copy


def parse(schema: Any, text: str) -> Any:
    """Return the data of an answer: an instance of the type, or plain data for a JSON Schema dict; raises Invalid."""
    return schema_of(schema).parse(text)


def schema_of(schema: Any) -> Schema:
    """Return what was understood of `schema`; raises SchemaError."""
    if isinstance(schema, Mapping):
        return _of_json(_as_text(schema))
    if schema is None or isinstance(schema, str | bytes | int | float | list | tuple | set):
        raise SchemaError(f"schema= is {type(schema).__name__} {str(schema)[:60]!r}, which is no schema.", hint=_USE)
    try:
        hash(schema)
    except TypeError:
        return _of_type.__wrapped__(schema)
    return _of_type(schema)


def _as_text(schema: Mapping[str, Any]) -> str:
    """Return a dict as JSON text in its own order: models write fields in the order in which the schema names them."""
    try:
        text = json.dumps(schema, allow_nan=False, default=_plain_mapping)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"schema= is a dict that is no JSON: {error}.", hint="Python types belong into a model, not a dict."
        ) from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise SchemaError(f"schema= has {len(text):,} characters; at most {MAX_SCHEMA_CHARS:,} will do.")
    return text


def _plain_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {str(value)[:60]!r} is no JSON")


@lru_cache(maxsize=128)
def _of_json(text: str) -> Schema:
    from nbllm.core.quick_jsonschema import import_jsonschema

    import_jsonschema()
    from nbllm.core.json_schema import JsonSchema

    return JsonSchema(json.loads(text))


@lru_cache(maxsize=128)
def _of_type(schema: Any) -> Schema:
    from nbllm.core.typed_schema import TypedSchema

    return TypedSchema(schema)


# ---------------------------------------------------------------------------------------------------- answers


def unfenced(text: str) -> str:
    """Return the text without white space around it and without the one code fence that wraps the whole of it."""
    text = text.strip().removeprefix("\ufeff").strip()
    opening = _FENCE.match(text)
    if opening and text.endswith(opening[1]) and len(text) > opening.end() + len(opening[1]) - 1:
        inner = text[opening.end() : -len(opening[1])]
        if inner.endswith("\n") or inner.rstrip()[-1:] in "}]":
            return inner.strip()
    return text


def json_of(text: str, *, what: str = "answer") -> Any:
    """Return the value of a JSON text, strictly; raises Invalid with the place of the mistake. what: how the text is called."""
    if len(text) > MAX_TEXT_CHARS:
        raise Invalid(f"The {what} has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} will do.")
    if not text:
        raise Invalid(f"The {what} is empty; JSON was asked for.")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        raise Invalid(f"The {what} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}, near {near!r}.") from None
    except RecursionError:
        raise Invalid(f"The {what}'s JSON is nested too deeply.") from None
    except Invalid:
        raise
    except ValueError as error:  # numbers of thousands of digits
        raise Invalid(f"The {what}'s JSON cannot be read: {error}.") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Invalid(f"The key {key[:100]!r} stands twice in one object.")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise Invalid(f"{name} is no JSON; use null or a number.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Invalid(f"The number {text[:40]} is too large.")
    return number


def is_text_schema(schema: Mapping[str, Any]) -> bool:
    """Whether only texts fit: then an answer without quotes is understood too."""
    if isinstance(schema.get("enum"), list):
        return all(isinstance(choice, str) for choice in schema["enum"])
    return schema.get("type") == "string" or isinstance(schema.get("const"), str)


def answer_json(text: str, *, text_schema: bool) -> tuple[Any, str]:
    """Return (value, JSON text) of an answer; raises Invalid. text_schema: the bare text will do."""
    bare = unfenced(text)
    try:
        value = json_of(bare)
    except Invalid:
        if not text_schema or not bare or bare[0] in '"{[' or len(bare) > MAX_TEXT_CHARS:
            raise
        value = bare
    if text_schema and not isinstance(value, str):
        value = bare
    return value, json.dumps(value) if isinstance(value, str) else bare


def problems_text(problems: list[tuple[str, str]], more: bool) -> str:
    """Return a message for a list of (path, problem)."""
    lines = [f"{path}: {problem}" if path else problem for path, problem in problems]
    return "; ".join(lines) + ("; and more" if more else "") + "."
