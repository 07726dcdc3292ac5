"""The state that the extension shows, as a value: what has changed between two, and how a change is applied. Pure.

labextension/src/model.ts applies changes in the same way; tests/data/lab_sequences holds examples for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from nbllm.notebook.lab.shapes import CallLine, Change, SessionNumbers, State

MOST_CALLS = 200
_WHOLE = ("session", "today", "budgets", "running", "endpoints", "cache_mode")


def no_session() -> SessionNumbers:
    """Return the numbers of a session in which nothing was asked."""
    return {
        "cost_usd": "0",
        "cost_known": True,
        "simulated_usd": "0",
        "input_tokens": 0,
        "output_tokens": 0,
        "calls": 0,
        "hits": 0,
        "saved_usd": "0",
        "failed": 0,
        "running": 0,
        "tokens_per_s": None,
        "latency_s": [],
    }


def empty() -> State:
    """Return the state of a kernel in which nothing was asked."""
    return {
        "session": no_session(),
        "today": {"cost_usd": None, "calls": 0},
        "budgets": [],
        "running": [],
        "calls": [],
        "endpoints": [],
        "cache_mode": None,
    }


def merged(calls: Iterable[CallLine], more: Iterable[CallLine]) -> list[CallLine]:
    """Return the newest calls of both, newest first, each once; a row of `more` takes the place of one with its call_id."""
    rows = {row["call_id"]: row for row in calls}
    rows.update((row["call_id"], row) for row in more)
    return sorted(rows.values(), key=lambda row: (row["started_at"], row["call_id"]), reverse=True)[:MOST_CALLS]


def applied(state: State, change: Change) -> State:
    """Return the state after a change. Neither of the two is touched."""
    made = {**state, **change}
    if "calls" in change:
        made["calls"] = merged(state["calls"], change["calls"])
    return cast("State", made)


def changes(before: State, after: State) -> Change | None:
    """Return what leads from one state to the other, {} for nothing; None where only a snapshot does: calls are gone."""
    change = {member: after[member] for member in _WHOLE if after[member] != before[member]}  # type: ignore[literal-required]
    if after["calls"] is not before["calls"]:
        had = {row["call_id"]: row for row in before["calls"]}
        new = [row for row in after["calls"] if had.get(row["call_id"]) != row]
        if merged(before["calls"], new) != after["calls"]:
            return None
        if new:
            change["calls"] = new
    return cast("Change", change)
