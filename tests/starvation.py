"""How long a busy machine kept the tests waiting: what a promise in seconds cannot answer for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_THREADS = Path("/proc/self/task")
_PROCESSORS = os.cpu_count() or 1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


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


def machine_lost_s() -> dict[str, float]:
    """Return for how many seconds anything on the machine waited for a processor ("cpu"), for its disks ("io"), and how long a
    host took processors away ("stolen", added up over all of them); {} where no system tells.

    From Linux's pressure stall information (Documentation/accounting/psi.rst, total of "some", in us) and /proc/stat.
    """
    lost: dict[str, float] = {}
    for name in ("cpu", "io"):
        with suppress(OSError):
            lost[name] = int(Path(f"/proc/pressure/{name}").read_text().splitlines()[0].rpartition("=")[2]) / 1e6
    with suppress(OSError, IndexError):
        lost["stolen"] = int(Path("/proc/stat").read_text().split(maxsplit=10)[8]) / _TICKS_PER_S
    return lost


class Stopwatch:
    """Seconds since it was made, what the machine's other work took left out, up to half of the time.

    No system tells apart whose work it was that the disks were busy with, or that a thread waited behind: it may be what is timed
    itself. So a limit gives at most once more on a busy machine, and nothing that takes longer than twice its limit passes.

    others: what is timed runs in other processes, or in threads that end meanwhile. How long these waited for a processor nobody
    tells apart, so what anybody waited counts.
    """

    def __init__(self, *, others: bool = False) -> None:
        self._others = others
        self.began_s, self._threads, self._machine = time.monotonic(), starved_s(), machine_lost_s()

    @property
    def lost_s(self) -> float:
        """What the machine's other work took."""
        lost = {name: max(0.0, now_s - self._machine[name]) for name, now_s in machine_lost_s().items() if name in self._machine}
        here = max((now_s - self._threads.get(thread, 0.0) for thread, now_s in starved_s().items()), default=0.0)
        there = lost.get("cpu", 0.0) if self._others else 0.0
        stolen = lost.get("stolen", 0.0) / _PROCESSORS
        return min(max(here, there) + lost.get("io", 0.0) + stolen, self.all_s / 2)

    @property
    def s(self) -> float:
        """What was taken without that."""
        lost_s = self.lost_s  # first: it is up to half of all until then
        return self.all_s - lost_s

    @property
    def all_s(self) -> float:
        """What a clock on the wall tells: for lower bounds."""
        return time.monotonic() - self.began_s


@dataclass
class Waited:
    """lost_s: what the machine's other work took during the block, known when it is over."""

    lost_s: float = 0.0


@contextmanager
def within(limit_s: float, *, others: bool = False) -> Iterator[Waited]:
    """AssertionError when the block takes longer, what the machine's other work took left out (see Stopwatch)."""
    watch, waited = Stopwatch(others=others), Waited()
    yield waited
    took_s, waited.lost_s = watch.s, watch.lost_s
    assert took_s <= limit_s, f"took {took_s:.2f} s; the machine's other work took {waited.lost_s:.2f} s more"
