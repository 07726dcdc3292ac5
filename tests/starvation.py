"""How long a busy machine kept this process waiting for a processor: what a promise in seconds cannot answer for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_THREADS = Path("/proc/self/task")


def starved_s() -> dict[str, float]:
    """Return for how many seconds each thread alive now was ready to run and waited for a processor; {} where no system tells.

    From the second number of Linux's schedstat (Documentation/scheduler/sched-stats.rst), in ns. On a machine that is not
    overloaded it stays near 0, so a limit plus the difference of two readings is the limit.
    """
    waited: dict[str, float] = {}
    with suppress(FileNotFoundError):
        for thread in _THREADS.iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return waited


@dataclass
class Waited:
    """lost_s: what the machine's other work took from the threads of this process during the block, known when it is over."""

    lost_s: float = 0.0


@contextmanager
def within(limit_s: float) -> Iterator[Waited]:
    """AssertionError when the block takes longer, what the machine's other work took from this process left out."""
    began_s, before, waited = time.monotonic(), starved_s(), Waited()
    yield waited
    took_s = time.monotonic() - began_s
    waited.lost_s = sum(max(0.0, now_s - before.get(thread, 0.0)) for thread, now_s in starved_s().items())
    assert took_s <= limit_s + waited.lost_s
