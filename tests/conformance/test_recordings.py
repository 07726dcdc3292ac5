from __future__ import annotations

import time
from concurrent.futures import Future

import pytest

from nbllm.core.ports import Recording

pytestmark = pytest.mark.parametrize("backend", ["disk", "memory"], indirect=True)
"""Not on Redis: texts stay on the machine that saw them."""


def recording(number: int, **changes) -> Recording:
    fields = {
        "prompt": {"messages": [{"role": "user", "content": f"q{number}"}]},
        "answer": {"text": "a"},
        "flow": {"q": 1},
    } | changes
    return Recording(call_id=f"c{number}", started_at=time.time() - 100 + number, model="sim/large", **fields)


def keep(recordings, *some: Recording) -> None:
    for one in some:
        written = recordings.keep(one)
        if isinstance(written, Future):
            written.result(30)


def test_what_is_kept_comes_back(backend):
    """By call, and newest first."""
    some = [recording(number) for number in range(3)]
    keep(backend.recordings, *some)
    assert backend.recordings.get("c1") == some[1]
    assert backend.recordings.get("c9") is None
    assert [one.call_id for one in backend.recordings.newest(2)] == ["c2", "c1"]


def test_a_recording_without_a_flow(backend):
    """None stays None."""
    keep(backend.recordings, recording(1, flow=None))
    assert backend.recordings.get("c1").flow is None


def test_forgetting(backend):
    """One by its call, then all; the count is what was there."""
    keep(backend.recordings, *(recording(number) for number in range(3)))
    assert backend.recordings.forget(call_id="c1") == 1
    assert backend.recordings.get("c1") is None
    assert backend.recordings.forget() == 2
    assert backend.recordings.newest(5) == []


def test_how_runs_ended(backend):
    """A run's end is with its calls, at the flow and at those around it, until all is forgotten; before it, nothing is."""
    flow = {"name": "f", "run": "r1", "outer": [{"name": "g", "run": "r2"}]}
    keep(backend.recordings, recording(1, flow=flow, session="s", notebook="n"), recording(2, flow={"name": "f", "run": "r3"}))
    for run, status, calls in (("r1", "failed", 1), ("r2", "done", 2)):
        written = backend.recordings.end_run(run, status, calls)
        if isinstance(written, Future):
            written.result(30)
    found = backend.recordings.get("c1")
    assert found.flow["ended"] == {"status": "failed", "calls": 1}
    assert found.flow["outer"][0]["ended"] == {"status": "done", "calls": 2}
    assert (found.session, found.notebook) == ("s", "n")
    assert "ended" not in backend.recordings.newest(1)[0].flow
    backend.recordings.forget()
    keep(backend.recordings, recording(1, flow=flow))
    assert "ended" not in backend.recordings.get("c1").flow
