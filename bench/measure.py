"""How things are measured: medians of many runs, in one process after a warm-up, the peer beside us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of the table. ok None: reported, without a target."""

    what: str
    target: str
    measured: str
    beside: str
    ok: bool | None


def best_of(run: Callable[[], float], rounds: int = 3) -> float:
    """Return the median of several rounds."""
    return median(run() for _ in range(rounds))


def per_call_s(call: Callable[[], object], n: int) -> float:
    """Return the median seconds of one call over n calls."""
    times = []
    clock = time.perf_counter
    for _ in range(n):
        began = clock()
        call()
        times.append(clock() - began)
    return median(times)


def python(code: str, **env: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.strip()


@contextmanager
def server(module: str = "bench.server") -> Iterator[str]:
    """Run a server, the canned one or another, in a process of its own; yields its base URL."""
    process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.communicate()
