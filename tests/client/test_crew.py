"""The threads for users' code: as many as needed, gone when idle, never in the way of the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nbllm
from nbllm import crew
from nbllm.crew import Crew
from tests.client.helpers import until


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads end after a moment without work."""
    monkeypatch.setattr(crew, "LINGER_S", 0.02)


def alive(name: str) -> int:
    """How many threads of a crew live."""
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_work_is_done_by_as_many_as_needed() -> None:
    """Results and errors come back; at most `size` at once; one thread does for work that comes one by one."""
    team = Crew(3, "crew-a")
    for number in range(20):
        assert team.submit(lambda n: n * 2, number).result(30) == 2 * number
    assert alive("crew-a") == 1
    with pytest.raises(ZeroDivisionError):
        team.submit(lambda: 1 / 0).result(30)
    gate, at_once, most = threading.Semaphore(0), [], []

    def busy() -> None:
        at_once.append(1)
        most.append(len(at_once))
        gate.acquire()
        at_once.pop()

    futures = [team.submit(busy) for _ in range(9)]
    until(lambda: len(at_once) == 3)
    gate.release(9)
    for future in futures:
        future.result(30)
    assert max(most) == 3
    until(lambda: alive("crew-a") == 0)
    assert team.submit(lambda: "again").result(30) == "again"
    team.shutdown()


def test_no_work_is_lost_to_threads_that_are_leaving() -> None:
    """Work that comes just when idle threads leave is done all the same."""
    team = Crew(2, "crew-b")
    for number in range(40):
        assert team.submit(lambda n: n, number).result(30) == number
        time.sleep(0.0199 + number % 7 * 0.0001)
    team.shutdown()


def test_shutdown() -> None:
    """Afterwards nothing is taken; what had not begun is cancelled on request; threads end."""
    team = Crew(1, "crew-c")
    gate = threading.Event()
    running = team.submit(gate.wait, 5)
    until(running.running)
    waiting = team.submit(lambda: "never")
    team.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    gate.set()
    assert running.result(30)
    with pytest.raises(RuntimeError):
        team.submit(lambda: None)
    until(lambda: alive("crew-c") == 0)


_SCRIPT = """
import sys, threading, time
from nbllm import Client
client = Client(home=sys.argv[1], model="sim/small")
try:
    client.ask("Say hi", check=lambda text: time.sleep(60), deadline_s=0.3)
except Exception as exc:
    print(type(exc).__name__)
"""


def test_a_check_that_hangs_does_not_keep_python_from_ending(tmp_path: Path) -> None:
    """The call ends at its deadline, and the interpreter ends although the check still runs."""
    environment = {"PYTHONPATH": str(Path(nbllm.__file__).parents[1]), "NBLLM_SIM_SPEED": "0", "PATH": ""}
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("DeadlineExceeded", "")
