"""Schemas that are types: pydantic models, dataclasses, TypedDicts and plain types, through pydantic. Loaded on first use."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any

import typing_extensions
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from nbllm.core.schema import MAX_PROBLEMS, Invalid, answer_json, is_text_schema, problems_text
from nbllm.errors import SchemaError

_HINT = "Use a pydantic model, a dataclass, a TypedDict, a type such as list[int], or a JSON Schema dict."


class _Quiet(GenerateJsonSchema):
    """A default that is no JSON is left out of the schema; that needs no warning."""

    ignored_warning_kinds = frozenset(("skipped-choice", "non-serializable-default"))  # type: ignore[assignment]  # typed as a set


class TypedSchema:
    """A type as a schema."""

    def __init__(self, schema: Any) -> None:
        if isinstance(schema, types.FunctionType | types.BuiltinFunctionType | types.MethodType | types.ModuleType):
            raise SchemaError(f"schema= is {schema!r}, which is no type.", hint="A function belongs into check=.")
        if isinstance(schema, TypeAdapter):
            self._adapter: TypeAdapter[Any] = schema
        else:
            self._adapter = self._adapted(schema)
        try:
            self.json: dict[str, Any] = self._adapter.json_schema(schema_generator=_Quiet)
        except Exception as error:  # types may bring schema hooks of their own, which may raise anything
            raise SchemaError(f"schema={_name(schema)} has no JSON Schema: {_first_line(error)}", hint=_HINT) from error
        self._is_text = is_text_schema(self.json)

    @staticmethod
    def _adapted(schema: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(modern(schema))
        except Exception as error:  # pydantic runs the type's own hooks, which may raise anything
            raise SchemaError(f"schema={_name(schema)} is no schema: {_first_line(error)}", hint=_HINT) from error

    def parse(self, text: str) -> Any:
        """Return an instance of the type; raises Invalid."""
        _, json_text = answer_json(text, text_schema=self._is_text)
        try:
            return self._adapter.validate_json(json_text)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            shown = [
                (".".join(map(str, e["loc"])), e["msg"] if e["type"] == "missing" else f"{e['msg']}, not {_short(e['input'])}")
                for e in found[:MAX_PROBLEMS]
            ]
            raise Invalid(problems_text(shown, len(found) > MAX_PROBLEMS)) from None
        except Exception as error:  # a validator of the user's type failed in a way of its own
            raise Invalid(f"{type(error).__name__}: {error}") from error


def modern(schema: Any) -> Any:
    """Return the type with typing.TypedDict replaced by typing_extensions', which pydantic insists on before Python 3.12."""
    if sys.version_info >= (3, 12):
        return schema
    if typing.is_typeddict(schema) and type(schema).__module__ == "typing":
        hints = typing_extensions.get_type_hints(schema, include_extras=True)
        fields = {
            name: modern(hint) if name in schema.__required_keys__ else typing_extensions.NotRequired[modern(_unwrapped(hint))]
            for name, hint in hints.items()
        }
        make: Any = typing_extensions.TypedDict  # built from data, which type checkers do not follow
        made = make(schema.__name__, fields)
        made.__doc__ = schema.__doc__
        made.__module__ = schema.__module__
        return made
    origin, args = typing.get_origin(schema), typing.get_args(schema)
    if not args or origin is typing.Literal:
        return schema
    new = tuple(modern(a) for a in args)
    if new == args:
        return schema
    if origin is types.UnionType or origin is typing.Union:
        return typing.Union[new]  # noqa: UP007  built from data
    return origin[new] if origin is not typing.Annotated else typing.Annotated[(new[0], *schema.__metadata__)]


def _unwrapped(hint: Any) -> Any:
    """Return X of NotRequired[X] and Required[X]."""
    if typing.get_origin(hint) in {typing.NotRequired, typing.Required}:
        return typing.get_args(hint)[0]
    return hint


def _name(schema: Any) -> str:
    return str(getattr(schema, "__name__", None) or repr(schema))[:80]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
