"""The stand-in for new processes that does not import everything again."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from tests.client.helpers import until
from tests.engines_room.processes import linux_only, wait_until_ended
from tests.warm_python import WarmPython


class Interrupted(Exception):
    """What a time limit raises in the middle of a test."""


def interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupted


@linux_only
def test_who_was_interrupted_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    """A run that a time limit of its test cuts is ended; the next one gets its own answer, and so does the one after it."""

    def run(code: str) -> tuple[int, str]:
        how = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace", "check": False}
        done = python.run([sys.executable, "-P", "-s", "-c", code], input="", env=dict(os.environ), timeout=60, cwd=tmp_path, **how)
        return done.returncode, done.stdout

    def cut() -> None:
        until(lambda: (tmp_path / "begun").read_text() if (tmp_path / "begun").exists() else "")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with WarmPython() as python:
            cutting = threading.Thread(target=cut)
            cutting.start()
            with pytest.raises(Interrupted):
                run("import os, time; open('begun', 'w').write(str(os.getpid())); time.sleep(60); raise SystemExit(7)")
            cutting.join()
            assert run("print('good')") == (0, "good\n")
            assert run("print('bad'); raise SystemExit(3)") == (3, "bad\n")
    finally:
        signal.signal(signal.SIGUSR1, before)
    wait_until_ended([int((tmp_path / "begun").read_text())], 30)
