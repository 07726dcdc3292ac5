"""A service from a notebook, as a person sees it: its card is kept up to date in place, and loses its key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FLOW = """%%serve --flow triage --out support_app
from nbllm import ask, flow

@flow
def triage(ticket: str) -> str:
    return ask(f"Which queue? {ticket}", model="sim/small").text"""
ASK = """import json, urllib.request
request = urllib.request.Request(
    f"{app.base_url}/flows/triage", json.dumps({"ticket": "The printer burns."}).encode(),
    {"Authorization": f"Bearer {app.key}", "Content-Type": "application/json"},
)
json.load(urllib.request.urlopen(request))"""


def test_the_card_of_a_running_app_follows_what_it_is_asked(tab: Visit, lab: Lab, pictures: Path) -> None:
    """One output, updated in place between cells: address and key first, then requests and cost without the key, then stopped."""
    cells = ["%load_ext nbllm", FLOW, "%serve up support_app -o app", ASK, "%serve stop"]
    tab.open(lab.write("service.ipynb", cells))
    card = ".jp-CodeCell >> nth=2"

    def run(number: int) -> None:
        tab.page.evaluate("(n) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = n; }", number)
        tab.command("notebook:run-cell")

    for number in range(3):
        run(number)
    tab.expect_text(card, "is up at http://127.0.0.1:")
    tab.expect_text(card, "no request yet")
    shown = tab.page.locator(card).inner_text()
    (key,) = re.findall(r"\b[\w-]{43}\b", shown)
    tab.page.screenshot(path=pictures / "service-light.png")
    tab.theme("JupyterLab Dark")
    tab.page.screenshot(path=pictures / "service-dark.png")
    height = tab.page.locator(card).bounding_box()
    run(3)
    tab.expect_text(card, "1 request")
    tab.expect_text(card, "1 call")
    after = tab.page.locator(card).inner_text()
    assert key not in after
    assert tab.page.locator(card).locator(".jp-OutputArea-output").count() == 1
    lower = tab.page.locator(card).bounding_box()
    assert height is not None
    assert lower is not None
    assert abs(lower["height"] - height["height"]) <= 60  # the note about the key goes with it
    run(4)
    tab.expect_text(card, "is stopped")
    tab.wait_idle()
    assert tab.error_texts() == []
    assert tab.foreign == []
