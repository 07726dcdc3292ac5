"""The meter and the panel while the network between page and server is away: marked, and true again afterwards."""

from __future__ import annotations

import copy
import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.cable import Cable
from tests.browser.conftest import LAPTOP
from tests.browser.lab import Lab
from tests.browser.lab_panel import (
    ASK,
    alarm,
    call_rows,
    expect_meter,
    finish_cell,
    meter,
    open_loaded,
    open_panel,
    run_cell,
    section,
)
from tests.browser.visit import Visit, visit
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

WHEN_TOLD = f"""
import pathlib, time
while not pathlib.Path("ask-now").exists(): time.sleep(0.05)
{ASK}
pathlib.Path("asked").touch()
"""


def test_a_page_whose_network_is_cut_says_so_and_catches_up(browser: Browser, lab: Lab, upstream: FaultServer) -> None:
    """Pulled out in the middle of a cell: the last numbers are marked as such; put back they are what the kernel did meanwhile."""
    lab.forget("ask-now", "asked")
    with closing(browser.new_context(viewport=LAPTOP)) as context, Cable(lab.port) as cable:
        there = copy.copy(lab)
        there.origin = f"http://127.0.0.1:{cable.port}"
        with visit(context, there) as tab:
            open_loaded(tab, upstream, "cut.ipynb", ASK, WHEN_TOLD)
            finish_cell(tab, 1)
            expect_meter(tab, "$0.01")
            panel = open_panel(tab)
            run_cell(tab, 2)
            cable.pull()
            expect(alarm(tab, "lost")).to_contain_text("○")
            expect(panel.get_by_role("status").filter(has_text="cannot be reached")).to_be_visible()
            expect(meter(tab).locator("button")).to_have_attribute("aria-label", re.compile("cannot be reached"))
            expect_meter(tab, "$0.01")
            (lab.work / "ask-now").touch()
            tab.wait_for((lab.work / "asked").exists)
            cable.plug_in()
            expect(alarm(tab, "none")).to_contain_text("$0.02")
            expect(call_rows(tab)).to_have_count(2)
            expect(panel).not_to_contain_text("cannot be reached")
            assert [*tab.errors, *tab.foreign] == []


def test_a_browser_that_goes_offline_and_online_goes_on(fresh: Visit, upstream: FaultServer) -> None:
    """Offline in mid-stream nothing arrives and nothing fails; online again the call counts on and can be stopped."""
    open_loaded(fresh, upstream, "offline.ipynb", "%%llm -m up/drip --cache off\nGo on.")
    open_panel(fresh)
    run_cell(fresh, 1)
    expect_meter(fresh, "tok/s")
    network = fresh.page.context.new_cdp_session(fresh.page)
    speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", {"offline": True, **speed})
    fresh.page.wait_for_function("() => !navigator.onLine")
    before = meter(fresh).inner_text()
    network.send("Network.emulateNetworkConditions", {"offline": False, **speed})
    expect(meter(fresh)).not_to_have_text(before)
    expect_meter(fresh, "tok/s")
    section(fresh, "running").get_by_role("button", name="Stop up/drip").click()
    expect(call_rows(fresh).first).to_have_attribute("data-status", "cancelled")
    assert fresh.errors == []
