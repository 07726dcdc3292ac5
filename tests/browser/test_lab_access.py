"""The extension for who does not see it or has no mouse: Chromium's own accessibility tree, live regions, keys only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab_panel import call_rows, expect_meter, finish_cell, open_loaded, open_panel, run_cell, section
from tests.browser.visit import Visit
from tests.fault_behaviours import drip, error, ok
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

WORKS = {"button", "searchbox", "combobox", "checkbox", "link", "textbox", "meter", "image", "row", "treegrid", "list", "region"}
"""Roles that say nothing without a name."""
COLUMNS = {"Model", "Rung", "Source", "TTFT", "Latency", "Cost", "Cell"}
CHATTER = """() => {
  const live = '[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], [role=timer], [role=marquee], output';
  const own = '.jp-nbllm-Panel, .jp-nbllm-Meter, .jp-nbllm-Badge';
  window.chatter = [];
  new MutationObserver(all => all.forEach(({ target }) => {
    const element = target instanceof Element ? target : target.parentElement;
    if (element?.closest(own) && element.closest(live)) window.chatter.push(element.closest(live).textContent);
  })).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
FIVE_FAIL = """
for n in range(6):
    try:
        nbllm.ask(f"Hi {n}", model="up/broken", cache="off", retries=0)
    except Exception:
        pass
"""


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server that answers, one that fails, and a drip that does not end."""
    with FaultServer() as server:
        server.script("quick", [ok()])
        server.script("broken", [error(503, "busy")])
        server.script("drip", [drip(pace_s=0.02, tokens=100_000)])
        yield server


class Heard:
    """What a screen reader is told of a part of the page."""

    def __init__(self, tab: Visit) -> None:
        session = tab.page.context.new_cdp_session(tab.page)
        self._nodes = {node["nodeId"]: node for node in session.send("Accessibility.getFullAXTree")["nodes"]}
        session.detach()

    def below(self, role: str, name: str) -> list[tuple[str, str, str]]:
        """Return role, name and what else is said of each element below the one with this role and name, in their order."""
        (root,) = [key for key, node in self._nodes.items() if said(node, "role") == role and said(node, "name") == name]
        return list(self._walk(root))

    def all(self, role: str, name: re.Pattern[str]) -> list[str]:
        """Return the names of all elements of a role that have such a name."""
        return [
            said(node, "name") for node in self._nodes.values() if said(node, "role") == role and name.search(said(node, "name"))
        ]

    def _walk(self, key: str) -> Iterator[tuple[str, str, str]]:
        node = self._nodes.get(key, {"ignored": True})
        if not node["ignored"]:
            more = [said(one, "value") for one in node.get("properties", []) if one["name"] == "valuetext"]
            yield said(node, "role"), said(node, "name"), " ".join([said(node, "description"), said(node, "value"), *more]).strip()
        for child in node.get("childIds", []):
            yield from self._walk(child)


def said(node: dict[str, Any], what: str) -> str:
    """Return a text of a node, "" without one."""
    return str(node.get(what, {}).get("value", ""))


def test_all_of_it_has_a_role_and_a_name_in_words(tab: Visit, upstream: FaultServer) -> None:
    """Buttons, bars, lights, rows, columns, the meter and badges say in words what they are and how they do, not by colour."""
    hi, drip_on = "%%llm -m up/quick --cache off\nHi.", "%llm_budget session 5\nnbllm.ask('Hi', model='up/drip', cache='off')"
    limits = ("%llm_budget session 0.003 --soft 50%", "%llm_budget session 0.001")
    open_loaded(tab, upstream, "heard.ipynb", hi, FIVE_FAIL, *limits, drip_on)
    for number in (1, 2, 3):
        finish_cell(tab, number)
    open_panel(tab)
    expect(section(tab, "endpoints")).to_contain_text("breaker open")
    expect_limit_in_words(tab, "Soft limit of $0.0015 reached.")
    finish_cell(tab, 4)
    expect_limit_in_words(tab, "Limit reached: further calls are refused.")
    run_cell(tab, 5)
    stop = section(tab, "running").get_by_role("button", name="Stop up/drip")
    expect(stop).to_be_visible()
    heard = Heard(tab)
    check_panel_in_words(heard.below("region", "LLM calls"))
    (badge,) = heard.all("image", re.compile("^LLM call"))
    assert badge == "LLM call: up/quick, $0.0017, model"
    (meter,) = heard.all("button", re.compile("^nbllm:"))
    assert "Not asked for a while after failures: up/broken." in meter
    assert "Opens the panel." in meter
    stop.click()
    expect(section(tab, "running")).to_contain_text("Nothing is running")


def expect_limit_in_words(tab: Visit, warning: str) -> None:
    """Wait until the session's budget warns, and hold its bar to saying so, with what was spent."""
    expect(section(tab, "session")).to_contain_text(warning)
    ((name, words),) = [(n, w) for role, n, w in Heard(tab).below("region", "LLM calls") if role == "meter"]
    assert name == "Budget: Session"
    assert "spent $0.0017" in words
    bar = section(tab, "session").get_by_role("meter")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^\$0\.0017 of \$0\.00\d\. " + re.escape(warning)))


def check_panel_in_words(panel: list[tuple[str, str, str]]) -> None:
    """Hold what is heard of the panel to names for all that can be used, and to words for what its lights and rows show."""
    nameless = [(role, words) for role, name, words in panel if role in WORKS and not name.strip() and role != "row"]
    assert nameless == []
    names = [(role, name) for role, name, _ in panel]
    assert {name for role, name in names if role == "columnheader"} == COLUMNS
    assert ("button", "Stop up/drip") in names
    assert ("list", "Calls under way") in names
    assert ("treegrid", "Last calls, newest first") in names
    rows = [name for role, name in names if role == "row" and "$" in name]
    assert any(re.search(r"up/quick.*model.*\$0\.0017.*\[2\]", name) for name in rows)
    assert sum("failed" in name for name in rows) == 6
    words = " ".join(name for role, name in names if role == "StaticText")
    for word in ("Cost of this session:", "breaker open", "ok", "% of", "failed"):
        assert word in words


def test_live_regions_are_quiet_while_numbers_change(tab: Visit, upstream: FaultServer) -> None:
    """While a call streams, tokens, time and cost change many times; none of it is read aloud by itself."""
    open_loaded(tab, upstream, "quiet.ipynb", "%%llm -m up/drip --cache off\nGo on.")
    open_panel(tab)
    tab.page.evaluate(CHATTER)
    run_cell(tab, 1)
    facts = section(tab, "running").locator(".jp-nbllm-Running-facts")
    seen = set()
    while len(seen) < 15:
        seen.add(facts.inner_text())
    section(tab, "running").get_by_role("button", name="Stop up/drip").click()
    expect(call_rows(tab)).to_have_count(1)
    assert tab.page.evaluate("() => window.chatter.filter(text => text.trim())") == []


def test_keys_alone_are_enough(tab: Visit, upstream: FaultServer) -> None:
    """From the palette into the panel, to the filter, to a call, to its cell, and to Stop: no mouse."""
    quick = "%%llm -m up/quick --cache off\nHi."
    between = ["# between" + "\n" * 20] * 4
    open_loaded(tab, upstream, "keys.ipynb", quick, *between, "%%llm -m up/drip --cache off\nGo on.")
    finish_cell(tab, 1)
    run_cell(tab, 6)
    expect_meter(tab, "tok/s")
    keys = tab.page.keyboard
    keys.press("Control+Shift+C")
    expect(tab.page.locator(".lm-CommandPalette-input")).to_be_focused()
    keys.insert_text("Show LLM Calls")
    expect(tab.page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text("Show LLM Calls")
    keys.press("Enter")
    expect(tab.page.locator(".jp-nbllm-Panel")).to_be_focused()
    walk_to(tab, section(tab, "calls").get_by_role("searchbox"))
    keys.insert_text("nothing like this")
    expect(section(tab, "calls")).to_contain_text("No call matches the filter")
    keys.press("Escape")
    keys.insert_text("quick")
    expect(call_rows(tab)).to_have_count(1)
    walk_to(tab, call_rows(tab).first)
    keys.press("Enter")
    expect(section(tab, "calls").locator(".jp-nbllm-Why pre")).to_be_visible()
    tab.page.wait_for_function("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex === 1")
    tab.command("nbllm:open-panel")
    walk_to(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    keys.press("Enter")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    assert tab.errors == []


def walk_to(tab: Visit, target: Locator, most: int = 40) -> None:
    """Press Tab until this has the focus."""
    for _ in range(most):
        if target.evaluate("element => element === document.activeElement"):
            return
        tab.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {target}: {tab.page.evaluate('document.activeElement.outerHTML')[:200]}")
