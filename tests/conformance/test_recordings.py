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
