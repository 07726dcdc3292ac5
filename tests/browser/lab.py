"""A real JupyterLab on loopback and a headless Chromium to look at it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from playwright.sync_api import BrowserContext, Page, Route, expect

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
    "--disable-features=OptimizationHints,MediaRouter,Translate,InterestFeedContentSuggestions",
)
IDLE = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const session = panel && panel.sessionContext;
  const kernel = session && session.session && session.session.kernel;
  return !!kernel && kernel.status === 'idle' && kernel.connectionStatus === 'connected';
}"""
RUN = """(name) => {
  window.ran = false;
  window.jupyterapp.commands.execute(name).finally(() => { window.ran = true; });
}"""
AT_REST = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim());
  const busy = cells.some(cell => cell.model.executionState === 'running');
  window.restedSince = busy ? null : window.restedSince || performance.now();
  const all = cells.every(cell => cell.model.executionCount !== null);
  return !busy && performance.now() - window.restedSince > (all ? 200 : 4000);
}"""
TRAPS = """
window.pwned = window.pwned || [];
window.alert = window.confirm = window.prompt = (text) => { window.pwned.push(String(text)); };
"""
"""What hostile texts call; put into each page before anything else runs."""
ERROR_TYPES = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
ERRORS = ", ".join(f".jp-OutputArea-output[data-mime-type='{kind}']" for kind in ERROR_TYPES)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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

    def write(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook of code cells into the work folder and return its name."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        )
        nbformat.write(notebook, self.work / name)
        return name


class Visit:
    """One page on a Lab, with what it asked for, what it logged and what it popped up."""

    def __init__(self, page: Page, lab: Lab) -> None:
        self.page = page
        self.lab = lab
        self.foreign: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.context.on("page", lambda other: self.foreign.append(f"opened {other.url}") if other is not page else None)
        page.route("**/*", self._route)
        page.on("websocket", lambda socket: self._see(socket.url.replace("ws://", "http://")))

    def _dialog(self, dialog: Any) -> None:
        # Chromium asks on leaving a page with unsaved work; that is the Lab's own, and a test that leaves means it.
        if dialog.type == "beforeunload":
            dialog.accept()
            return
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _see(self, url: str) -> bool:
        own = url.startswith((self.lab.origin + "/", "data:", "blob:", "about:"))
        if not own:
            self.foreign.append(url)
        return own

    def _route(self, route: Route) -> None:
        if self._see(route.request.url):
            route.continue_()
        else:
            route.abort()

    # ------------------------------------------------------------------ what a person does

    def open(self, name: str, *, app: str = "lab/tree") -> None:
        """Open a notebook and wait for its kernel. app: lab/tree for JupyterLab, notebooks for Notebook 7."""
        self.page.goto(f"{self.lab.origin}/{app}/{quote(name)}?token={self.lab.token}&reset", timeout=60_000)
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
        self.wait_idle()

    def wait_idle(self, limit_s: float = 60) -> None:
        """Wait until the kernel is idle."""
        self.page.wait_for_function(IDLE, timeout=limit_s * 1000)

    def command(self, name: str, args: dict[str, Any] | None = None) -> None:
        """Run one of the Lab's commands without waiting for its end."""
        self.page.evaluate(f"() => {{ window.jupyterapp.commands.execute({json.dumps(name)}, {json.dumps(args or {})}); }}")

    def run_all(self, limit_s: float = 120) -> None:
        """Run all cells and wait until none of them is running or waiting to, and the kernel is idle."""
        self.command("notebook:clear-all-cell-outputs")
        self.page.evaluate(RUN, "notebook:run-all-cells")
        self.page.wait_for_function("() => window.ran", timeout=limit_s * 1000)
        # The command is done with the first failure, also where a cell is tagged to fail and the others go on; between two
        # cells nothing runs for a moment. After a failure that ends the run, the cells behind it never get a number.
        self.page.wait_for_function(AT_REST, timeout=limit_s * 1000)
        self.wait_idle()

    def outputs(self, number: int) -> str:
        """Return the visible text of a code cell's output, by its place among the code cells."""
        return self.page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea").first.inner_text()

    def error_texts(self) -> list[str]:
        """Return what is shown as an error or on stderr, one text an output."""
        return self.page.locator(ERRORS).all_inner_texts()

    def expect_text(self, selector: str, text: str, limit_s: float = 30) -> None:
        """Wait until an element shows a text."""
        expect(self.page.locator(selector).first).to_contain_text(text, timeout=limit_s * 1000)


@contextmanager
def visit(context: BrowserContext, lab: Lab) -> Iterator[Visit]:
    """Open a page for a with block."""
    page = context.new_page()
    try:
        yield Visit(page, lab)
    finally:
        page.close()
