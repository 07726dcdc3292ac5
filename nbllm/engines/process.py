"""An engine's process as this process sees it: a supervisor, the pipe that ties it to us, and the engine's log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbllm.engines.leftovers import MARK, end_leftovers
from nbllm.errors import EngineFailed
from nbllm.redaction import redact

STOP_S = 6.0
"""How long an ending engine is waited for: TERM, 3 s, KILL and what the system needs."""
REASON_LINES = 1000
"""As much of its log as is searched for why it died: each of its processes writes a traceback, and the cause is in the first."""
_LINE_BYTES = 800
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class SupervisedProcess:
    """A program below a supervisor of its own. Ends with this process, however that ends, and with `stop`.

    argv: the argument list; env: all of its variables. masked: secrets that are masked in its log. key_file: (flag, text) of a
    private file in its folder, which is its working directory; flag and path end the argument list.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        masked: Sequence[str] = (),
        key_file: tuple[str, str] | None = None,
    ) -> None:
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.problem = ""
        self.exited = threading.Event()
        """Set when the engine has ended, or was never started."""
        self._ended = False
        """Whether the supervisor said that nothing is left."""
        self._mark = secrets.token_hex(16)
        self._last_log = ""
        self._folder = Path(tempfile.mkdtemp(prefix="nbllm-engine-"))  # only this user's, by mkdtemp
        self._log = self._folder / "engine.log"
        spec = self._spec(argv, env, masked, key_file)
        # By its file, isolated and without site: it needs nothing of this Python's packages and of the user's folder.
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", str(_SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **_own_session(),
        )
        self._listener = threading.Thread(target=self._listen, name="nbllm-engine-listen", daemon=True)
        try:
            self._listener.start()
            self._tell(json.dumps(spec))
        except BaseException:  # an interrupt: nobody else could stop it any more
            self.stop()
            raise

    def _spec(
        self, argv: Sequence[str], env: Mapping[str, str], masked: Sequence[str], key_file: tuple[str, str] | None
    ) -> dict[str, Any]:
        """Return what the supervisor is told; the key's file is written."""
        words = list(argv)
        if key_file is not None:
            flag, text = key_file
            path = self._folder / "key.yaml"
            path.write_text(text, encoding="utf-8")
            words += [flag, str(path)]
        return {
            "argv": words,
            "env": {**env, MARK: self._mark},
            "folder": str(self._folder),
            "log": str(self._log),
            "secrets": list(masked),
        }

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(line.encode() + b"\n")
                pipe.flush()
        except OSError as error:
            raise EngineFailed(f"The process that watches over the engine did not start: {error}.") from error

    def _listen(self) -> None:
        """Take in what the supervisor says, until it has ended."""
        pipe = self._process.stdout
        with contextlib.suppress(OSError, ValueError):
            for line in pipe or ():
                said: dict[str, Any] = json.loads(line)
                if said["event"] == "started":
                    self.pid = said["pid"]
                elif said["event"] == "exited":
                    self.exit_code, self.problem = said["code"], said.get("problem", "")
                    self.log_tail(REASON_LINES)  # kept: the file goes with the supervisor
                    self.exited.set()
                elif said["event"] == "ended":
                    self._ended = True
                    self.let_go()
        if not self._ended:
            self._supervisor_died()
        self.exited.set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)  # no zombie of it stays

    def _supervisor_died(self) -> None:
        """End what it can no longer end, and remove what it can no longer remove."""
        if not self.exited.is_set():
            self.log_tail(REASON_LINES)
            self.problem = "the process that watches over it was ended from outside"
            self.exited.set()
        end_leftovers(self._mark, self.pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether the engine runs, as far as is known."""
        return not self.exited.is_set()

    def log_tail(self, lines: int = 40) -> list[str]:
        """Return the last lines of the engine's log, without colours, secrets masked."""
        if not self.exited.is_set():  # afterwards the file goes, and what was read last is kept
            with contextlib.suppress(OSError), self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - lines * _LINE_BYTES))
                self._last_log = file.read().decode("utf-8", "replace")
        text = redact(_ESCAPES.sub("", self._last_log))
        found = (line.rstrip() for line in re.split(r"[\r\n]+", text))
        return [line for line in found if line.strip()][-lines:]

    def stop(self) -> bool:
        """End the engine and all that it started; return whether all of it was gone within 6 s. Stopping twice is fine."""
        self.let_go()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return False
        if self._listener.ident is not None:
            self._listener.join(STOP_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)  # gone already, unless the supervisor never heard of it
        return True

    def let_go(self) -> None:
        """Have the supervisor end what is left, and itself. Does not wait for that."""
        self.log_tail(REASON_LINES)
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            return
        with contextlib.suppress(OSError, ValueError):
            pipe.write(b"stop\n")  # a child that this process forked may hold the pipe open, so that its end alone does not tell
            pipe.flush()
        with contextlib.suppress(OSError, ValueError):
            pipe.close()

    def forget(self) -> None:
        """In a forked child: let go of the pipe, which is the parent's; as long as a child held it, it would not close."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.close(pipe.fileno())
        self._process.returncode = 0  # not this process's child: nothing to wait for, nothing to warn of
        self.exited.set()


def _own_session() -> dict[str, Any]:
    """Return what keeps interrupts of this process from the supervisor."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
