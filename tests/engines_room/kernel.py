"""Plays a kernel that is killed: starts an engine in a mode of fake_engine.py, says so, and stays.

Usage: kernel.py MODE [fork]: with fork a child of its own, which outlives it, holds what was open at the fork.
"""

from __future__ import annotations

import os
import sys
import time
import warnings

from nbllm.engines import plan_launch, start
from nbllm.engines.catalog import ENGINES
from tests.engines_room.conftest import fake_kind

if __name__ == "__main__":
    mode = sys.argv[1]
    ENGINES["fake"] = fake_kind(mode)  # type: ignore[index]
    if mode == "loading":
        ENGINES["fake"] = fake_kind("slow")  # type: ignore[index]
        os.environ["FAKE_WAIT_S"] = "60"
        print("started", flush=True)
    engine = start(plan_launch("fake", "tiny"))
    if "fork" in sys.argv:
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads, which is what is tried here
        if os.fork() == 0:
            os.environ.clear()
            time.sleep(60)
            os._exit(0)
    print("started", flush=True)
    time.sleep(600)
