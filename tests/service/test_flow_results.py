"""What a flow returns, written as JSON as its annotation says, or refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest

from nbllm.core.reply import Reply
from nbllm.service.flow_specs import WrongResult, describe
from tests.service.test_flow_specs import Options, Person, Tone, Triage


def returning(kind: Any, value: Any) -> bytes:
    def given_back() -> Any:
        return value

    given_back.__annotations__["return"] = kind
    spec = describe(given_back)
    return spec.result_json(spec.call(spec.arguments.model_validate({})))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (str, "é\u2028", '"é\u2028"'),
        (None, None, "null"),
        (float, 1, "1.0"),
        (dict[str, Any], {"a": [1, None]}, '{"a":[1,null]}'),
        (Triage | None, None, "null"),
        (list[Person], [Person(name="A")], '[{"name":"A","mail":null}]'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (datetime, datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        (Decimal, Decimal("0.10"), '"0.10"'),
        (Tone, Tone.DRY, '"dry"'),
        (Options, {"lang": "en"}, '{"lang":"en"}'),
    ],
    ids=str,
)
def test_results(kind: Any, value: Any, text: str) -> None:
    """What a flow returns is written as its annotation says."""
    assert returning(kind, value).decode() == text


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "5"),
        (str, 5),
        (str, None),
        (Triage, {"priority": "low", "owner": None, "due": "2026-01-02"}),
        (Person, Person.model_construct(name=5)),
        (list[int], ["a"]),
        (Literal["a"], "b"),
        (Options, {"lang": "fr"}),
        (float, math.nan),
        (list[float], [1.0, -math.inf]),
        (Any, math.nan),
        (Any, object()),
        (dict[str, Any], {"a": [None, math.inf]}),
        (bytes, b"\xff"),
    ],
    ids=lambda value: type(value).__name__,  # not its text, which may hold an address: processes must agree
)
def test_another_type_than_it_says(kind: Any, value: Any) -> None:
    """It is an error of the flow, named without the value; never a wrong answer, and never NaN."""
    with pytest.raises(WrongResult) as caught:
        returning(kind, value)
    assert "given_back" in str(caught.value)


def test_an_error_does_not_show_the_value() -> None:
    """What was returned may be private."""
    with pytest.raises(WrongResult) as caught:
        returning(int, "my private text")
    assert "private" not in str(caught.value)
    assert "returned a value of type str" in str(caught.value)


def test_a_reply_is_no_text() -> None:
    """The most likely mistake has its own advice."""
    reply = Reply(text="hi", model="m", rung="r", source="model", finish_reason="stop", call_id="c")
    with pytest.raises(WrongResult, match=r"Return reply\.text"):
        returning(str, reply)
