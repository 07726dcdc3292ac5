"""What a service must know of a flow: its name, what it takes and gives as types, examples. Read from its signature.

All that cannot be served is refused when the service starts, everything at once, each with its reason.
"""

from __future__ import annotations

import copy
import inspect
import json
import keyword
import math
import re
import typing
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from nbllm.core.reply import Reply
from nbllm.core.typed_schema import modern
from nbllm.current import flow
from nbllm.errors import FlowsNotServable, InvalidRequest
from nbllm.service.problems import ServiceProblem

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_CHANGEABLE = (list, dict, set, bytearray, deque, tuple)
_ANNOTATE = "Annotate it with what JSON can hold: str, int, list[str], a dataclass, a TypedDict or a pydantic model."


class WrongResult(ServiceProblem):
    """A flow returned something else than its signature says. The value itself, which may be private, is not told."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(500, "wrong-result", "The flow returned something else than it says.", f"{detail} {advice}")


@dataclass(frozen=True)
class Example:
    """A recorded run: arguments by name and the result, as JSON holds them. calls: what the flow asked, as recorded."""

    arguments: Mapping[str, Any]
    result: Any
    calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class FlowSpec:
    """A flow that can be served. arguments: a model whose fields are, by alias, the parameters; result: of what it returns.

    own_defaults: by parameter, defaults that a run could change, as they were when the service began: each run gets copies, so that
    nothing of one caller stays in a list for the next.
    """

    name: str
    function: Callable[..., Any]
    arguments: type[BaseModel]
    result: TypeAdapter[Any]
    result_type: Any
    is_async: bool
    summary: str = ""
    description: str = ""
    examples: tuple[Example, ...] = ()
    own_defaults: Mapping[str, Any] = dataclass_field(default_factory=dict)

    def parse(self, value: Any) -> BaseModel:
        """Return the arguments of a JSON value: each of its own type, nothing turned into another ("5" is no number, false no 0).

        Raises ValidationError.
        """
        return self.arguments.model_validate_json(json.dumps(value), strict=True)

    def call(self, arguments: BaseModel) -> Any:
        """Call the flow; return its result, or for an async one what is to be awaited. What was left out has its own default."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for field, parameter in zip(
            type(arguments).model_fields, inspect.signature(self.function).parameters.values(), strict=True
        ):
            given = field in arguments.model_fields_set
            if not given and parameter.name in self.own_defaults:
                value = copy.deepcopy(self.own_defaults[parameter.name])
            elif given or parameter.kind is parameter.POSITIONAL_ONLY:
                value = getattr(arguments, field)
            else:
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[parameter.name] = value
        return self.function(*positional, **named)

    def result_json(self, value: Any) -> bytes:
        """Return a result as JSON. Raises WrongResult for another type than the signature says, and for NaN, which is no JSON."""
        said = _shown(self.result_type)
        try:
            checked = self.result.validate_python(value, strict=True)
            plain = self.result.dump_python(checked, mode="json", by_alias=True, warnings="error")
            text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            if "null" in text:  # where a type says Any, pydantic writes NaN as null
                _refuse_nan(self.result.dump_python(checked))
            return text.encode("utf-8", "backslashreplace")
        except ValidationError as exc:
            got = "a Reply" if isinstance(value, Reply) else f"a value of type {type(value).__name__}"
            where = _first_problem(exc)
            hint = "Return reply.text, or reply.data." if isinstance(value, Reply) else "Correct the flow or its return annotation."
            raise WrongResult(f"The flow {self.name} says that it returns {said}, and returned {got} ({where}).", hint) from None
        except Exception as exc:  # a type's own serializer may raise anything
            message = f"What the flow {self.name} returned as {said} cannot be written as JSON ({type(exc).__name__})."
            raise WrongResult(message, "NaN, infinities and bytes that are no UTF-8 are no JSON.") from None


def describe(function: Callable[..., Any], *, examples: Sequence[Example] = ()) -> FlowSpec:
    """Return what a service must know of one flow. Raises FlowsNotServable with everything that is in its way."""
    return describe_all([function], {getattr(function, "__name__", ""): tuple(examples)}).popitem()[1]


def describe_all(
    functions: Iterable[Callable[..., Any]], examples: Mapping[str, Sequence[Example]] | None = None
) -> dict[str, FlowSpec]:
    """Return the flows by name. Raises FlowsNotServable with everything that is wrong with any of them.

    examples: by flow. One that does not fit the signature is wrong too: documentation must not show what is refused.
    """
    specs: dict[str, FlowSpec] = {}
    wrong: list[str] = []
    for function in functions:
        spec, problems = _described(function)
        wrong += problems
        if spec is None:
            continue
        if spec.name in specs:
            wrong.append(f"{spec.name}: two flows have this name; rename one.")
            continue
        fitting = tuple((examples or {}).get(spec.name, ()))
        wrong += [f"{spec.name}: example {number}: {why}" for number, why in _misfits(spec, fitting)]
        specs[spec.name] = replace(spec, examples=fitting)
    if unknown := sorted((examples or {}).keys() - specs.keys()) if not wrong else []:
        wrong.append(f"examples are given for {', '.join(unknown)}, which is no flow of this service.")
    if wrong:
        raise FlowsNotServable(wrong)
    return specs


def _described(given: Any) -> tuple[FlowSpec | None, list[str]]:
    shown = getattr(given, "__qualname__", repr(given)[:80])
    try:
        function = given if hasattr(given, "__nbllm_flow__") else flow(given)
    except InvalidRequest as exc:
        return None, [f"{shown}: {exc.summary} {exc.hint}"]
    name = getattr(function, "__nbllm_flow__", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        return None, [f"{str(name)[:80]!r} is no name for a flow: letters, digits and _, begun by a letter, no keyword of Python."]
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as exc:  # annotations are code of the user's
        return None, [f"{name}: its annotations cannot be read: {type(exc).__name__}: {exc}. Import what they name at the top."]
    problems: list[str] = []
    fields = _fields(name, function, hints, problems)
    result = _result(name, hints, problems)
    if problems or result is None:
        return None, problems
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    config = ConfigDict(extra="forbid", allow_inf_nan=False, title=f"{title}Arguments")
    arguments: type[BaseModel] = create_model(f"{title}Arguments", __config__=config, **fields)
    summary, _, description = inspect.cleandoc(given.__doc__ or "").partition("\n")
    is_async = inspect.iscoroutinefunction(function)
    about = (summary, description.strip())
    return FlowSpec(name, function, arguments, result[1], result[0], is_async, *about, own_defaults=_own_defaults(function)), []


def _fields(name: str, function: Callable[..., Any], hints: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the fields of the model of arguments. By alias, because a parameter may have a name that no field may have."""
    fields: dict[str, Any] = {}
    for number, (parameter, about) in enumerate(inspect.signature(function).parameters.items()):
        if about.kind in (about.VAR_POSITIONAL, about.VAR_KEYWORD):
            star = "*" if about.kind is about.VAR_POSITIONAL else "**"
            problems.append(f"{name}: {star}{parameter} takes anything. Name the parameters, or take a list or a dict.")
        elif parameter not in hints:
            problems.append(f"{name}: the parameter {parameter} has no annotation. {_ANNOTATE}")
        elif (found := _adapted(hints[parameter])) and isinstance(found[1], str):
            problems.append(f"{name}: the parameter {parameter}: {_shown(hints[parameter])} cannot come as JSON: {found[1]}")
        else:
            fields[f"a{number}"] = (found[0], _field(parameter, about.default, found[1]))
    return fields


def _field(alias: str, default: Any, adapter: Any) -> Any:
    if default is inspect.Parameter.empty:
        return Field(alias=alias)
    try:
        json.dumps(adapter.dump_python(default, mode="json", warnings="error"), allow_nan=False)
    except Exception:  # a default that is no JSON is used all the same, and not shown
        return Field(alias=alias, default_factory=lambda: default)
    return Field(default=default, alias=alias)


def _own_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return copies of the defaults that a run could change. Any other object stays what it is: it may be known by its identity."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        if isinstance(default, (*_CHANGEABLE, BaseModel)) or (is_dataclass(default) and not isinstance(default, type)):
            with suppress(Exception):  # what is in it is the user's, and so is the code that copies it
                found[name] = copy.deepcopy(default)
    return found


def _result(name: str, hints: Mapping[str, Any], problems: list[str]) -> tuple[Any, TypeAdapter[Any]] | None:
    if "return" not in hints:
        problems.append(f"{name}: what it returns has no annotation. {_ANNOTATE}")
        return None
    kind, adapter = _adapted(hints["return"], result=True)
    if isinstance(adapter, str):
        advice = "Return reply.text (str) or reply.data." if hints["return"] is Reply else _ANNOTATE
        problems.append(f"{name}: it returns {_shown(hints['return'])}, which cannot be written as JSON: {adapter} {advice}")
        return None
    return kind, adapter


def _adapted(hint: Any, *, result: bool = False) -> tuple[Any, TypeAdapter[Any] | str]:
    """Return a type as pydantic takes it and its adapter, or why it has none."""
    try:
        kind = modern(hint)
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        adapter.json_schema(mode="serialization" if result else "validation", schema_generator=_Quiet)
    except Exception as exc:  # types may bring hooks of their own, which may raise anything
        lines = str(exc).strip().splitlines()
        # pydantic goes on with advice for who writes models.
        return hint, f"{(lines[0].partition('. Set `')[0] if lines else type(exc).__name__).rstrip('.')[:300]}."
    return kind, adapter


class _Quiet(GenerateJsonSchema):
    """A default that is no JSON is left out of the schema; that needs no warning."""

    ignored_warning_kinds = frozenset(("skipped-choice", "non-serializable-default"))  # type: ignore[assignment]  # typed as a set


def _refuse_nan(value: Any) -> None:
    """Raise ValueError for a number in plain containers that is no JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("no JSON")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _refuse_nan(item)


def _misfits(spec: FlowSpec, examples: Sequence[Example]) -> Iterable[tuple[int, str]]:
    for number, example in enumerate(examples, 1):
        try:
            spec.parse(dict(example.arguments))
        except ValidationError as exc:
            yield number, f"its arguments do not fit ({_first_problem(exc)}). Record it anew."


def _first_problem(error: ValidationError) -> str:
    """Return the first problem with its place, without the value: it may be anything, a secret too."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(map(str, found[0]["loc"]))
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{place + ': ' if place else ''}{found[0]['msg']}{more}"


def _shown(kind: Any) -> str:
    if kind is None or kind is type(None):
        return "None"
    return str(kind.__qualname__ if isinstance(kind, type) and not typing.get_args(kind) else kind).replace("typing.", "")[:200]
