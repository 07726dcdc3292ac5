"""Kernels that run elsewhere: JupyterLab reaches them through its gateway, and the extension works as it does with its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import LAPTOP
from tests.browser.lab import Lab
from tests.browser.lab_panel import call_rows, expect_meter, finish_cell, load_and_point, open_panel, run_cell, section
from tests.browser.visit import visit
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

WHERE = "import os; print(os.environ['NBLLM_HOME'])"


@pytest.fixture
def near(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab without kernels of its own: they run on the other one."""
    gateway = (f"--GatewayClient.url={lab.origin}", f"--GatewayClient.auth_token={lab.token}")
    server = Lab(tmp_path_factory.mktemp("near"), *gateway)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def test_a_remote_kernel_has_meter_panel_badges_and_stop(browser: Browser, lab: Lab, near: Lab, upstream: FaultServer) -> None:
    """Through a gateway the kernel of another server is in the status bar, the panel and the cells, and its call can be stopped."""
    streamed = "%%llm -m up/drip --cache off\nGo on."
    cells = [load_and_point(up=upstream.base_url), "%%llm -m up/words --cache off\nMany words.", WHERE, streamed]
    name = near.write("remote.ipynb", cells)
    with closing(browser.new_context(viewport=LAPTOP)) as context, visit(context, near) as tab:
        tab.open(name)
        for number in (0, 1, 2):
            finish_cell(tab, number)
        assert tab.outputs(2).strip() == str(lab.home)
        expect_meter(tab, "$0.01")
        expect(tab.page.locator(".jp-nbllm-Badge-text")).to_have_text("$0.01")
        open_panel(tab)
        expect(call_rows(tab)).to_have_count(1)
        expect(call_rows(tab).locator(".jp-nbllm-Call-cell")).to_have_text("[2]")
        run_cell(tab, 3)
        expect_meter(tab, "tok/s")
        section(tab, "running").get_by_role("button", name="Stop up/drip").click()
        expect(call_rows(tab).first).to_have_attribute("data-status", "cancelled")
        assert [*tab.errors, *tab.dialogs, *tab.foreign] == []
