"""A JupyterLab and a browser for the tests of this folder, or a skip that says why there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from scripts.browser_env import find
from tests.browser.lab import QUIET_CHROMIUM, ROOT, Lab
from tests.browser.visit import SharedPage, Visit, visit
from tests.fault_behaviours import drip, ok
from tests.fault_server import FaultServer

LAPTOP = {"width": 1280, "height": 900}
USAGE = {"prompt_tokens": 10, "completion_tokens": 90, "total_tokens": 100}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The server that the tests share; the example notebooks lie in its folder."""
    if find() is None:
        pytest.skip("no Chromium: install the package chromium, or set CHROMIUM")
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        shutil.copytree(ROOT / "notebooks", server.work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def browser(lab: Lab) -> Iterator[Browser]:
    """Headless Chromium, told to ask the network for nothing of its own."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=find(), args=list(QUIET_CHROMIUM))
        try:
            yield chromium
        finally:
            chromium.close()


@pytest.fixture(scope="session")
def shared_page(browser: Browser, lab: Lab) -> SharedPage:
    """The page that most tests have one after the other, as wide as a laptop."""
    return SharedPage(browser.new_context(viewport=LAPTOP), lab)


@pytest.fixture(scope="session")
def behind(lab: Lab) -> Iterator[Callable[[], None]]:
    """Ends the sessions of a test, which nobody has to wait for. One that could not be ended fails the last test."""
    ended: list[Future[None]] = []
    with ThreadPoolExecutor(1) as one:
        yield lambda: ended.append(one.submit(lab.end, lab.sessions()))
    for future in ended:
        future.result()


@pytest.fixture
def tab(shared_page: SharedPage, behind: Callable[[], None]) -> Iterator[Visit]:
    """JupyterLab with nothing open, in a page that other tests had before."""
    with shared_page.lent() as page:
        yield page
    behind()


@pytest.fixture
def fresh(browser: Browser, lab: Lab, behind: Callable[[], None]) -> Iterator[Visit]:
    """A page of the test's own: for what has to be there when it is loaded, for reloads, and for what spoils a page."""
    context = browser.new_context(viewport=LAPTOP)
    try:
        with visit(context, lab) as page:
            yield page
    finally:
        context.close()
    behind()


@pytest.fixture
def labextension() -> None:
    """Skips where the JupyterLab extension has not been built."""
    if not (ROOT / "nbllm" / "_labextension" / "package.json").exists():
        pytest.skip("the JupyterLab extension is not built: make labextension")


@pytest.fixture
def pictures() -> Path:
    """Where screenshots go: build/screenshots, so that a person can look at them afterwards."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server whose words cost a cent, and whose drip does not end."""
    with FaultServer() as server:
        server.script("words", [ok(usage=USAGE)])
        server.script("drip", [drip(pace_s=0.02, tokens=100_000)])
        yield server
