"""The arguments of a flow as recordings keep them: the JSON that a service takes for the same parameters.

A run that was recorded can be run again when each argument comes back from its JSON as what it was: the same types, the same
values. Of one that does not, it is said why.
"""

from __future__ import annotations

import inspect
import json
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_MOST_LEVELS = 20
_MOST_ITEMS = 10_000
_PLAIN = (str, int, bool)


class Parameters:
    """How the arguments of one function are recorded. Types are looked at when something is recorded, and once."""

    def __init__(self, function: Callable[..., Any], signature: inspect.Signature) -> None:
        self._function = function
        self._parameters = signature.parameters
        self._hints: Mapping[str, Any] | None = None
        self._adapters: dict[str, Any] = {}

    def recorded(self, arguments: Mapping[str, Any], given: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the arguments as plain values, and by name why one of them is not what it was.

        given: those that the caller passed. Of the others, a default that JSON cannot hold is left out: a replay has it again.
        """
        values: dict[str, Any] = {}
        doubts: dict[str, str] = {}
        for name, value in arguments.items():
            try:
                values[name] = self._as_json(name, value)
            except Exception as error:  # a type's own hooks may raise anything; a recording is not worth a flow
                if name in given:
                    values[name] = plain(value)
                    doubts[name] = str(error) if isinstance(error, _Unfaithful) else f"cannot be written as JSON ({_first(error)})"
        return values, doubts

    def _as_json(self, name: str, value: Any) -> Any:
        hint = self._hint(name)
        if hint is None or (type(value) is hint and hint in _PLAIN):
            if self._parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                value = list(value)
            shown = json.loads(json.dumps(plain(value), allow_nan=False))
            if _same(shown, value):
                return shown
            raise _Unfaithful(f"is {_a(value)}; without an annotation only what JSON holds can be run again")
        return self._typed(name, hint, value)

    def _typed(self, name: str, hint: Any, value: Any) -> Any:
        adapter = self._adapter(name, hint)
        for by_alias in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shown = adapter.dump_python(value, mode="json", by_alias=by_alias, warnings="error")
            text = json.dumps(shown, allow_nan=False)
            try:
                back = adapter.validate_json(text, strict=True)
            except ValueError:
                continue
            if _same(back, value):
                if plain(shown) != shown:
                    raise _Unfaithful("is too long or too deep to be recorded whole")
                return shown
        raise _Unfaithful(f"is {_a(value)}, which does not come back from JSON as that")

    def _hint(self, name: str) -> Any:
        if self._hints is None:
            try:
                self._hints = typing.get_type_hints(self._function, include_extras=True)
            except Exception:  # annotations are the user's code, and may name what comes later
                return None
        hint = self._hints.get(name)
        kind = self._parameters[name].kind
        if hint is None or kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            return hint
        return tuple[hint, ...] if kind is inspect.Parameter.VAR_POSITIONAL else dict[str, hint]  # type: ignore[valid-type]

    def _adapter(self, name: str, hint: Any) -> Any:
        if name not in self._adapters:
            from pydantic import TypeAdapter  # only where something is recorded: pydantic is half of the time of importing nbllm

            from nbllm.core.typed_schema import modern

            self._adapters[name] = TypeAdapter(modern(hint))
        return self._adapters[name]


class _Unfaithful(ValueError):
    """What JSON gives back is something else."""


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # A pydantic error quotes the value, which may be anything; its first line does not.
    return f"{type(error).__name__}: {lines[0]:.150}" if lines else type(error).__name__


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same down to their types: 1 is no 1.0, which a prompt would show otherwise."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one) and _same([*one], [*other])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if hasattr(one, "__pydantic_fields__"):
        return bool(_same(vars(one), vars(other)) and one == other)
    return bool(one == other)


def plain(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return a value as JSON would hold it; what is none of JSON's types, too deep or too long as its repr, cut."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if levels and isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        return {str(k): plain(v, levels - 1) for k, v in value.items()}
    if levels and isinstance(value, (list, tuple)) and len(value) <= _MOST_ITEMS:
        return [plain(v, levels - 1) for v in value]
    if isinstance(value, (Mapping, list, tuple)):
        return f"<{type(value).__name__} of {len(value)}>"
    try:
        return repr(value)[:1000]
    except Exception:  # a user's __repr__; a recording is not worth a flow
        return f"<{type(value).__name__}>"
