"""The panel's state as a value: snapshots and deltas lead to it, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core.messages import NOWHERE, Origin
from nbllm.notebook.lab.listener import PATIENCE_S, SILENCE_S, SLOW_S, Listener
from nbllm.notebook.lab.messages import to_front
from nbllm.notebook.lab.state import MOST_CALLS, applied, changes, empty, merged
from tests.notebook.lab.making import grown, lines, spelled_out

FACTS = {"nbllm": "0", "session": "s", "started_at": 1.0, "pid": 1}
SEQUENCES = Path(__file__).parents[2] / "data" / "lab_sequences"
WALKS = [spelled_out(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(SEQUENCES.glob("*.json"))]


class Page:
    """A front end that keeps to the protocol."""

    def __init__(self) -> None:
        self.state: Any = None
        self.seq = 0
        self.gaps = 0
        self.heard: list[Any] = []

    def send(self, message: dict[str, Any]) -> None:
        said: Any = to_front(json.loads(json.dumps(message)))
        self.heard.append(said)
        if said["type"] == "snapshot":
            self.state, self.seq = said["state"], said["seq"]
        elif said["seq"] == self.seq + 1:
            self.state, self.seq = applied(self.state, said["state"]), said["seq"]
        else:
            self.gaps += 1


def listening(page: Page, *, updates_per_s: float = 10) -> Listener:
    listener = Listener(page.send, 0.0)
    listener.updates_per_s = updates_per_s
    listener.greeted = listener.wants_snapshot = True
    return listener


@given(st.data())
def test_changes_lead_from_one_state_to_the_next(data: st.DataObject) -> None:
    """applied(before, changes(before, after)) is after; of two equal states nothing is new; neither is touched."""
    before = data.draw(grown())
    after = data.draw(grown(before))
    kept = json.dumps([before, after])
    change = changes(before, after)
    assert change is not None
    assert applied(before, change) == after
    assert changes(after, after) == {}
    assert changes(after, json.loads(json.dumps(after))) == {}
    assert json.dumps([before, after]) == kept


@given(grown(), grown())
def test_calls_that_are_gone_ask_for_a_snapshot(before: Any, after: Any) -> None:
    """What no delta can say is never said by one."""
    change = changes(before, after)
    if change is None:
        assert {row["call_id"] for row in before["calls"]} - {row["call_id"] for row in after["calls"]}
    else:
        assert applied(before, change) == after


@given(st.lists(st.integers(0, 500)), st.lists(st.integers(0, 500)))
def test_the_newest_calls_stay_each_once(first: list[int], second: list[int]) -> None:
    """Newest first, at most two hundred, in whatever order they came."""
    found = [row["call_id"] for row in merged(lines(first), lines(second))]
    assert found == [f"c{number:06}" for number in sorted({*first, *second}, reverse=True)][:MOST_CALLS]


@settings(max_examples=60)
@given(st.data(), st.lists(st.tuples(st.floats(0, 1.5), st.sampled_from(["tick", "ask", "doubt", "pace"])), max_size=12))
def test_a_page_that_listens_has_the_state(data: st.DataObject, steps: list[tuple[float, str]]) -> None:
    """Whatever is asked for, doubted or changed: in the end the page shows what the kernel knows, and no faster than asked."""
    page, state, now_s = Page(), data.draw(grown()), 0.0
    listener, said_s = listening(page), [-1.0]
    for pause_s, step in steps:
        now_s += pause_s
        if step == "ask":
            listener.wants_snapshot = True
        elif step == "doubt":
            listener.doubted = True
        elif step == "pace":
            listener.updates_per_s = data.draw(st.sampled_from([1.0, 2.0, 10.0]))
        state, before = data.draw(grown(state)), len(page.heard)
        gaps = page.gaps
        listener.tick(state, now_s, FACTS, complete=True)
        if len(page.heard) > before:
            assert now_s - said_s[-1] >= 0.1 - 1e-9
            said_s.append(now_s)
        if page.gaps > gaps:  # it lives: it notices, and asks
            listener.heard()
            listener.wants_snapshot = True
    listener.tick(state, now_s + 2, FACTS, complete=True)
    if page.gaps and page.state != state:
        listener.heard()
        listener.wants_snapshot = True
        listener.tick(state, now_s + 4, FACTS, complete=True)
    assert page.state == state


def test_a_page_that_is_gone_is_sent_nothing_more() -> None:
    """A doubt that nobody clears ends the messages after ten seconds; whoever speaks again hears again."""
    page, state = Page(), empty()
    listener = listening(page)
    listener.tick(state, 0.0, FACTS, complete=True)
    listener.doubted = True
    for second in range(1, 30):
        state = {**state, "today": {"cost_usd": None, "calls": second}}
        listener.tick(state, float(second), FACTS, complete=True)
    assert listener.paused
    assert not listener.listens
    assert len(page.heard) <= PATIENCE_S + 3
    listener.heard()
    listener.wants_snapshot = True
    listener.tick(state, 60.0, FACTS, complete=True)
    assert page.state == state


def counting(listener: Listener, seconds: range) -> None:
    """Something new each second."""
    for second in seconds:
        state = {**empty(), "today": {"cost_usd": None, "calls": second}}
        listener.tick(state, float(second), FACTS, complete=True)


def test_a_page_that_says_nothing_for_long_is_asked_for_a_sign_of_life() -> None:
    """Nobody says goodbye when a page vanishes: after a minute without a word it has ten seconds to ask for what was left out."""
    page = Page()
    listener = listening(page)
    counting(listener, range(55))
    assert page.gaps == 0
    counting(listener, range(55, 65))
    assert page.gaps > 0
    counting(listener, range(65, 300))
    assert listener.paused
    assert len(page.heard) < SILENCE_S + PATIENCE_S + 4
    listener.heard()
    listener.wants_snapshot = True
    counting(listener, range(300, 350))
    assert page.state["today"]["calls"] == 349


def test_a_page_that_lives_is_asked_once_a_minute_and_misses_nothing() -> None:
    """It asks for the number that was left out, and is told everything."""
    page, asked = Page(), 0
    listener = listening(page)
    for second in range(600):
        gaps = page.gaps
        counting(listener, range(second, second + 1))
        if page.gaps > gaps:
            asked += 1
            listener.heard()
            listener.wants_snapshot = True
    assert 8 <= asked <= 10
    assert not listener.paused


def test_a_page_that_waits_for_the_running_cell_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its messages come after the cell it cannot answer in it: it is told less often, until the cell has ended."""
    page = Page()
    listener = listening(page)
    listener.heard(in_turn=True)
    monkeypatch.setattr("nbllm.flow_context.CELLS.running", Origin("cell", None))
    counting(listener, range(600))
    assert (page.gaps, listener.paused) == (0, False)
    assert 600 / SLOW_S - 10 < len(page.heard) < 600 / SLOW_S + 70
    monkeypatch.setattr("nbllm.flow_context.CELLS.running", NOWHERE)
    counting(listener, range(600, 700))
    assert listener.paused


def test_many_new_rows_come_less_often() -> None:
    """Calls that end by the hundred are sent at some 100 kB a second, so that Jupyter's limit leaves room for the cells' output."""
    page, state, sizes = Page(), empty(), 0
    listener = listening(page)
    for tick in range(100):
        state = {**state, "calls": merged(state["calls"], lines(list(range(tick * 200, tick * 200 + 200))))}
        before = len(page.heard)
        listener.tick(state, tick / 10, FACTS, complete=True)
        sizes += sum(len(json.dumps(said)) for said in page.heard[before:])
    assert 400_000 < sizes < 1_300_000
    listener.tick(state, 20.0, FACTS, complete=True)
    assert page.state == state


def test_the_first_snapshot_waits_a_moment_for_the_ledger() -> None:
    """Zeros that are not true are not shown while the ledger is being read; when that takes long, they are better than nothing."""
    page, listener = Page(), listening(Page())
    listener = Listener(page.send, 0.0)
    listener.greeted = listener.wants_snapshot = True
    listener.tick(empty(), 0.5, FACTS, complete=False)
    assert page.heard == []
    listener.tick(empty(), 1.1, FACTS, complete=False)
    assert page.state == empty()


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk["says"][:40])
def test_each_walk_leads_where_it_says(walk: dict[str, Any]) -> None:
    """The examples that the front end's model is tested with, too."""
    state = walk["start"]
    for change in walk["changes"]:
        state = applied(state, change)
    assert state == walk["end"]
