"""Which processes carry a mark in their environment: how a test sees what is left, wherever it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from nbllm.engines.supervisor import _parents
from tests.starvation import Stopwatch

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def marked(mark: str) -> list[int]:
    """Return the processes whose environment holds the mark, zombies left out (theirs is empty)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until_gone(mark: str, limit_s: float) -> float:
    """Wait until no process carries the mark; return how long that took, fail after limit_s, the machine's other work left out."""
    watch, began_s = Stopwatch(others=True), time.monotonic()
    while left := marked(mark):
        assert watch.s < limit_s, f"still there after {limit_s} s: {left}"
        time.sleep(0.02)
    return time.monotonic() - began_s


def wait_until_ended(pids: Collection[int], limit_s: float) -> None:
    """Wait until none of these processes lives: some overwrite their environment, and with it a mark. Fail after limit_s."""
    watch = Stopwatch(others=True)
    while left := set(pids) & _parents().keys():
        assert watch.s < limit_s, f"still there after {limit_s} s: {left}"
        time.sleep(0.02)


def until(true: Callable[[], object], limit_s: float = 30.0) -> float:
    """Wait until something is true and return how long that took; fail after limit_s."""
    began_s = time.monotonic()
    while not true():
        assert time.monotonic() - began_s < limit_s
        time.sleep(0.01)
    return time.monotonic() - began_s
