"""What a door tells a person who asks for it with `?` or Tab: every option by name, its default and what it does.

The doors take `**options: Unpack[CallOptions]`, which type checkers read; at run time the names come from CALL_OPTIONS, so that
neither can drift from the other.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeVar

from nbllm.settings.call_options import EmbedOptions
from nbllm.settings.tables import CALL_OPTIONS

F = TypeVar("F", bound=Callable[..., Any])
_TAKES = {"chat": tuple(CALL_OPTIONS), "embed": tuple(n for n in CALL_OPTIONS if n in EmbedOptions.__annotations__)}
_WIDTH = 80


def door(kind: Literal["chat", "embed"] = "chat") -> Callable[[F], F]:
    """Return a decorator that writes the options into a door's signature and docstring. The function itself stays as it is."""
    options = tuple(CALL_OPTIONS[name] for name in _TAKES[kind])

    def described(function: F) -> F:
        known = inspect.signature(function).parameters.values()
        own = [p for p in known if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        named = [inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default) for o in options]
        result = inspect.signature(function).return_annotation
        function.__signature__ = inspect.Signature([*own, *named], return_annotation=result)  # type: ignore[attr-defined]
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{_listed(kind)}"
        return function

    return described


@cache
def _listed(kind: str) -> str:
    """Return the options as text: name and default, and what it does."""
    lines = ["Options, all by name; what is left out has the value that the settings give it, by default:", ""]
    for option in map(CALL_OPTIONS.__getitem__, _TAKES[kind]):
        shown = "" if option.default in (None, (), {}, "") else f" = {option.default!r}"
        lines += textwrap.wrap(f"{option.name}{shown}: {option.help}", _WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)
