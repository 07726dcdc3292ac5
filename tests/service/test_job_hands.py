"""What takes, runs and looks after jobs: counted, and going on whatever happens."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nbllm.service import jobs
from nbllm.testing import FakeProvider
from tests.client.helpers import until
from tests.service.flow_apps import HANGS, later, say, serving
from tests.service.test_jobs import GO, ended, start, waits_for_go


def test_jobs_are_counted(tmp_path: Path) -> None:
    """/metrics has how many wait and run, and for how long the oldest has waited."""
    with serving(tmp_path, flows=(waits_for_go,)) as served:
        GO.clear()
        places = [start(served, "waits_for_go", {"text": str(number)}) for number in range(jobs.AT_ONCE + 2)]

        def page() -> str:
            return served.http.get("/metrics").text

        until(lambda: f'nbllm_jobs{{status="running"}} {jobs.AT_ONCE}.0' in page())
        assert 'nbllm_jobs{status="queued"} 2.0' in page()
        assert "nbllm_jobs_oldest_queued_seconds 0.0\n" not in page()
        GO.set()
        for place in places:
            ended(served, place)
        assert 'nbllm_jobs{status="queued"} 0.0' in page()
        assert "nbllm_jobs_oldest_queued_seconds 0.0\n" in page()


def test_a_job_runs_although_the_keys_cannot_be_read_just_now(tmp_path: Path) -> None:
    """It was taken from a key that was good: trouble with the file of the keys does not fail it."""
    with serving(tmp_path, flows=(waits_for_go, say)) as served:
        GO.clear()
        for number in range(jobs.AT_ONCE):
            start(served, "waits_for_go", {"text": str(number)})
        place = start(served, "say", {"text": "b"})
        keys = served.it.service.keys.path
        kept = keys.read_bytes()
        keys.write_text("no keys")
        GO.set()
        until(lambda: served.it.service.job_store is not None and served.http.get(place).json()["status"] == "done")
        keys.write_bytes(kept)


def test_the_hands_go_on_after_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw, while jobs are taken, swept or renewed, costs a moment, and no job."""
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(jobs, "SWEEP_EVERY_S", 0.0)
    with serving(tmp_path, flows=(say, waits_for_go)) as served:
        store = served.it.service.job_store
        failed: list[str] = []

        def failing_once(name: str) -> Any:
            real = getattr(store, name)

            async def ask(*args: Any, **named: Any) -> Any:
                if name not in failed:
                    failed.append(name)
                    raise ValueError("a row that makes no sense")
                return await real(*args, **named)

            return ask

        for name in ("claim", "sweep", "renew"):
            monkeypatch.setattr(store, name, failing_once(name))
        until(lambda: {"claim", "sweep"} <= set(failed))
        GO.clear()
        place = start(served, "waits_for_go", {"text": "a"})
        until(lambda: "renew" in failed)
        GO.set()
        assert ended(served, place)["result"] == "a"
        assert ended(served, start(served, "say", {"text": "b"}))["status"] == "done"


def test_what_still_runs_at_the_end_is_put_back_and_did_not_die(tmp_path: Path) -> None:
    """A service that is told to end puts its running job back at its place, for the next one: no sweep has to find it."""
    with serving(tmp_path, FakeProvider(default=HANGS), (later,)) as served:
        place = start(served, "later", {"text": "a"})
        until(lambda: served.fake.in_flight == 1)
        assert served.http.get(place).json()["status"] == "running"
    with closing(sqlite3.connect(tmp_path / ".state" / "service.db")) as con:
        assert con.execute("SELECT status, owner, lapses, attempts FROM jobs").fetchall() == [("queued", None, 0, 1)]
