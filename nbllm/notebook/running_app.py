"""An exported app as a process below this one: started, looked at, ended with this process, however that ends."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import nbllm
from nbllm.engines.door import Door, NoAnswer
from nbllm.engines.process import SupervisedProcess
from nbllm.engines.supervised import PortTaken, Running, Supervised, free_port
from nbllm.errors import AppError, AppFailed, AppNotPossible
from nbllm.redaction import redact, register_secret

State = Literal["up", "draining", "ended", "stopped"]
START_S = 60.0
_LOOK_EVERY_S = 0.1
_ASK_S = 2.0
_LAST_LINES = 6
_KEY_BYTES = 32


class App(Supervised):
    """One running app. A context manager; `stop` leaves no process behind, and neither does the end of this process.

    name: its folder's. base_url: without a slash at its end; `v1` is what OpenAI's SDK takes. key: of this run only. session: under
    which its calls are in the ledger of `home`.
    """

    def __init__(self, folder: Path, port: int, key: str, session: str, home: Path, process: SupervisedProcess) -> None:
        super().__init__(folder.name, process)
        self.folder = folder
        self.base_url = f"http://127.0.0.1:{port}"
        self.session = session
        self.home = home
        self._key = key

    def __repr__(self) -> str:
        """Return what it is and how it stands; no key."""
        return f"App({self.name!r}, {self.base_url!r}, state={self.state!r})"

    @property
    def key(self) -> str:
        """The key of this run, as text, for the Authorization header."""
        return self._key

    @property
    def v1(self) -> str:
        """What OpenAI's SDK takes as base_url."""
        return f"{self.base_url}/v1"

    @property
    def door(self) -> Door:
        """How it is asked."""
        return Door(self.v1, self.key)

    @property
    def state(self) -> State:
        """How it stands, as far as it was seen; asks nothing."""
        if self._stopped:
            return "stopped"
        return "up" if self._process is not None and self._process.alive else "ended"

    @property
    def trouble(self) -> str:
        """What is wrong, "" when nothing is."""
        if self.state != "ended" or self._process is None:
            return ""
        return "\n".join((f"It has ended by itself (exit code {self._process.exit_code}).", *self.log_tail(_LAST_LINES)))

    def get(self, path: str, limit_s: float = _ASK_S) -> tuple[int, bytes]:
        """Return status and body of a GET with its key. Raises AppError when it does not answer."""
        try:
            answer = self.door.ask(path, limit_s=limit_s)
        except NoAnswer as error:
            raise AppError(f"{self.name} does not answer: {error}.", hint="%serve status shows how it is.") from None
        return answer.status, answer.body

    def stop(self) -> None:
        """End it; its key ends with it. Stopping twice is fine."""
        _running.drop(self)
        self._stopped = True
        if self._process is not None and not self._process.stop():
            raise AppError(f"{self.name} could not be ended in time.", hint="Look for its processes with ps or a task manager.")


_running: Running[App] = Running()


def running() -> list[App]:
    """Return the apps of this process that were not stopped, in the order of their starts."""
    return _running.every()


def start_app(
    folder: Path,
    *,
    home: Path,
    port: int | None = None,
    variables: Mapping[str, str] | None = None,
    tick: Callable[[float, str], object] | None = None,
    timeout_s: float = START_S,
) -> App:
    """Run an exported app on this machine and return it when it is ready.

    home: where its cache, ledger, budgets and keys are. variables: more of the environment, such as keys of engines. tick: called
    some times a second with the elapsed seconds and the last line of its log; may raise. Raises AppNotPossible, AppFailed; however
    it ends, by an interrupt too, nothing is left running but the app that is returned.
    """
    folder, home = folder.expanduser().resolve(), home.expanduser().absolute()
    _check(folder)
    stale = next((app for app in running() if app.name == folder.name), None)
    if stale is not None:
        if stale.state == "up":
            raise AppNotPossible(f"{stale.name} is up already, at {stale.base_url}.", hint=f"%serve stop {stale.name} ends it.")
        stale.stop()
    port = _port(port)
    key = secrets.token_urlsafe(_KEY_BYTES)
    register_secret(key)
    session = f"serve-{folder.name}-{secrets.token_hex(3)}"
    process: SupervisedProcess | None = None
    try:
        argv = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
        process = SupervisedProcess(argv, _environment(home, session, key, variables or {}), masked=[key])
        app = App(folder, port, key, session, home, process)
        _wait_until_ready(app, process, tick, timeout_s)
    except BaseException:
        if process is not None:
            process.stop()
        raise
    return _running.add(app)


def _check(folder: Path) -> None:
    if not (folder / "app.py").is_file() or not (folder / "settings.toml").is_file():
        what = "holds no exported app (app.py, settings.toml)" if folder.is_dir() else "is not there"
        raise AppNotPossible(f"{folder.name} {what}. Nothing was started.", hint="%%serve --flow NAME --out FOLDER makes one.")


def _port(wanted: int | None) -> int:
    try:
        return free_port(wanted)
    except PortTaken as error:
        raise AppNotPossible(str(error), hint="Leave --port out for a free one.") from None


def _environment(home: Path, session: str, key: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the app's variables: this process's, with the home and the session, and nbllm where this process has it from."""
    root = str(Path(nbllm.__file__).resolve().parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    return {
        **os.environ,
        **variables,
        "NBLLM_HOME": str(home),
        "NBLLM_SESSION": session,
        # A key by variable is kept in no file and ends with the process.
        "NBLLM_SERVICE_KEY": key,
        "PYTHONPATH": os.pathsep.join([root, *paths]),
        "PYTHONUNBUFFERED": "1",
        # A kernel's backend is nothing for a service, which may import what draws.
        "MPLBACKEND": "agg",
    }


def _wait_until_ready(app: App, process: SupervisedProcess, tick: Callable[[float, str], object] | None, timeout_s: float) -> None:
    began_s = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - began_s
        if not process.alive:
            raise _failed(app.name, process, "did not start")
        if tick is not None:
            tail = process.log_tail(1)
            tick(elapsed_s, tail[-1] if tail else "")
        try:
            if app.door.ask("/ready", limit_s=_ASK_S).status == 200:
                return
        except NoAnswer:
            pass
        if elapsed_s > timeout_s:
            raise _failed(app.name, process, f"was not ready after {timeout_s:g} s")
        time.sleep(_LOOK_EVERY_S)


def _failed(name: str, process: SupervisedProcess, what: str) -> AppFailed:
    tail = process.log_tail()
    code = process.exit_code
    lines = [f"  {line}" for line in tail[-_LAST_LINES:]] or [f"  {process.problem}" if process.problem else "  It said nothing."]
    exit_code = "" if code is None else f" (exit code {code})"
    return AppFailed(
        redact("\n".join((f"{name} {what}{exit_code}. Its last words:", *lines))),
        exit_code=code,
        log_tail="\n".join(tail),
        hint=f"`nbllm serve {name}` in a terminal shows everything.",
    )
