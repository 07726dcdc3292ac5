"""What the latency panel counts: calls of the session, those that were cut as cut."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.errors import DeadlineExceeded
from nbllm.panels import latency
from nbllm.settings import Settings
from tests.starvation import Stopwatch


def row(number: int, took_s: float | None, **more: object) -> CallRow:
    values = {"status": AttemptStatus.DONE, "source": "model", "rung": "sim/small", **more}
    return CallRow(call_id=f"c{number}", session="s", started_at=float(number), latency_s=took_s, **values)  # type: ignore[arg-type]


def attempt(number: int, ttft_s: float | None, **more: object) -> Attempt:
    values = {"status": AttemptStatus.DONE, "sent": True, "streamed": True, "latency_s": 9.0, "cost_usd": Decimal(0), **more}
    return Attempt(attempt_id=f"a{number}", call_id=f"c{number}", number=1, rung="sim/small", endpoint="sim", model="small",
                   started_at=1.0, ttft_s=ttft_s, **values)  # type: ignore[arg-type]  # fmt: skip


def test_each_kind_of_call_counts_as_what_it_is() -> None:
    """Whole, cut by the deadline, stopped by hand, fell back after a timer, failed otherwise, hits, embeddings, still open."""
    calls = [
        row(1, 1.0),
        row(2, 5.0, status=AttemptStatus.FAILED, source=None, error="DeadlineExceeded"),
        row(3, 2.0, status=AttemptStatus.CANCELLED, source=None),
        row(4, 3.0),
        row(5, 0.2, status=AttemptStatus.FAILED, source=None, error="AuthenticationFailed"),
        row(6, 0.001, source="cache"),
        row(7, None, status=AttemptStatus.OPEN, source=None),
        row(8, 4.0, source="static"),
    ]
    attempts = [
        attempt(1, 0.5),
        attempt(2, None, status=AttemptStatus.CANCELLED, latency_s=5.0),
        attempt(3, 0.4),
        attempt(4, None, status=AttemptStatus.FAILED, error="FirstTokenTimeout", latency_s=1.5),
        attempt(5, None, status=AttemptStatus.FAILED, error="AuthenticationFailed"),
        attempt(8, None, status=AttemptStatus.FAILED, error="FirstTokenTimeout", latency_s=1.5, streamed=True),
    ]
    data = latency.of_calls(calls, attempts, deadline_s=300.0, ttft_s=60.0)
    assert (data.whole.n, data.whole.cut) == (5, 3)
    assert (data.first.n, data.first.cut) == (5, 3)
    assert (data.failed, data.hits) == (1, 1)
    found = latency.at(data, 2.5, 1.0)
    # 1.0 done of 5 at risk; 2.0 cut; so 4/5 are longer than 2.5 s: not the 3/5 that counting cut calls as fast would give.
    assert found.late.value == pytest.approx(0.8)
    assert found.slow.value == pytest.approx(0.6)
    assert latency.at(data, 4.5, 1.0).late.value == pytest.approx(0.8 * 2 / 3)
    assert latency.at(data, 6.0, 2.0).late.value is None
    assert latency.at(data, 6.0, 6.0).slow.value is None


def test_a_session_is_read_from_its_ledger(tmp_path: Path) -> None:
    """Calls of this session, whole and cut by a real deadline, with the limits in force; another session's are not in it."""
    with Client(home=tmp_path, settings=Settings(), session="one", discover=False) as client:
        client.ask("x", model="sim/small")
    with Client(home=tmp_path, settings=Settings(), session="two", discover=False, deadline_s=77) as client:
        list(client.stream("Tell me.", model="sim/small"))
        client.ask("Tell me.", model="sim/small")
        watch = Stopwatch()
        with pytest.raises(DeadlineExceeded):
            client.ask("Tell me more.", model="sim/small?fault=stall", deadline_s=0.1, retries=0)
        assert watch.s < 5
        data = latency.read(client)
    assert (data.whole.n, data.whole.cut, data.hits) == (2, 1, 1)
    assert data.first.n >= 1
    assert (data.deadline_s, data.ttft_s) == (77, 60)
    assert data.simulated
    assert data.deadline_s in latency.grid(data.whole, data.deadline_s)
