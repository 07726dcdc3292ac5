"""A real JupyterLab on loopback, and how Chromium is to be started for it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat

from nbllm.engines.supervised import free_port

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60
QUIET_CHROMIUM = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
    # Names and addresses of elsewhere cannot be reached: a request that a hostile text makes is seen, and goes nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-features=OptimizationHints,MediaRouter,Translate,InterestFeedContentSuggestions",
)


class Lab:
    """One JupyterLab: its own port, token, folder, settings and nbllm home. more: further arguments."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.work = folder / "work"
        self.home = folder / "home"
        self.log = folder / "jupyter.log"
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        for name in ("work", "config", "data", "runtime"):
            (folder / name).mkdir(parents=True)
        # All cells are drawn, also those that are out of sight: a hostile answer must not pass because nobody scrolled to it.
        self._set(folder, "@jupyterlab/notebook-extension/tracker", '{"windowingMode": "none"}')
        self._set(folder, "@jupyterlab/apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}')
        kept = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_SECRET"))}
        env = {
            **kept,
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "config"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "config"),
            "JUPYTER_PATH": str(folder / "own"),
            "NBLLM_HOME": str(self.home),
        }
        self._link_extension(folder / "own")
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
            *(f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"),
            *(f"--ServerApp.root_dir={self.work}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url="),
            # The same server has Notebook 7, where its package is installed.
            "--JupyterNotebookApp.expose_app_in_browser=True",
            *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"),
            *more,
        ]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=self.work,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @staticmethod
    def _link_extension(path: Path) -> None:
        """Let this Lab find the extension of this checkout, whatever its environment has."""
        built = ROOT / "nbllm" / "_labextension"
        (path / "labextensions").mkdir(parents=True)
        if built.exists():
            (path / "labextensions" / "nbllm-lab").symlink_to(built, target_is_directory=True)

    @staticmethod
    def _set(folder: Path, plugin: str, settings: str) -> None:
        path = folder / "config" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(settings, encoding="utf-8")

    @contextmanager
    def settings(self, plugin: str, settings: dict[str, Any]) -> Iterator[None]:
        """Give a plugin settings for a with block; pages that are opened in it have them. plugin: its folder and name."""
        path = self.work.parent / "config" / f"{plugin}.jupyterlab-settings"
        before = path.read_text(encoding="utf-8") if path.exists() else "{}"
        self._set(self.work.parent, plugin, json.dumps(settings))
        try:
            yield
        finally:
            path.write_text(before, encoding="utf-8")

    @contextmanager
    def page_config(self, **values: Any) -> Iterator[None]:
        """Give pages that are opened in a with block a configuration, as an administrator does."""
        path = self.work.parent / "config" / "labconfig" / "page_config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
        try:
            yield
        finally:
            path.unlink()

    def wait_ready(self) -> None:
        """Wait until the server answers."""
        end = time.monotonic() + START_LIMIT_S
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self.origin}/api?token={self.token}", timeout=5):  # noqa: S310 - http on loopback
                    return
            except OSError:
                time.sleep(0.2)

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the server's REST interface."""
        asked = urllib.request.Request(f"{self.origin}/api/{path}?token={self.token}", method=method)  # noqa: S310 - see above
        with urllib.request.urlopen(asked, timeout=START_LIMIT_S) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def sessions(self) -> list[str]:
        """Return the ids of the sessions that run, each with a kernel."""
        return [session["id"] for session in self.ask("sessions")]

    def end(self, sessions: Sequence[str]) -> None:
        """End sessions with their kernels: those of a test would go on to take memory until the last test."""
        for session in sessions:
            with suppress(urllib.error.HTTPError):  # it ended meanwhile
                self.ask(f"sessions/{session}", "DELETE")

    def stop(self) -> None:
        """End the server and its kernels."""
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=15)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=15)

    def forget(self, *names: str) -> None:
        """Delete files of the work folder: those that a test, which may run a second time, waits for."""
        for name in names:
            (self.work / name).unlink(missing_ok=True)

    def write(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook of code cells into the work folder and return its name."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        )
        nbformat.write(notebook, self.work / name)
        return name
