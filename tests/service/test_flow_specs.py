"""What a service reads from a flow's signature, and what it refuses, with reasons, before it starts."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from nbllm import errors, flow
from nbllm.core.reply import Reply
from nbllm.service.flow_specs import Example, FlowSpec, describe, describe_all


class Tone(enum.Enum):
    DRY = "dry"
    WARM = "warm"


class Person(BaseModel):
    name: str
    mail: str | None = None


@dataclasses.dataclass
class Ticket:
    text: str
    by: Person
    tags: list[str] = dataclasses.field(default_factory=list)


class Options(TypedDict):
    lang: Literal["en", "de"]
    tone: NotRequired[Tone]


class Triage(BaseModel):
    priority: Literal["low", "high"]
    owner: Person | None
    due: date


@flow
def triage(ticket: Ticket, options: Options, limit: Annotated[int, Field(ge=1, description="at most")] = 3) -> Triage:
    """Sort a ticket.

    In two steps.
    """
    assert isinstance(ticket, Ticket)
    assert isinstance(ticket.by, Person)
    return Triage(priority="high" if limit > 1 else "low", owner=ticket.by, due=date(2026, 1, 2))


@flow
async def later(text: str, /, *, times: Optional[int] = None) -> list[str]:  # noqa: UP045 - the older spelling is meant
    return [text] * (times or 1)


GOOD = {"ticket": {"text": "help", "by": {"name": "Ada"}}, "options": {"lang": "en", "tone": "dry"}}


def run(spec: FlowSpec, arguments: dict[str, Any]) -> Any:
    return json.loads(spec.result_json(spec.call(spec.arguments.model_validate(arguments))))


def test_a_nested_signature() -> None:
    """Models, dataclasses, TypedDicts, literals, enums, bounds and defaults show in the schemas, and arrive as what they are."""
    spec = describe(triage)
    assert (spec.name, spec.is_async, spec.summary, spec.description) == ("triage", False, "Sort a ticket.", "In two steps.")
    schema = spec.arguments.model_json_schema()
    assert schema["title"] == "TriageArguments"
    assert schema["required"] == ["ticket", "options"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["limit"] == {
        "default": 3, "description": "at most", "minimum": 1, "title": "Limit", "type": "integer",
    }  # fmt: skip
    kinds = schema["$defs"]
    assert kinds["Ticket"]["properties"]["by"] == {"$ref": "#/$defs/Person"}
    assert kinds["Ticket"]["required"] == ["text", "by"]
    assert kinds["Options"]["properties"]["lang"]["enum"] == ["en", "de"]
    assert kinds["Options"]["required"] == ["lang"]
    assert kinds["Tone"]["enum"] == ["dry", "warm"]
    result = spec.result.json_schema(mode="serialization")
    assert result["properties"]["priority"]["enum"] == ["low", "high"]
    assert run(spec, GOOD) == {"priority": "high", "owner": {"name": "Ada", "mail": None}, "due": "2026-01-02"}
    assert run(spec, GOOD | {"limit": 1})["priority"] == "low"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"ticket": 1},
        GOOD | {"limit": 0},
        GOOD | {"more": 1},
        GOOD | {"options": {"lang": "fr"}},
        GOOD | {"limit": float("nan")},
    ],
)
def test_arguments_that_do_not_fit(wrong: dict[str, Any]) -> None:
    """What is missing, of another type, out of bounds or unknown is refused before the flow is called."""
    with pytest.raises(ValidationError):
        describe(triage).arguments.model_validate(wrong)


def test_an_async_flow_with_positional_only_arguments() -> None:
    """It is called as its signature wants, and is known to be async."""
    spec = describe(later)
    assert spec.is_async
    coroutine = spec.call(spec.arguments.model_validate({"text": "a", "times": 2}))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert spec.result_json(ended.value.value) == b'["a","a"]'


@flow
def odd_names(schema: int, json: int, model_config: int, copy: int = 1, _private: int = 2, self: int = 3) -> list[int]:
    return [schema, json, model_config, copy, _private, self]


def test_parameters_may_have_any_name() -> None:
    """Names that pydantic keeps for itself are no obstacle."""
    spec = describe(odd_names)
    assert list(spec.arguments.model_json_schema()["properties"]) == ["schema", "json", "model_config", "copy", "_private", "self"]
    assert run(spec, {"schema": 7, "json": 8, "model_config": 9, "self": 0}) == [7, 8, 9, 1, 2, 0]


SHARED: list[str] = []


def defaults(names: list[str] = SHARED, when: datetime = datetime(2026, 1, 2, tzinfo=UTC), scale: float = math.inf) -> list[str]:
    assert names == SHARED
    assert names is not SHARED
    return [*names, str(scale)]


def test_defaults_are_those_of_the_flow() -> None:
    """What is left out has the function's own default; one that is no JSON is used and not shown. A plain function will do."""
    spec = describe(defaults)
    assert run(spec, {}) == ["inf"]
    assert "default" not in spec.arguments.model_json_schema()["properties"]["scale"]
    assert spec.arguments.model_json_schema()["properties"]["names"]["default"] == []


def bare(text, lang="en"):
    return text


def no_result(text: str):
    return text


class Opaque:
    pass


def opaque(thing: Opaque) -> str:
    return str(thing)


def opaque_result() -> Opaque:
    return Opaque()


def function_result() -> Callable[[], int]:
    return int


def iterator_result() -> Iterator[int]:
    return iter([1])


def reply_result(text: str) -> Reply:
    raise NotImplementedError


def star(*args: str, **more: int) -> str:
    return str((args, more))


def unknown_name(text: NoSuchType) -> str:  # type: ignore[name-defined]  # noqa: F821 - the mistake is meant
    return str(text)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (bare, ["bare: the parameter text has no annotation", "bare: the parameter lang has", "bare: what it returns has no"]),
        (no_result, ["what it returns has no annotation"]),
        (opaque, ["the parameter thing: Opaque cannot come as JSON"]),
        (opaque_result, ["it returns Opaque, which cannot be written as JSON"]),
        (iterator_result, ["it returns collections.abc.Iterator[int]"]),
        (function_result, ["cannot be written as JSON"]),
        (reply_result, ["it returns Reply", "Return reply.text (str) or reply.data"]),
        (star, ["star: *args takes anything", "star: **more takes anything"]),
        (unknown_name, ["unknown_name: its annotations cannot be read", "NoSuchType"]),
        (lambda text: text, ["'<lambda>' is no name for a flow"]),
        (7, ["which is no plain or async function"]),
        (Opaque, ["which is no plain or async function"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_served(function: Any, said: list[str]) -> None:
    """Each reason is named, all at once."""
    with pytest.raises(errors.ConfigurationError) as caught:
        describe(function)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["class", "import", "../x", "a/b", "a b", "", "_hidden", "é", "x" * 65, "1st", "None", "a\n", "%2e"]
)
def test_names_that_are_none(name: str) -> None:
    """A keyword, a path or anything else that is no plain name is refused."""

    def function(text: str) -> str:
        return text

    function.__name__ = name
    with pytest.raises(errors.ConfigurationError, match="is no name for a flow"):
        describe(function)


@given(st.text(max_size=20))
def test_any_name_is_safe_in_a_path_or_refused(name: str) -> None:
    """What gets through needs no quoting anywhere."""

    def function(text: str) -> str:
        return text

    function.__name__ = name
    try:
        spec = describe(function)
    except errors.ConfigurationError:
        return
    assert spec.name.isascii()
    assert spec.name.isidentifier()


MISSING: Any = object()
LOCKED: Any = [threading.Lock()]


def test_a_default_that_a_run_changes_is_as_new_for_the_next() -> None:
    """Lists and dicts that are defaults are each run's own, by position too. Marks and what has no copy stay."""

    def gathers(text: str, /, found: list[str] = [], *, deep: dict[str, list[str]] = {"a": []}) -> list[str]:  # noqa: B006 - meant
        found.append(text)
        deep["a"].append(text)
        return [*found, *deep["a"]]

    def placed(found: list[str] = [], /) -> list[str]:  # noqa: B006 - meant
        found.append("x")
        return found

    def whole(text: str = MISSING, odd: list[Any] = LOCKED) -> bool:
        return text is MISSING and odd is LOCKED

    spec = describe(gathers)
    assert [spec.call(spec.parse({"text": text})) for text in ("one", "two")] == [["one", "one"], ["two", "two"]]
    assert spec.call(spec.parse({"text": "three", "found": ["mine"]})) == ["mine", "three", "three"]
    spec = describe(placed)
    assert [spec.call(spec.parse({})) for _ in range(2)] == [["x"], ["x"]]
    assert describe(whole).call(describe(whole).parse({})) is True


def test_two_flows_of_one_name() -> None:
    """Neither is served, and everything else that is wrong is said with it."""
    with pytest.raises(errors.ConfigurationError) as caught:
        describe_all([triage, later, triage, bare])
    assert "triage: two flows have this name" in str(caught.value)
    assert "bare: the parameter text" in str(caught.value)
    assert list(describe_all([triage, later])) == ["triage", "later"]


def test_examples() -> None:
    """Recorded runs are kept with their flow; one that no longer fits, or belongs to none, is refused."""
    example = Example(GOOD, {"priority": "low"})
    assert describe_all([triage], {"triage": [example]})["triage"].examples == (example,)
    with pytest.raises(errors.ConfigurationError, match="triage: example 1: its arguments do not fit"):
        describe_all([triage], {"triage": [Example({"ticket": "sk-secret"}, None)]})
    with pytest.raises(errors.ConfigurationError, match="which is no flow"):
        describe_all([triage], {"gone": [example]})
