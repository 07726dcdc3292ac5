"""Several notebooks, kernels and pages at once in a real JupyterLab: each shows its own numbers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab
from tests.browser.lab_panel import (
    ASK,
    call_rows,
    expect_meter,
    finish_cell,
    load_and_point,
    meter,
    open_loaded,
    open_panel,
    run_cell,
    section,
)
from tests.browser.visit import Visit
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

FRONT = """path => {
  const panel = window.jupyterapp.shell.currentWidget;
  return panel?.context?.path === path && panel.sessionContext.session?.kernel?.status === 'idle';
}"""
CLOSE = """async path => {
  const all = [...window.jupyterapp.shell.widgets('main')];
  const one = all.find(widget => widget.context?.path === path);
  await one.context.save();
  one.dispose();
}"""
KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"


def bring(tab: Visit, name: str, kernel: str | None = None) -> None:
    """Bring a notebook to the front, opened if it is not; kernel: the id of the one to use."""
    tab.command("docmanager:open", {"path": name, **({"kernel": {"id": kernel}} if kernel else {})})
    tab.page.wait_for_function(FRONT, arg=name)


def open_and_spend_a_cent(tab: Visit, upstream: FaultServer, name: str) -> str:
    """Open a new notebook with one call, which is made and may be made again in cell 1, and the panel; return its name."""
    open_loaded(tab, upstream, name, ASK)
    finish_cell(tab, 1)
    expect_meter(tab, "$0.01")
    open_panel(tab)
    return name


def test_the_meter_follows_the_notebook_in_front(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Two notebooks with two kernels: each has its own cost and its own calls, and none before it has loaded nbllm."""
    two = lab.write("two.ipynb", [load_and_point(up=upstream.base_url), ASK, ASK])
    one = open_and_spend_a_cent(tab, upstream, "one.ipynb")
    bring(tab, two)
    expect(meter(tab)).to_have_count(0)
    expect(tab.page.locator(".jp-nbllm-Panel")).to_contain_text("has not loaded nbllm")
    for number in (0, 1, 2):
        finish_cell(tab, number)
    expect_meter(tab, re.compile(r"^\W*\$0\.02(?!\d)"))
    expect(call_rows(tab)).to_have_count(2)
    bring(tab, one)
    expect_meter(tab, re.compile(r"^\W*\$0\.01(?!\d)"))
    expect(call_rows(tab)).to_have_count(1)
    assert tab.errors == []


def test_two_notebooks_and_a_console_on_one_kernel(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """They share the session's cost; each lists its own calls, or on request those of the kernel; the console lists all.

    The second goes on when the first, whose connection has the comms of the page, is closed.
    """
    two = lab.write("shared-two.ipynb", [ASK, ASK])
    one = open_and_spend_a_cent(tab, upstream, "shared-one.ipynb")
    expect(call_rows(tab)).to_have_count(1)
    bring(tab, two, tab.page.evaluate(KERNEL))
    expect_meter(tab, "$0.01")
    finish_cell(tab, 0)
    finish_cell(tab, 1)
    expect_meter(tab, "$0.03")
    expect(call_rows(tab)).to_have_count(2)
    section(tab, "calls").get_by_role("combobox").select_option("kernel")
    expect(call_rows(tab)).to_have_count(3)
    expect(call_rows(tab).last).to_contain_text("other")
    bring(tab, one)
    expect(call_rows(tab)).to_have_count(1)
    expect_meter(tab, "$0.03")
    tab.command("notebook:create-console")
    expect(tab.page.locator(".jp-CodeConsole")).to_be_visible()
    expect(call_rows(tab)).to_have_count(3)
    expect_meter(tab, "$0.03")
    tab.page.evaluate(CLOSE, one)
    bring(tab, two)
    finish_cell(tab, 1)
    expect_meter(tab, "$0.04")
    expect(call_rows(tab)).to_have_count(3)
    assert tab.errors == []


def test_a_page_that_is_reloaded_while_a_cell_runs_is_live_at_once(fresh: Visit, upstream: FaultServer) -> None:
    """After the reload the running call is there, counts on, and is stopped from the panel, although the cell still runs."""
    open_loaded(fresh, upstream, "reload.ipynb", "%%llm -m up/drip --cache off\nGo on.")
    run_cell(fresh, 1)
    expect_meter(fresh, "tok/s")
    fresh.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")
    fresh.page.reload()
    expect_meter(fresh, "tok/s")
    open_panel(fresh)
    stop = section(fresh, "running").get_by_role("button", name="Stop up/drip")
    stop.click()
    expect(call_rows(fresh).first).to_have_attribute("data-status", "cancelled")
    fresh.wait_for(lambda: upstream.requests[0].closed_at is not None)


def test_a_connection_that_comes_back_goes_on(tab: Visit, upstream: FaultServer) -> None:
    """After the page's connection to its kernel was made anew, the meter has what it had, and follows the next call."""
    open_loaded(tab, upstream, "reconnect.ipynb", ASK)
    finish_cell(tab, 1)
    expect_meter(tab, "$0.01")
    tab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect()")
    tab.wait_idle()
    finish_cell(tab, 1)
    expect_meter(tab, "$0.02")
    assert tab.errors == []


def in_console(tab: Visit, code: str) -> None:
    """Run a line in the console in front, as it is typed there, and wait for its end."""
    tab.page.locator(".jp-CodeConsole-promptCell .cm-content").click()
    tab.page.keyboard.insert_text(code)
    before = tab.page.locator(".jp-CodeConsole-content .jp-CodeCell").count()
    tab.page.keyboard.press("Shift+Enter")
    expect(tab.page.locator(".jp-CodeConsole-content .jp-CodeCell")).to_have_count(before + 1)
    expect(tab.page.locator(".jp-CodeConsole-content .jp-InputPrompt").last).to_have_text(re.compile(r"\[\d+\]:"))


def test_a_console_on_a_notebooks_kernel_adds_to_its_session(tab: Visit, upstream: FaultServer) -> None:
    """What is asked in the console is the kernel's: it counts in both, and the console lists it beside the notebook's calls."""
    open_and_spend_a_cent(tab, upstream, "with-console.ipynb")
    expect(section(tab, "calls").get_by_role("combobox")).to_have_count(1)
    tab.command("notebook:create-console")
    expect(tab.page.locator(".jp-CodeConsole")).to_be_visible()
    expect(call_rows(tab)).to_have_count(1)
    expect(section(tab, "calls").get_by_role("combobox")).to_have_count(0)  # the kernel knows the console
    in_console(tab, ASK)
    expect_meter(tab, "$0.02")
    expect(call_rows(tab)).to_have_count(2)
    bring(tab, "with-console.ipynb")
    expect_meter(tab, "$0.02")
    assert tab.errors == []


def test_a_console_of_its_own_has_its_own_session(tab: Visit, upstream: FaultServer) -> None:
    """A console with its own kernel shows nothing before it has loaded nbllm, then its own calls; the notebook keeps its own."""
    open_and_spend_a_cent(tab, upstream, "beside-console.ipynb")
    tab.command("console:create", {"kernelPreference": {"name": "python3"}})
    expect(tab.page.locator(".jp-CodeConsole")).to_be_visible()
    expect(meter(tab)).to_have_count(0)
    tab.wait_idle()
    in_console(tab, load_and_point(up=upstream.base_url))
    expect_meter(tab, "$0.00")
    expect(section(tab, "calls")).to_contain_text("No calls yet")
    in_console(tab, ASK)
    in_console(tab, ASK)
    expect_meter(tab, "$0.02")
    expect(call_rows(tab)).to_have_count(2)
    bring(tab, "beside-console.ipynb")
    expect_meter(tab, "$0.01")
    expect(call_rows(tab)).to_have_count(1)
    assert tab.errors == []
