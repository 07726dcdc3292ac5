"""Schemas that are JSON Schema dicts, through jsonschema. Loaded on first use.

References are resolved inside the schema only; nothing is fetched. Patterns run on pydantic's Rust engine, whose time is linear;
those that it does not know (look-around, back-references) run on Python's, and are refused when a repetition contains another
repetition or a choice, because a hostile answer could make them take forever. A check that takes more than 200,000 steps ends as
Invalid. `format` is an annotation and is not checked, as the standard has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

import jsonschema
from jsonschema import validators
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it has no types
from pydantic_core import SchemaError as CoreSchemaError
from pydantic_core import SchemaValidator, ValidationError, core_schema
from referencing.exceptions import Unresolvable

from nbllm.core.schema import MAX_PROBLEMS, Invalid, answer_json, is_text_schema, problems_text
from nbllm.errors import SchemaError

MAX_STEPS = 200_000
MAX_DEPTH = 64
MAX_PATTERN_CHARS = 1000
MAX_PYTHON_MATCH_CHARS = 2000
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DATA_KEYWORDS = ("const", "enum", "default", "examples")


class JsonSchema:
    """A JSON Schema dict as a schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.json = schema
        base = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        if schema and not any(name in base.VALIDATORS or name in {"$defs", "definitions", "$schema"} for name in schema):
            raise SchemaError(
                f"schema= has no keyword of JSON Schema, only {', '.join(map(repr, list(schema)[:5]))}.",
                hint='For example {"type": "object", "properties": {...}, "required": [...]}.',
            )
        try:
            base.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise SchemaError(f"schema= is no JSON Schema: {_pointer(error.absolute_path)}: {error.message[:300]}.") from None
        except RecursionError:
            raise SchemaError("schema= is nested too deeply.") from None
        _check_parts(schema, (), schema, 0)
        self._validator: Any = _counting(base)(schema, registry=REGISTRY)
        self._is_text = is_text_schema(schema)
        self._key_patterns = '"patternProperties"' in json.dumps(schema)
        self._resolves()

    def parse(self, text: str) -> Any:
        """Return plain data; raises Invalid."""
        data, _ = answer_json(text, text_schema=self._is_text)
        problems = self._problems(data)
        if problems:
            raise Invalid(problems_text(problems[:MAX_PROBLEMS], len(problems) > MAX_PROBLEMS))
        return data

    def _problems(self, data: Any) -> list[tuple[str, str]]:
        """Return up to one more problem than are told."""
        found: list[tuple[str, str]] = []
        try:
            if self._key_patterns and _longest_key(data) > MAX_PYTHON_MATCH_CHARS:
                raise Invalid(f"A key is longer than {MAX_PYTHON_MATCH_CHARS:,} characters.")
            _steps.set(iter(range(MAX_STEPS)))
            for error in self._validator.iter_errors(data):
                path = ".".join(map(str, error.absolute_path))
                found.append(
                    (path, error.message if len(error.message) <= 300 else f"{error.message[:140]}…{error.message[-140:]}")
                )
                if len(found) > MAX_PROBLEMS:
                    break
        except RecursionError:
            raise Invalid("The answer's JSON is nested too deeply.") from None
        return found

    def _resolves(self) -> None:
        """Refuse a schema that refers to itself without end."""
        try:
            examples: tuple[Any, ...] = ({}, [], "", 0, None)
            for example in examples:
                self._problems(example)
        except Unresolvable as error:
            raise SchemaError(f"schema= refers to {str(error.ref)[:100]!r}, which is not in it.") from None
        except Invalid as error:
            raise SchemaError("schema= refers to itself without end, or takes too many steps to check.") from error


# ---------------------------------------------------------------------------------------------------- checking the schema


def _check_parts(part: Any, path: tuple[str, ...], root: Mapping[str, Any], depth: int) -> None:
    """Raise SchemaError for references that lead out, and for patterns that could take forever."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"schema= is nested more than {MAX_DEPTH} levels.")
    if isinstance(part, list):
        for index, item in enumerate(part):
            _check_parts(item, (*path, str(index)), root, depth + 1)
    elif isinstance(part, dict):
        for name, value in part.items():
            here = (*path, name)
            if name in _REFERENCES and isinstance(value, str):
                _check_reference(value, here, root)
            elif name == "pattern" and isinstance(value, str) and path[-1:] != ("properties",):
                _matcher(value)
            elif name == "patternProperties" and isinstance(value, dict):
                for pattern in value:
                    _refuse_slow(pattern)
            if name not in _DATA_KEYWORDS or path[-1:] == ("properties",):
                _check_parts(value, here, root, depth + 1)


def _check_reference(reference: str, path: tuple[str, ...], root: Mapping[str, Any]) -> None:
    base, _, pointer = reference.partition("#")
    if base and base not in _ids(root):
        raise SchemaError(
            f"schema= refers to {reference[:100]!r} at {_pointer(path)}, which lies outside; nothing is fetched.",
            hint="Put the part under $defs and refer to it as #/$defs/NAME.",
        )
    if not base and pointer.startswith("/") and not _ids(root):
        target: Any = root
        for escaped in pointer[1:].split("/"):
            step = escaped.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            target = target.get(step) if isinstance(target, dict) else _item(target, step)
            if target is None:
                raise SchemaError(f"schema= refers to {reference[:100]!r} at {_pointer(path)}, which is not in it.")


def _item(target: Any, step: str) -> Any:
    return target[int(step)] if isinstance(target, list) and step.isdigit() and int(step) < len(target) else None


def _ids(part: Any) -> set[str]:
    if isinstance(part, list):
        return {i for item in part for i in _ids(item)}
    if not isinstance(part, dict):
        return set()
    own = {part["$id"].rstrip("#")} if isinstance(part.get("$id"), str) else set()
    return own | {i for item in part.values() for i in _ids(item)}


def _pointer(path: Any) -> str:
    return "#/" + "/".join(map(str, path))


# ---------------------------------------------------------------------------------------------------- patterns


@lru_cache(maxsize=512)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether the pattern occurs in a text, in bounded time; raises SchemaError."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise SchemaError(f"schema= has a pattern of {len(pattern):,} characters; at most {MAX_PATTERN_CHARS:,} will do.")
    try:
        rust = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except CoreSchemaError:
        return _python_matcher(pattern)

    def matches(text: str) -> bool:
        try:
            rust.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


def _python_matcher(pattern: str) -> Callable[[str], bool]:
    _refuse_slow(pattern)
    compiled = re.compile(pattern)

    def matches(text: str) -> bool:
        if len(text) > MAX_PYTHON_MATCH_CHARS:
            raise Invalid(f"A text of {len(text):,} characters is too long for the pattern {pattern[:60]!r}.")
        return compiled.search(text) is not None

    return matches


def _refuse_slow(pattern: str) -> None:
    """Raise SchemaError when Python's engine could take exponential time, or does not know the pattern."""
    try:
        re.compile(pattern)
        parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]  # noqa: SLF001  the parse tree has no public door
    except (re.error, RecursionError, OverflowError) as error:
        raise SchemaError(f"schema= has a pattern that is none: {pattern[:60]!r}: {error}.") from None
    if _nested(parsed, inside=False):
        raise SchemaError(
            f"schema= has the pattern {pattern[:60]!r}: a repetition contains another one or a choice and could take forever.",
            hint="Write it without repeating a group that repeats or chooses, or check it in check=.",
        )


def _nested(tree: Any, *, inside: bool) -> bool:
    """Whether a repetition (of more than once) contains a repetition or a choice."""
    for operation, argument in tree:
        kind = str(operation)
        if kind in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            _, most, body = argument
            if most > 1 and inside:
                return True
            if _nested(body, inside=inside or most > 1):
                return True
        elif kind == "BRANCH":
            if inside or any(_nested(choice, inside=inside) for choice in argument[1]):
                return True
        elif isinstance(argument, tuple):
            if any(_nested(part, inside=inside) for part in argument if hasattr(part, "data")):
                return True
        elif hasattr(argument, "data") and _nested(argument, inside=inside):
            return True
    return False


# ---------------------------------------------------------------------------------------------------- bounded validation

_steps: ContextVar[Iterator[int]] = ContextVar("nbllm_schema_steps")


@cache
def _counting(base: Any) -> Any:
    """Return the validator class with every keyword counting its steps, and with our own pattern and uniqueItems."""
    ours: dict[str, Callable[..., Any]] = {"pattern": _pattern, "uniqueItems": _unique_items}
    extend: Any = validators.extend  # its stubs leave it untyped
    return extend(base, {name: _counted(ours.get(name, check)) for name, check in base.VALIDATORS.items()})


def _counted(check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if next(_steps.get(), None) is None:
            raise Invalid(f"The answer takes more than {MAX_STEPS:,} steps to check")
        yield from check(validator, value, instance, schema) or ()

    return counted


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    if validator.is_type(instance, "string") and not _matcher(pattern)(instance):
        yield jsonschema.ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _unique_items(validator: Any, unique: bool, instance: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """Compare by canonical JSON: linear, where comparing each with each is not."""
    if unique and validator.is_type(instance, "array"):
        seen = {json.dumps(_numbers_alike(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield jsonschema.ValidationError(f"the array has {len(instance) - len(seen)} items twice")


def _numbers_alike(value: Any) -> Any:
    """Return the value with 1.0 as 1: JSON Schema counts them as equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_numbers_alike(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers_alike(item) for key, item in value.items()}
    return value


def _longest_key(data: Any) -> int:
    if isinstance(data, list):
        return max(map(_longest_key, data), default=0)
    if isinstance(data, dict):
        return max((max(len(key), _longest_key(item)) for key, item in data.items()), default=0)
    return 0
