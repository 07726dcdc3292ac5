"""A page on a JupyterLab: what a person does there, and what the page asked for, logged and popped up meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from playwright.sync_api import BrowserContext, Dialog, Page, Request, WebSocket, expect
from playwright.sync_api import Error as PlaywrightError

from tests.browser.lab import Lab

LIMIT_S = 60
"""Waits are for conditions; this is how long a busy machine may take for one."""
IDLE = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const session = panel && panel.sessionContext;
  const kernel = session && session.session && session.session.kernel;
  return !!kernel && kernel.status === 'idle' && kernel.connectionStatus === 'connected';
}"""
OPEN = """async path => {
  const app = window.jupyterapp;
  [...app.shell.widgets('main')].filter(one => one.context?.path === path).forEach(one => one.dispose());
  const panel = await app.commands.execute('docmanager:open', { path, factory: 'Notebook' });
  await panel.context.ready;
  app.shell.activateById(panel.id);
}"""
IN_FRONT = """path => {
  const front = window.jupyterapp.shell.currentWidget;
  return front?.context?.path === path && !!front.node.querySelector('.jp-Cell');
}"""
RUN = """(name) => {
  window.ran = false;
  window.restedSince = null;
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
FRAMES = """async count => {
  for (; count > 0; count--) await new Promise(requestAnimationFrame);
}"""
TIDY = """async () => {
  const app = window.jupyterapp;
  [...app.shell.widgets('main')].forEach(one => one.dispose());
  document.querySelectorAll('.Toastify__toast .jp-Notification-Toast-Close').forEach(one => one.click());
  app.shell.collapseRight();
  if (document.body.dataset.jpThemeName !== 'JupyterLab Light')
    await app.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' });
}"""
IS_TIDY = """() => !document.querySelector('.jp-Dialog, .Toastify__toast, .jp-NotebookPanel, .jp-CodeConsole, .lm-Menu')
  && document.body.dataset.jpThemeName === 'JupyterLab Light' && window.pwned.length === 0"""
TRAPS = """
window.pwned = window.pwned || [];
window.alert = window.confirm = window.prompt = (text) => { window.pwned.push(String(text)); };
"""
"""What hostile texts call; put into each page before anything else runs."""
ERROR_TYPES = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
ERRORS = ", ".join(f".jp-OutputArea-output[data-mime-type='{kind}']" for kind in ERROR_TYPES)


class Visit:
    """A test's time on a page. stays: whether notebooks are opened in the page as it is, else each time it is loaded anew."""

    def __init__(self, page: Page, lab: Lab, *, stays: bool = False) -> None:
        self.page = page
        self.lab = lab
        self.stays = stays
        self.foreign: list[str] = []
        self.refused: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        self._heard: list[tuple[Any, str, Any]] = []
        self._listen(page, "dialog", self._dialog)
        self._listen(page, "pageerror", lambda error: self.errors.append(str(error)))
        self._listen(page, "request", self._request)
        self._listen(page, "requestfailed", lambda request: self.refused.append(f"{request.url}: {request.failure}"))
        self._listen(page, "websocket", self._socket)
        self._listen(page.context, "page", lambda other: self.foreign.append(f"opened {other.url}"))

    def _listen(self, source: Any, event: str, hear: Any) -> None:
        source.on(event, hear)
        self._heard.append((source, event, hear))

    def leave(self) -> None:
        """Hear no more of the page."""
        while self._heard:
            source, event, hear = self._heard.pop()
            source.remove_listener(event, hear)

    def _dialog(self, dialog: Dialog) -> None:
        # Chromium asks on leaving a page with unsaved work; that is the Lab's own, and a test that leaves means it.
        if dialog.type == "beforeunload":
            dialog.accept()
            return
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        self._see(request.url)

    def _socket(self, socket: WebSocket) -> None:
        self._see(socket.url.replace("ws://", "http://"))

    def _see(self, url: str) -> None:
        if not url.startswith((self.lab.origin + "/", "data:", "blob:", "about:")):
            self.foreign.append(url)

    # ------------------------------------------------------------------ what a person does

    def load(self, name: str, *, app: str = "lab/tree") -> None:
        """Load the page with a notebook and wait for its kernel. app: lab/tree for JupyterLab, notebooks for Notebook 7."""
        self.page.goto(f"{self.lab.origin}/{app}/{quote(name)}?token={self.lab.token}&reset")
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
        self.wait_idle()

    def open(self, name: str) -> None:
        """Open a notebook, anew if it is open, and wait for its kernel."""
        if not self.stays:
            self.load(name)
            return
        self.page.evaluate(OPEN, name)
        self.page.wait_for_function(IN_FRONT, arg=name)
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait until the kernel is idle."""
        self.page.wait_for_function(IDLE)

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

    def theme(self, name: str) -> None:
        """Change the theme and wait until the page wears it."""
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        self.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=name)
        self.frames(2)

    def frames(self, count: int) -> None:
        """Wait until the page was drawn so many times: what follows a change in the next frame is there, or does not come."""
        self.page.evaluate(FRAMES, count)

    def wait_for(self, true: Callable[[], object]) -> None:
        """Wait until something is true that happens outside of the page, which goes on meanwhile."""
        end_s = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < end_s, "it did not happen in time"
            self.frames(1)

    def outputs(self, number: int) -> str:
        """Return the visible text of a code cell's output, by its place among the code cells."""
        return self.page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea").first.inner_text()

    def error_texts(self) -> list[str]:
        """Return what is shown as an error or on stderr, one text an output."""
        return self.page.locator(ERRORS).all_inner_texts()

    def expect_text(self, selector: str, text: str) -> None:
        """Wait until an element shows a text."""
        expect(self.page.locator(selector).first).to_contain_text(text)


def patient(context: BrowserContext) -> BrowserContext:
    """Give all waits of a context, and expect(), the time that a busy machine needs; put the traps into its pages."""
    expect.set_options(timeout=LIMIT_S * 1000)
    context.set_default_timeout(LIMIT_S * 1000)
    context.add_init_script(TRAPS)
    return context


@contextmanager
def visit(context: BrowserContext, lab: Lab) -> Iterator[Visit]:
    """Open a page for a with block."""
    page = patient(context).new_page()
    try:
        yield Visit(page, lab)
    finally:
        page.close()


class SharedPage:
    """A page with JupyterLab in it that one test after the other has, since to load it takes longer than most tests.

    After a test it is cleared: notebooks are closed, messages dismissed. What cannot be cleared, and where a script failed, the
    next test gets a page that was loaded anew.
    """

    def __init__(self, context: BrowserContext, lab: Lab) -> None:
        self._context = patient(context)
        self._lab = lab
        self._page: Page | None = None

    @contextmanager
    def lent(self) -> Iterator[Visit]:
        """Lend the page for a with block."""
        page = self._page = self._page or self._loaded()
        page.bring_to_front()
        tab = Visit(page, self._lab, stays=True)
        try:
            yield tab
        finally:
            tab.leave()
            if not self._is_cleared(page, tab):
                page.close()
                self._page = None

    def _loaded(self) -> Page:
        page = self._context.new_page()
        page.goto(f"{self._lab.origin}/lab?token={self._lab.token}&reset")
        page.wait_for_function("() => window.jupyterapp")
        page.evaluate("() => window.jupyterapp.restored")
        return page

    @staticmethod
    def _is_cleared(page: Page, tab: Visit) -> bool:
        if tab.errors or tab.dialogs or tab.foreign:
            return False
        try:
            page.evaluate(TIDY)
            page.wait_for_function(IS_TIDY, timeout=3_000)
        except PlaywrightError:
            return False
        return True
