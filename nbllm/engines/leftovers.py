"""The second line of defence: ends what an engine started, when the supervisor that would have done it was killed itself.

The system ends the engine then, but not what the engine had started. On Linux those are found by a mark in their environment and
by their session; on other POSIX systems by the engine's process group; on Windows taskkill ends the tree.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "NBLLM_ENGINE_MARK"
"""Variable that an engine and all below it carry; its value is one launch's."""
_LIMIT_S = 3.0


def end_leftovers(mark: str, engine: int | None) -> None:
    """Kill what carries the mark or belongs to the engine's session, until nothing is left or 3 s are over."""
    if os.name != "posix":
        if engine is not None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(engine)], capture_output=True, check=False)  # noqa: S603,S607 - our own number
        return
    if not sys.platform.startswith("linux"):
        if engine is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(engine, signal.SIGKILL)
        return
    end_s = time.monotonic() + _LIMIT_S
    while left := list(_left(f"{MARK}={mark}".encode(), engine)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end_s:
            return
        time.sleep(0.02)


def _left(mark: bytes, session: int | None) -> Iterator[int]:
    """Yield living processes of /proc with the mark among their variables or of the session; zombies have no variables."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # proc(5): after the last bracket come state, parent, group, session.
            state, _, _, its_session = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:4]
            if state in "ZX":
                continue
            if int(its_session) == session or mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
