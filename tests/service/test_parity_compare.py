"""Parity's comparison: the same is the same, and every difference is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.service.parity import CallTrace, Difference, RunTrace, compare

CALL = CallTrace(
    models=("vllm/qwen",),
    asked={"messages": [{"role": "user", "content": "Classify.\nThe printer burns."}], "temperature": 0.2, "json_schema": {"a": 1}},
    options={"retries": 2, "feature": "triage", "budget_usd": None},
    answer={"text": "urgent", "data": {"label": "urgent"}},
    books={"rung": "vllm/qwen", "source": "cache", "cost_usd": "0", "saved_usd": "0.001", "requests": 0},
)
RUN = RunTrace(flow="triage", arguments={"ticket": "The printer burns."}, calls=(CALL,), result={"label": "urgent"})


def with_asked(**changes: Any) -> RunTrace:
    """The run, with other fields of what its call asks."""
    return replace(RUN, calls=(replace(CALL, asked={**CALL.asked, **changes}),))


def test_the_same_is_the_same() -> None:
    """100%, exit code 0, nothing to show."""
    report = compare([RUN, RUN], [RUN, RUN])
    assert report.ok
    assert report.differences == ()
    assert str(report) == "Parity 100%: 2 of 2 runs the same (2 calls compared), at no cost"


def test_the_headline_says_what_failed() -> None:
    """Where all runs are the same and something else is not, it is no parity, and the first line says why."""
    setting = Difference("settings", "budget.day_usd", "5", "9")
    report = compare([RUN], [RUN], settings=[setting], skipped=["other: the app does not serve it"])
    assert not report.ok
    assert report.title() == (
        "No parity: 1 setting differs, 1 flow was not compared; 1 of 1 run the same (1 call compared), at no cost"
    )
    assert compare([RUN, RUN], [RUN, with_asked(top_p=0.5)]).title().startswith("Parity 50%: 1 of 2 runs the same")


@pytest.mark.parametrize(
    ("other", "what", "shown"),
    [
        (with_asked(messages=[{"role": "user", "content": "Classify!\nThe printer burns."}]), "prompt", "Classify!"),
        (with_asked(messages=[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]), "messages", "system"),
        (with_asked(temperature=0.7), "temperature", "0.7"),
        (with_asked(top_p=0.5), "top_p", "(not sent)"),
        (with_asked(json_schema={"a": 2}), "json_schema", '"a": 2'),
        (replace(RUN, calls=(replace(CALL, models=("openai/gpt-4o",)),)), "models", "openai/gpt-4o"),
        (replace(RUN, calls=(replace(CALL, options={**CALL.options, "retries": 5}),)), "retries", "5"),
        (replace(RUN, calls=(replace(CALL, options={**CALL.options, "feature": "x"}),)), "feature", "x"),
        (replace(RUN, calls=(replace(CALL, books={**CALL.books, "rung": "sim/small"}),)), "rung", "sim/small"),
        (replace(RUN, calls=(replace(CALL, books={**CALL.books, "source": "model"}),)), "source", "model"),
        (replace(RUN, calls=(replace(CALL, books={**CALL.books, "saved_usd": "9"}),)), "saved_usd", "9"),
        (replace(RUN, calls=(replace(CALL, answer={**CALL.answer, "data": {"label": "no"}}),)), "data", '"label": "no"'),
        (replace(RUN, calls=(replace(CALL, error="BudgetExceeded"),)), "error", "BudgetExceeded"),
        (replace(RUN, calls=()), "a call that only one side makes", "The printer burns."),
        (replace(RUN, result={"label": "no"}), "the result", '"label": "no"'),
        (replace(RUN, error="KeyError"), "how it ended", "KeyError"),
    ],
)
def test_each_difference_is_named_and_shown(other: RunTrace, what: str, shown: str) -> None:
    """Both ways round: the report is not ok, says what differs, where, and how it is on either side."""
    for report in (compare([RUN], [other]), compare([other], [RUN])):
        assert not report.ok
        assert what in [difference.what for difference in report.differences]
        assert shown in str(report)
        assert "triage, run 1" in str(report)
        assert "Parity 0%" in str(report)


def test_a_long_prompt_is_shown_as_a_diff() -> None:
    """Lines that are the same are left out, those that differ stand below each other."""
    text = "\n".join(f"line {number} of a long prompt" for number in range(40))
    report = compare(
        [with_asked(messages=[{"role": "user", "content": text}])],
        [with_asked(messages=[{"role": "user", "content": text.replace("line 20", "LINE 20")}])],
    )
    shown = str(report).splitlines()
    assert "  -line 20 of a long prompt" in shown
    assert "  +LINE 20 of a long prompt" in shown
    assert len(shown) < 14


def test_calls_at_once_may_come_in_any_order() -> None:
    """Equal calls are paired wherever they stand; the same call twice is two calls."""
    calls = tuple(
        replace(CALL, asked={"messages": [{"role": "user", "content": text}]}, answer={"text": text})
        for text in ("a", "b", "b", "c")
    )
    assert compare([replace(RUN, calls=calls)], [replace(RUN, calls=calls[::-1])]).ok
    assert not compare([replace(RUN, calls=calls)], [replace(RUN, calls=(*calls[:2], calls[3]))]).ok


def test_what_a_recording_does_not_know_is_no_difference() -> None:
    """It has prompts, the model and the answer, neither options nor a result."""
    known = CallTrace(asked=CALL.asked, answer={"text": "urgent"}, books={"rung": "vllm/qwen"}, models=CALL.models)
    recorded = replace(RUN, calls=(known,), result=None, knows_result=False)
    assert compare([recorded], [RUN], names=("recorded", "service")).ok
    assert not compare([recorded], [replace(RUN, error="KeyError", calls=())]).ok


def test_nothing_to_compare_is_no_parity() -> None:
    """And neither is a run that had to be skipped."""
    assert not compare([], []).ok
    assert not compare([RUN], [RUN], skipped=("other: it has no annotations",)).ok


def test_a_key_is_not_shown() -> None:
    """A difference may hold a secret; the report does not."""
    key = "sk-proj-" + "a1B2" * 10
    report = compare([RUN], [with_asked(messages=[{"role": "user", "content": f"key {key}"}])])
    assert key not in str(report)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5
)


@given(st.dictionaries(st.sampled_from(["temperature", "seed", "stop", "extra"]), values), values)
def test_a_trace_survives_another_process(asked: Mapping[str, Any], result: Any) -> None:
    """as_json and from_json: what one process saw the other one compares."""
    import json

    run = replace(with_asked(**asked), result=result)
    there = RunTrace.from_json(json.loads(json.dumps(run.as_json())))
    assert compare([run], [there]).ok
