"""A JupyterLab and a browser for the tests of this folder, or a skip that says why there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from scripts.browser_env import find
from tests.browser.lab import QUIET_CHROMIUM, ROOT, Lab, Visit, visit

expect.set_options(timeout=30_000)  # a page on a machine that stalls; what holds is seen at once


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


@pytest.fixture
def tab(browser: Browser, lab: Lab) -> Iterator[Visit]:
    """A fresh page, as wide as a laptop."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        with visit(context, lab) as page:
            yield page
    finally:
        context.close()


@pytest.fixture
def labextension() -> None:
    """Skips where the JupyterLab extension has not been built."""
    if not (ROOT / "nbllm" / "_labextension" / "package.json").exists():
        pytest.skip("the JupyterLab extension is not built: make labextension")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: build/screenshots, so that a person can look at them afterwards."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
