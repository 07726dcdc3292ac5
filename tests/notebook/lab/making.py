"""Rows, states and records for tests of the panel's pure parts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from nbllm.core.messages import Attempt, AttemptStatus, Call, CallRecord, CallRow, Options, Usage
from nbllm.notebook.lab.rows import call_line
from nbllm.notebook.lab.state import empty, merged
from nbllm.notebook.lab.values import money

LEVELS = st.sampled_from(["ok", "soft", "hard"])
MONEY = st.decimals(min_value=0, max_value=10**6, places=12).map(money)


def open_call(number: int) -> Call:
    """A call that has begun."""
    return Call(call_id=f"c{number:06}", session="s", started_at=1000.0 + number, started_s=1.0, deadline_at_s=9.0, payer=Options())


def row(number: int, **changes: Any) -> CallRow:
    """A call that is over."""
    values: dict[str, Any] = {
        "call_id": f"c{number:06}", "session": "s", "started_at": 1000.0 + number, "status": AttemptStatus.DONE, "model": "lab/m",
        "rung": "lab/m", "source": "model", "latency_s": 0.5, "ttft_s": 0.1, "input_tokens": 10, "output_tokens": 5,
    }  # fmt: skip
    return CallRow(**{**values, **changes})


def attempt(of: CallRow, **changes: Any) -> Attempt:
    """An attempt of it that went well."""
    values: dict[str, Any] = {
        "attempt_id": f"a{of.call_id}", "call_id": of.call_id, "number": 1, "rung": of.rung or "lab/m", "endpoint": "lab",
        "model": "m",
        "started_at": of.started_at, "status": AttemptStatus.DONE, "sent": True, "cost_usd": Decimal("0.25"), "usage": Usage(10, 5),
    }  # fmt: skip
    return Attempt(**{**values, **changes})


def record(number: int, **changes: Any) -> CallRecord:
    """The same as a hook gets it."""
    made = row(number, **changes)
    return CallRecord(call=made, attempts=() if made.source == "cache" else (attempt(made),))


def lines(numbers: list[int]) -> list[Any]:
    """The lines of calls."""
    return [call_line(row(number), ()) for number in numbers]


def spelled_out(walk: dict[str, Any]) -> dict[str, Any]:
    """Return a walk of tests/data/lab_sequences with all of its calls; the README there says how many of them are written short."""

    def full(state: dict[str, Any]) -> dict[str, Any]:
        calls = state.get("calls")
        if not isinstance(calls, dict):
            return state
        first, last = calls["first"], calls["last"]
        numbers = range(first, last - 1, -1) if first > last else range(first, last + 1)
        return {**state, "calls": [{"call_id": f"c{n:06}", "started_at": 1000.0 + n, **walk["row"]} for n in numbers]}

    changes = [full(change) for change in walk["changes"]]
    return {"says": walk["says"], "start": full(walk["start"]), "changes": changes, "end": full(walk["end"])}


@st.composite
def grown(draw: Any, before: Any = None) -> Any:
    """A state, or one that may come after another: numbers change, calls come and change, none goes."""
    state: Any = dict(before or empty())
    calls = draw(st.lists(st.integers(0, 400), max_size=draw(st.sampled_from([0, 3, 250])), unique=True))
    said = draw(st.sampled_from(["done", "failed"]))
    state["calls"] = merged(state["calls"], [{**line, "status": said} for line in lines(calls)])
    if draw(st.booleans()):
        state["session"] = {**state["session"], "cost_usd": draw(MONEY), "calls": draw(st.integers(0, 2**53 - 1))}
    if draw(st.booleans()):
        budget = {"scope": "day", "spent_usd": draw(MONEY), "reserved_usd": "0", "hard_usd": None, "soft_usd": None}
        state["budgets"] = [{**budget, "level": draw(LEVELS)}] * draw(st.integers(0, 2))
    state["cache_mode"] = draw(st.sampled_from([None, "use", "refresh", "off"]))
    return state
