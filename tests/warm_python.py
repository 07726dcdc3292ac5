"""Clean processes for proofs and replays that need not import nbllm and FastAPI again, which is nearly all of their work.

A Python that has imported them forks for each: a process of its own, with its own arguments, environment, folder, standard streams
and end, that differs from a new one in what it finds imported. tests/export/test_proof.py and one test of each kind that uses
them start real ones (the fixture real_python), as do the example notebooks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

_ROOT = str(Path(__file__).resolve().parents[1])
_IMPORTED = ("nbllm.export.proving", "nbllm.service.replaying", "nbllm.service.app", "nbllm.service.celery_app")
_START = f"""
import sys
sys.path.insert(0, {_ROOT!r})
import nbllm
del sys.path[0]
sys.path.append({_ROOT!r})
import runpy
runpy.run_path({__file__!r})["forks"]()
"""


class WarmPython:
    """Runs what `python -P -s -c CODE` and `python -m MODULE` would, in forks of one Python: stands in for the module subprocess.

    Use as a context manager; the Python is started when it is needed.
    """

    TimeoutExpired = subprocess.TimeoutExpired
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)

    def run(
        self,
        command: Sequence[str],
        *,
        input: str,  # noqa: A002 - as subprocess.run has it
        env: Mapping[str, str],
        timeout: float,
        cwd: Path,
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Do as subprocess.run does with capture_output and text in UTF-8."""
        assert how == {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace", "check": False}, how
        with tempfile.TemporaryDirectory() as name:
            streams = [str(Path(name) / stream) for stream in ("stdin", "stdout", "stderr")]
            Path(streams[0]).write_text(input, encoding="utf-8")
            task = {"command": list(command[1:]), "streams": streams, "env": dict(env), "cwd": str(cwd), "timeout": timeout}
            code = self._code(json.dumps(task).encode() + b"\n")
            if code is None:
                raise subprocess.TimeoutExpired(command, timeout)
            out, err = (Path(stream).read_text(encoding="utf-8", errors="replace") for stream in streams[1:])
        return subprocess.CompletedProcess(command, code, out, err)

    def _code(self, task: bytes) -> int | None:
        """Have a task done and return how it ended; None: it took too long.

        Who is interrupted meanwhile, as by the time limit of a test, leaves no Python that would give this answer to the next task.
        """
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-I", "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(task)
            process.stdin.flush()
            code: int | None = json.loads(process.stdout.readline())
        except BaseException:
            self._process = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the fork that does the task, too
            process.communicate()
            raise
        return code


def forks() -> None:
    """Import once; then fork for each task that is read from stdin, and write its exit code, or null when it took too long."""
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    tasks, ends = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    for line in tasks:
        task = json.loads(line)
        child = os.fork()
        if not child:
            tasks.close()
            ends.close()
            break
        ends.write(json.dumps(_ended(child, task["timeout"])).encode() + b"\n")
    else:
        return
    _become(task)


def _ended(child: int, timeout_s: float) -> int | None:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(task: Mapping[str, Any]) -> None:
    """Be the process that the task asks for, until the end of this one."""
    stdin, stdout, stderr = task["streams"]
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if task["command"][:-1] == ["-P", "-s", "-c"]:
        sys.argv = ["-c"]
        exec(compile(task["command"][-1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - what -c does
    else:
        option, module = task["command"]
        assert option == "-m", option
        sys.path[:0] = [task["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        del sys.modules[module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
