"""The commands of the JupyterLab extension, in a real JupyterLab: the kernel does what menu and dialogs say."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab
from tests.browser.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200), pytest.mark.usefixtures("labextension")]

LABEL = "([id, args]) => window.jupyterapp.commands.label(id, args)"
ENABLED = "([id, args]) => window.jupyterapp.commands.isEnabled(id, args)"
TOGGLED = "mode => window.jupyterapp.commands.isToggled('nbllm:cache-mode', {mode})"
COMMANDS = ("set-session-budget", "clear-cache", "cache-mode", "open-plots", "copy-report")
ACTIVE = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const cell = panel.content.activeCell;
  const [box, view] = [cell.node.getBoundingClientRect(), panel.content.node.getBoundingClientRect()];
  return {
    source: cell.model.sharedModel.source,
    inSight: box.bottom > view.top && box.top < view.bottom,
  };
}"""
IDS = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.id)"
PATH = "() => window.jupyterapp.shell.currentWidget?.context?.path"


def notice(tab: Visit, text: str | re.Pattern[str]) -> Locator:
    """The notification that says this, which must come."""
    said = tab.page.locator(".Toastify__toast").filter(has_text=text)
    expect(said.first).to_be_visible()
    return said.first


def live(tab: Visit) -> None:
    """Wait until the front end has heard from the kernel."""
    tab.page.wait_for_function("() => window.jupyterapp.commands.isEnabled('nbllm:copy-report')")


def badge(tab: Visit, number: int) -> Locator:
    """The badge of a code cell."""
    return tab.page.locator(".jp-CodeCell").nth(number).locator(".jp-nbllm-Badge-text")


def test_commands_are_off_and_say_why_without_nbllm(tab: Visit, lab: Lab) -> None:
    """In a notebook that has not loaded nbllm all are disabled with the reason in their label; after %load_ext they are not."""
    tab.open(lab.write("off.ipynb", ["%load_ext nbllm"]))
    for name in COMMANDS:
        assert tab.page.evaluate(ENABLED, [f"nbllm:{name}", {}]) is False
        assert "nbllm is not loaded" in tab.page.evaluate(LABEL, [f"nbllm:{name}", {}])
    tab.run_all()
    live(tab)
    for name in COMMANDS:
        assert tab.page.evaluate(ENABLED, [f"nbllm:{name}", {}]) is True
        assert "(" not in tab.page.evaluate(LABEL, [f"nbllm:{name}", {}])


def test_the_session_budget_is_set_from_the_menu(tab: Visit, lab: Lab) -> None:
    """What is no amount is asked for again; then the status bar shows the limit, and the kernel refuses a call beyond it."""
    tab.open(lab.write("budget.ipynb", ["%load_ext nbllm", "%%llm -m sim/large --cache off -o a\nHow much may I spend?"]))
    tab.run_all()
    live(tab)
    tab.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    tab.page.locator(".lm-Menu-itemLabel", has_text="LLM Session").hover()
    tab.page.locator(".lm-Menu-itemLabel", has_text="Set Session Budget").click()
    dialog = tab.page.locator(".jp-Dialog")
    dialog.locator("input").fill("five")
    tab.page.keyboard.press("Enter")
    expect(dialog).to_contain_text("“five” is no amount")
    dialog.locator("input").fill("0.0001")
    tab.page.keyboard.press("Enter")
    notice(tab, re.compile("session", re.IGNORECASE))
    tab.expect_text(".jp-nbllm-Meter", "of $0.0001")
    tab.page.locator(".jp-CodeCell .cm-content").nth(1).click()
    tab.command("notebook:run-cell")
    expect(tab.page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea")).to_contain_text(re.compile("budget", re.IGNORECASE))
    assert not tab.errors


def test_the_cache_of_a_notebook_is_switched_and_cleared(tab: Visit, lab: Lab) -> None:
    """Refresh asks anew; clearing says how many answers would go, asks, says how many are gone, and the next run asks anew."""
    tab.open(lab.write("cache.ipynb", ["%load_ext nbllm", "%%llm -m sim/small -o a\nWhat does a cache keep?"]))
    tab.run_all()
    live(tab)
    expect(badge(tab, 1)).to_contain_text("$")
    tab.run_all()
    expect(badge(tab, 1)).to_have_text("cache")
    tab.command("nbllm:cache-mode", {"mode": "refresh"})
    notice(tab, "asked anew")
    tab.page.wait_for_function(TOGGLED, arg="refresh")
    tab.run_all()
    expect(badge(tab, 1)).to_contain_text("$")
    tab.command("nbllm:cache-mode", {"mode": "default"})
    tab.page.wait_for_function(TOGGLED, arg="default")
    tab.run_all()
    expect(badge(tab, 1)).to_have_text("cache")
    tab.command("nbllm:clear-cache")
    expect(tab.page.locator(".jp-Dialog")).to_contain_text("1 stored answer that calls of cache.ipynb made or used is dropped.")
    tab.page.get_by_role("button", name="Cancel").click()
    tab.run_all()
    expect(badge(tab, 1)).to_have_text("cache")
    tab.command("nbllm:clear-cache")
    tab.page.get_by_role("button", name="Clear Cache").click()
    notice(tab, re.compile(r"\b1 stored answer"))
    tab.run_all()
    expect(badge(tab, 1)).to_contain_text("$")


def test_the_report_is_copied_as_markdown(tab: Visit, lab: Lab) -> None:
    """The clipboard holds a Markdown report that names the model and no word of prompt or answer."""
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.open(lab.write("report.ipynb", ["%load_ext nbllm", "%%llm -m sim/large\nTell me of xylophones."]))
    tab.run_all()
    live(tab)
    tab.command("nbllm:copy-report")
    notice(tab, "clipboard")
    report = tab.page.evaluate("() => navigator.clipboard.readText()")
    assert report.startswith("#")
    assert "sim/large" in report
    assert "xylophone" not in report.lower()


def test_plots_come_in_a_new_cell_below(tab: Visit, lab: Lab) -> None:
    """The plot is a cell of its own below the active one, run, in sight, and the notebook's cells stay as they were."""
    tab.open(lab.write("plots.ipynb", ["%load_ext nbllm", "%%llm -m sim/small\nHi", "last = 1"]))
    tab.run_all()
    live(tab)
    tab.page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt").click()
    tab.command("nbllm:open-plots", {"kind": "cost"})
    cell = tab.page.locator(".jp-CodeCell").nth(2)
    expect(cell.locator(".jp-OutputArea img")).to_be_visible()
    expect(cell.locator(".cm-content")).to_have_text("%llm_plot cost")
    assert tab.page.locator(".jp-CodeCell").count() == 4
    tab.page.wait_for_function(f"() => ({ACTIVE})().inSight")


def test_a_call_leads_back_to_its_cell(tab: Visit, lab: Lab) -> None:
    """The jump shows and activates the cell of a long notebook, opens no other, and says when the cell is gone."""
    name = lab.write("jump.ipynb", ["%load_ext nbllm", *(f"# {number}" + "\n" * 8 for number in range(40))])
    tab.open(name)
    ids = tab.page.evaluate(IDS)
    tab.command("nbllm:jump-to-cell", {"cellId": ids[35], "notebook": None})
    tab.page.wait_for_function(f"() => ({ACTIVE})().inSight")
    assert tab.page.evaluate(ACTIVE)["source"].startswith("# 34")
    tab.command("docmanager:open", {"path": lab.write("other.ipynb", ["1"])})
    tab.page.wait_for_function(f"() => ({PATH})() === 'other.ipynb'")
    tab.command("nbllm:jump-to-cell", {"cellId": ids[3], "notebook": None})
    tab.page.wait_for_function(f"() => ({PATH})() === {name!r} && ({ACTIVE})().inSight")
    assert tab.page.evaluate(ACTIVE)["source"].startswith("# 2")
    tab.command("nbllm:jump-to-cell", {"cellId": "gone", "notebook": None})
    notice(tab, "not in the notebook any more")
    tab.command("nbllm:jump-to-cell", {"cellId": ids[35], "notebook": "0" * 16})
    notice(tab, "not open here")
    tab.command("nbllm:jump-to-cell", {"cellId": {"x": 1}})
    assert not tab.errors
