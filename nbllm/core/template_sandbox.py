"""The sandbox that templates run in. Imports jinja2, so it is loaded when the first template with a tag is rendered."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from jinja2 import StrictUndefined, Undefined
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 1_000_000
MAX_SECONDS = 10.0
MAX_REPEAT = 10_000_000
"""Longest text or list that one operation may make of a number (`"a" * n`, `center(n)`)."""

_WIDE_FORMAT = re.compile(r"%[^A-Za-z%]*(?:\d{5,}|\*)|\{[^{}]*:[^{}]*\d{5,}[^{}]*\}")


class Limit(Exception):
    """A template asked for more than a prompt can need. Turned into TemplateError by the caller."""


class _Meter:
    """Steps and time of one rendering. Real time on purpose: the limit protects a person at a keyboard."""

    def __init__(self) -> None:
        self.steps = 0
        self.until_s = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Limit(f"The template takes more than {MAX_STEPS:,} steps")
        if self.steps % 256 == 0 and time.monotonic() > self.until_s:
            raise Limit(f"The template takes longer than {MAX_SECONDS:g} s")


_meter: ContextVar[_Meter | None] = ContextVar("nbllm_template_meter", default=None)


@contextmanager
def limits() -> Iterator[None]:
    """Hold everything rendered inside to one allowance of steps and time."""
    token = _meter.set(_Meter())
    try:
        yield
    finally:
        _meter.reset(token)


def step() -> None:
    """Count one step; raises Limit when there are too many or they took too long."""
    meter = _meter.get()
    if meter is not None:
        meter.step()


class _Steps:
    """range() that counts its steps. Has what templates use of a range: length, index, membership, iteration."""

    def __init__(self, *bounds: int) -> None:
        self._range = range(*bounds)

    def __iter__(self) -> Iterator[int]:
        for number in self._range:
            step()
            yield number

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> int:
        return self._range[index]

    def __contains__(self, number: object) -> bool:
        return number in self._range

    def __str__(self) -> str:
        return str(self._range)


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox with the rules of nbllm.core.templates."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self, comment_mark: str) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            comment_start_string=comment_mark,
            comment_end_string=comment_mark,
            finalize=_written,
        )
        self.globals.pop("lipsum", None)
        self.globals["range"] = _Steps
        self.filters["tojson"] = _tojson
        for name in ("center", "indent", "batch", "slice", "wordwrap", "round"):
            self.filters[name] = _small_numbers(self.filters[name])
        self.filters["format"] = _format

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse private names, as the sandbox does, and everything inside modules."""
        return not isinstance(obj, ModuleType) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse operations whose result is far larger than what they are given."""
        if operator == "*":
            for thing, count in ((left, right), (right, left)):
                if isinstance(count, int) and isinstance(thing, str | list | tuple | bytes) and len(thing) * count > MAX_REPEAT:
                    raise Limit(f"The template repeats a text or list {count:,} times")
        elif operator == "**":
            if (
                isinstance(left, int)
                and isinstance(right, int)
                and (abs(right) > 10_000 or left.bit_length() * abs(right) > 100_000)
            ):
                raise Limit("The template computes a number that is too large")
        elif isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise Limit("The template formats with a width that is too large")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063  jinja2's signature
        """Call as the sandbox does, but let no method of a text make one that is far too long."""
        if isinstance(getattr(__obj, "__self__", None), str | bytes) or getattr(__obj, "__name__", "") in {"format", "format_map"}:
            _check_numbers((*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Wrap str.format as the sandbox does, but refuse huge widths."""
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in {"format", "format_map"} and _WIDE_FORMAT.search(owner):
            raise Limit("The template formats with a width that is too large")
        return super().wrap_str_format(value)


def _check_numbers(values: tuple[Any, ...]) -> None:
    if any(isinstance(value, int) and abs(value) > MAX_REPEAT for value in values):
        raise Limit("The template asks for a text that is too long")


def _small_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses huge numbers; jinja2's marks on it are kept."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_numbers((*args[1:], *kwargs.values()))
        return function(*args, **kwargs)

    return checked


def _format(template: str, *args: Any, **kwargs: Any) -> str:
    """`"%s" | format(x)`, with no width that is too large."""
    if _WIDE_FORMAT.search(template):
        raise Limit("The template formats with a width that is too large")
    return template % (kwargs or args)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Return JSON for a prompt: readable characters as they are, nothing escaped for HTML."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=str)


def _written(value: Any) -> Any:
    """Return what stands in the prompt for a value: pandas objects whole, where their str() leaves out rows."""
    if isinstance(value, Undefined | str):
        return value
    kind = type(value)
    if kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in {"DataFrame", "Series"}:
        return value.to_string()
    return value
