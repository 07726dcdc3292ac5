"""The JupyterLab extension in Notebook 7, which has the same plugins, no status bar, and errors of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab
from tests.browser.test_lab_cells import badge, calls, expect_languages
from tests.browser.visit import Visit

pytest.importorskip("notebook")
pytestmark = [pytest.mark.browser, pytest.mark.timeout(200), pytest.mark.usefixtures("labextension")]

ITS_OWN = {
    # A settings schema is looked up before the plugin that brings it is loaded.
    "Cannot read properties of undefined (reading 'schema')",
    # Its notebook page opens a path in a file browser that only its tree page has.
    "Command 'filebrowser:open-path' not registered.",
}
"""What Notebook 7.6 logs whenever it opens a notebook, with and without this extension."""


def test_notebook_7_has_badges_prompts_and_the_panel(fresh: Visit, lab: Lab, pictures: Path) -> None:
    """The same extension in Notebook 7: badges and prompts at cells, the menu, the panel that it opens; no error but its own."""
    fresh.load(lab.write("seven.ipynb", calls("sevens")[:3]), app="notebooks")
    fresh.run_all()
    expect(badge(fresh, 1)).to_contain_text("$0.000")
    expect(badge(fresh, 2)).to_contain_text("cache")
    expect_languages(fresh, "python", "nbllm", "nbllm")
    fresh.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    fresh.page.locator(".lm-Menu-itemLabel", has_text="LLM Session").hover()
    fresh.page.locator(".lm-Menu-itemLabel", has_text="Show LLM Calls").click()
    expect(fresh.page.locator("#jp-right-stack").get_by_text("sim/large").first).to_be_visible()
    fresh.page.screenshot(path=pictures / "notebook-7.png")
    assert set(fresh.errors) <= ITS_OWN
    assert [*fresh.dialogs, *fresh.foreign] == []


def test_its_errors_are_its_own(fresh: Visit, lab: Lab) -> None:
    """Without the extension Notebook 7 logs the same errors: this list gets shorter when it is mended there, and never longer."""
    with lab.page_config(disabledExtensions={"nbllm-lab": True}):
        fresh.load(lab.write("bare-seven.ipynb", ["%load_ext nbllm"]), app="notebooks")
    fresh.run_all()
    assert fresh.page.locator(".jp-nbllm-Panel").count() == 0
    assert set(fresh.errors) == ITS_OWN
