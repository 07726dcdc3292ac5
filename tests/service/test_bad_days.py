"""A disk that is full, a home that is deleted, a clock that is set back: under a service that runs."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from nbllm import ask, flow
from nbllm.service import create_app
from nbllm.storage import sqlite
from tests.service.raw import ask as ask_raw
from tests.service.raw import post
from tests.service.running import Running, running, write_settings


@flow
def copy(text: str) -> str:
    """Copy a text."""
    return ask(f"Copy: {text}").text


TIERS = "[service.tiers.paying]\nday_usd = 5\nrequests_per_minute = 1000\n[service.tiers.few]\nrequests_per_minute = 3"


WARNS = pytest.mark.filterwarnings("ignore::nbllm.NbllmWarning")
"""In production warnings are lines of the log; in tests they would be errors, raised in the flow."""


def flows(app: Running, number: int, **headers: str) -> int:
    return post(app, "/flows/copy", json.dumps({"text": f"{number} " + "words " * 300}).encode(), **headers).status


@WARNS
def test_a_full_disk_stops_no_answer_and_is_never_a_bug(tmp_path: Path) -> None:
    """When no file of the home can grow any more, answers go on; what must be counted for money may be 503, nothing is a 500."""
    with running(create_app([copy], write_settings(tmp_path, TIERS)), tier="paying") as app:
        assert flows(app, 0) == 200
        for database in list(sqlite._databases):
            if str(database.place).startswith(str(tmp_path)) and database._files.writing is not None:
                database._files.writing.execute("PRAGMA max_page_count=1")
        statuses = [flows(app, number) for number in range(1, 8)]
        jobs = post(app, "/flows/copy/jobs", json.dumps({"text": "x" * 50_000}).encode()).status
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert jobs in {202, 503}
        assert ask_raw(app, "/health").status == 200
        assert ask_raw(app, "/ready").status in {200, 503}
        assert ask_raw(app, "/metrics", headers=app.headers).status == 200


@WARNS
def test_a_home_that_is_deleted_is_made_anew(tmp_path: Path) -> None:
    """Somebody deletes the home under a running service: its keys are gone, so nobody gets in; it neither crashes nor hangs."""
    with running(create_app([copy], write_settings(tmp_path))) as app:
        assert flows(app, 0) == 200
        shutil.rmtree(tmp_path / ".state")
        time.sleep(0.3)
        assert flows(app, 1) == 401
        assert ask_raw(app, "/health").status == 200
        key, _ = app.service.keys.make()
        assert flows(app, 2, Authorization=f"Bearer {key}") == 200


@pytest.mark.parametrize("jump_s", [-2 * 86_400, 400 * 86_400], ids=["back", "ahead"])
def test_a_clock_that_jumps_changes_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """The time of day jumps in mid-run: answers go on, a key's requests a minute stay counted, Retry-After stays sensible."""
    real = time.time
    with running(create_app([copy], write_settings(tmp_path, TIERS)), tier="few") as app:
        paying, _ = app.service.keys.make("paying")
        assert [flows(app, number) for number in range(2)] == [200, 200]
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        assert flows(app, 3) == 200
        refused = post(app, "/flows/copy", b'{"text": "x"}')
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert flows(app, 5, Authorization=f"Bearer {paying}") == 200
        assert ask_raw(app, "/ready").status == 200
        monkeypatch.undo()
        assert flows(app, 6, Authorization=f"Bearer {paying}") == 200
