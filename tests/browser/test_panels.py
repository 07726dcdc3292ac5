"""A panel as a person uses it: in a real JupyterLab the slider moves, by mouse and by key, the picture follows, Apply writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit

SETUP = """
import os
os.environ["NBLLM_SIM_SPEED"] = "0"
%load_ext nbllm
%llm_config model=sim/large semantic_cache.mode=shadow semantic_cache.audit_share=0 semantic_cache.embed_timeout_s=30
import nbllm
WORDS = ("How do I boil {}", "How do I boil {}?", "How do I boil {}, please", "How can I boil {}?", "Please, how do I boil {}?",
         "How do I boil {} at home?", "Tell me how I boil {}", "How should I boil {}?")
for words in WORDS:
    for topic in ("an egg", "rice", "potatoes", "<b>carrots</b>", "pasta", "beans"):
        nbllm.ask(words.format(topic), model="sim/large")
book = nbllm.get_client().semantic
offered = sorted(book.to_label(1000), key=lambda match: (match.score, match.query))
for match in offered[:-5]:  # which ones wait is random else, and where the slider starts with it
    book.label(match, correct=match.score > 0.87)
"""
SOURCE = "() => document.querySelector('.jp-OutputArea img.widget-image').src"
STEPS = 3
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_the_slider_is_followed_and_apply_writes(tab: Visit, lab: Lab, pictures: Path) -> None:
    """Arrow keys move the slider, another picture and other numbers come, Apply writes nbllm.toml and says so, labels take keys."""
    folder = lab.work / "panels"
    folder.mkdir()
    (folder / "nbllm.toml").write_text("# ours\n", encoding="utf-8")
    name = lab.write("panels/panel.ipynb", [SETUP, "%llm_panel semantic_cache --max-error 20%"])
    tab.open(name)
    tab.run_all()
    assert tab.error_texts() == []
    page = tab.page
    page.wait_for_selector(".jp-OutputArea img.widget-image")
    handle = page.locator(".noUi-handle").first
    assert handle.get_attribute("role") == "slider"
    before, numbers = page.evaluate(SOURCE), page.locator(".jp-OutputArea table").first.inner_text()
    handle.focus()
    assert int(float(handle.get_attribute("aria-valuenow") or 0)) >= STEPS, "the slider has no room on its left"
    for _ in range(STEPS):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"before => ({SOURCE})() !== before", arg=before)
    page.wait_for_function("before => document.querySelector('.jp-OutputArea table').innerText !== before", arg=numbers)
    page.screenshot(path=pictures / "panel_semantic.png")
    keys = page.locator("input[placeholder='or type y n s q here']")
    keys.focus()
    page.keyboard.press("y")
    page.wait_for_selector("text=2 of 5")
    page.get_by_role("button", name="Copy settings").click()
    tab.expect_text("pre[tabindex='0']", 'mode = "on"')
    assert "mode" in page.evaluate("() => getSelection().toString()")
    page.get_by_text("Also where more than 20% may be wrong").click()
    page.get_by_role("button", name="Apply").click()
    tab.expect_text("pre[role=status]", "Applied, for this session and in")
    settings = tomllib.loads((folder / "nbllm.toml").read_text(encoding="utf-8"))
    assert settings == {"semantic_cache": {"mode": "on", "plan": "nbllm-semantic.json"}}
    assert (folder / "nbllm-semantic.json").is_file()
    assert (folder / "nbllm.toml").read_text(encoding="utf-8").startswith("# ours")
    assert tab.page.locator(".jp-OutputArea pre b").count() == 0
    assert tab.foreign == []
    assert tab.errors == []
