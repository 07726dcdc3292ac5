"""Jobs and keys of one real process without Redis: killed, ended, started again; nothing that was accepted is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nbllm.engines.supervised import free_port
from tests.client.helpers import until
from tests.starvation import Stopwatch

KEY = "a-key-of-more-than-thirty-two-bytes-for-tests"
CYCLES = 12
FLOWS = '''
import time
from pathlib import Path
from nbllm import ask, flow


@flow
def work(number: int, seconds: float) -> str:
    """Say that it has begun, sleep, ask, sleep."""
    Path(__file__).with_name(f"begun-{number}").touch()
    time.sleep(seconds)
    text = ask(f"number {number}").text
    time.sleep(seconds)
    return f"{number}: {text}"
'''
APP = """
from pathlib import Path
from nbllm.service import create_app
import flows

app = create_app(flows=[flows.work], settings=Path(__file__).with_name("settings.toml"))
"""

SETTINGS = """
ladder = ["sim/small"]
[service]
grace_s = 3
[service.tiers.default]
requests_per_minute = 1000000
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    return tmp_path


class Process:
    """One process of the app."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        environ = {**os.environ, "NBLLM_SERVICE_KEY": KEY, "PYTHONPATH": os.pathsep.join(sys.path)}
        environ.pop("NBLLM_HOME", None)
        self.log = folder / f"log-{self.port}.txt"
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        until(self._answers, within_s=30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.http.close()


@contextmanager
def served(folder: Path) -> Iterator[Process]:
    process = Process(folder)
    try:
        yield process
    finally:
        process.kill()


def job(process: Process, place: str) -> dict[str, Any]:
    found: dict[str, Any] = process.http.get(place).json()
    return found


def test_no_accepted_job_is_lost_to_kill_9(app: Path) -> None:
    """Over many kills at any moment every job that got its 202 ends as done, with its own result, once."""
    chance = random.Random(4)
    accepted: dict[str, int] = {}
    for cycle in range(CYCLES):
        process = Process(app)
        killer = threading.Timer(chance.uniform(0.05, 0.6), process.process.kill)
        killer.start()
        for number in range(cycle * 100, cycle * 100 + 20):
            try:
                answer = process.http.post("/flows/work/jobs", json={"number": number, "seconds": chance.uniform(0.0, 0.05)})
            except httpx.TransportError:
                break
            if answer.status_code == 202:
                accepted[answer.headers["location"]] = number
        killer.join()
        process.kill()
    assert len(accepted) > CYCLES
    with served(app) as process:
        until(lambda: all(job(process, place)["status"] not in ("queued", "running") for place in accepted), within_s=60)
        ended = {place: job(process, place) for place in accepted}
    assert {one["status"] for one in ended.values()} == {"done"}, [one for one in ended.values() if one["status"] != "done"]
    for place, number in accepted.items():
        assert str(ended[place]["result"]).startswith(f"{number}: ")
    assert any(one["attempts"] > 1 for one in ended.values()), "some were killed in mid-run"


def test_a_key_whose_process_was_killed(app: Path) -> None:
    """Its outcome is unknown to the next process until it is retried on purpose; what was answered before is replayed."""
    body = {"number": 1, "seconds": 0.0}
    with served(app) as process:
        kept = process.http.post("/flows/work", json=body, headers={"Idempotency-Key": "kept"})
        sent = threading.Thread(target=lambda: _swallowed(process, {"number": 2, "seconds": 20.0}, "died"))
        sent.start()
        until((app / "begun-2").exists)
        process.kill()
        sent.join()
    with served(app) as process:
        again = process.http.post("/flows/work", json=body, headers={"Idempotency-Key": "kept"})
        assert (again.content, again.headers["idempotency-replayed"]) == (kept.content, "true")
        fast = {"number": 2, "seconds": 20.0}
        unknown = process.http.post("/flows/work", json=fast, headers={"Idempotency-Key": "died"})
        assert (unknown.status_code, unknown.json()["type"]) == (409, "urn:nbllm:problem:idempotency-outcome-unknown")
        other = process.http.post("/flows/work", json=body, headers={"Idempotency-Key": "died"})
        assert other.status_code == 422


def _swallowed(process: Process, body: dict[str, Any], key: str) -> None:
    try:
        process.http.post("/flows/work", json=body, headers={"Idempotency-Key": key})
    except httpx.TransportError:
        return


def test_sigterm_closes_jobs_back_into_the_queue(app: Path) -> None:
    """The process ends within its grace; what ran is queued, and the next process ends it. Nothing counts as a death."""
    with served(app) as process:
        places = [
            process.http.post("/flows/work/jobs", json={"number": number, "seconds": 5.0}).headers["location"]
            for number in range(3)
        ]
        until(lambda: all(job(process, place)["status"] == "running" for place in places))
        watch = Stopwatch(others=True)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(60) == 0, process.log.read_text()
        assert watch.s < 8
    with served(app) as process:
        assert all(job(process, place)["status"] in ("queued", "running") for place in places)
        until(lambda: all(job(process, place)["status"] == "done" for place in places), within_s=30)
        assert {job(process, place)["attempts"] for place in places} == {2}


def test_a_request_under_way_at_sigterm_is_answered(app: Path) -> None:
    """It may finish within the grace; nothing new is taken."""
    with served(app) as process:
        got: list[httpx.Response] = []
        sent = threading.Thread(target=lambda: got.append(process.http.post("/flows/work", json={"number": 1, "seconds": 1.0})))
        sent.start()
        until((app / "begun-1").exists)
        process.process.send_signal(signal.SIGTERM)
        sent.join()
        assert (got[0].status_code, got[0].json()[:3]) == (200, "1: ")
        assert process.process.wait(60) == 0
