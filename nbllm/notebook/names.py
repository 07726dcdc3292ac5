"""Names of the notebook: looked up for options and templates, with words for people when they are not there."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from IPython.core.error import UsageError

from nbllm.settings.suggest import nearest


def users_names(namespace: Mapping[str, Any]) -> list[str]:
    """Return the names that the user defined, IPython's own left out."""
    shells = {"In", "Out", "get_ipython", "exit", "quit", "open"}
    return [name for name in namespace if not name.startswith("_") and name not in shells]


def look_up(name: str, namespace: Mapping[str, Any], flag: str) -> Any:
    """Return what a name, dots allowed, stands for; UsageError when there is no such thing."""
    first, *others = name.split(".")
    if first in namespace:
        value = namespace[first]
    elif hasattr(builtins, first):
        value = getattr(builtins, first)
    else:
        best = nearest(first, users_names(namespace))
        raise UsageError(f"{flag} {name}: {first} is not defined in this notebook.{f' Did you mean {best}?' if best else ''}")
    for part in others:
        if not hasattr(value, part):
            raise UsageError(f"{flag} {name}: there is no {part} in {type(value).__name__} {first}.")
        value = getattr(value, part)
    return value


def schema_named(name: str, namespace: Mapping[str, Any]) -> Any:
    """Return the class or JSON Schema of that name; UsageError for anything else."""
    value = look_up(name, namespace, "--schema")
    if not isinstance(value, type | Mapping):
        raise UsageError(
            f"--schema {name}: a pydantic model, dataclass, TypedDict or JSON Schema dict is needed, not {_kind(value)}."
        )
    return value


def check_named(name: str, namespace: Mapping[str, Any]) -> Any:
    """Return the function of that name; UsageError for anything that cannot be called."""
    value = look_up(name, namespace, "--check")
    if not callable(value):
        raise UsageError(f"--check {name}: a function is needed, not {_kind(value)}.")
    return value


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
