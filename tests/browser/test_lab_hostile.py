"""Hostile names, features, errors and answers in every field of the JupyterLab extension: all of it is text, none of it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab
from tests.browser.lab_panel import (
    call_rows,
    finish_cell,
    meter,
    open_loaded,
    open_panel,
    run_cell,
    section,
    shown_calls,
    wait_cell,
)
from tests.browser.visit import Visit
from tests.fault_behaviours import drip, error, ok
from tests.fault_server import FaultServer
from tests.hostile_answers import HOSTILE_ANSWERS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300), pytest.mark.usefixtures("labextension")]

ATTACK = "<img src=x onerror=alert('name')>"
ATTACKS = [text for text in dict.fromkeys(HOSTILE_ANSWERS) if text.strip() and len(text) < 150]
NAMES = [text for text in ATTACKS if text.strip() == text and text.isprintable() and "?" not in text]
"""Those that can be the name of a model."""
MOST_SCOPES = 90
FOUND = """() => {
  const own = '.jp-nbllm-Panel, .jp-nbllm-Meter, .jp-nbllm-Badge';
  const forbidden = 'script, iframe, object, embed, form, link, meta, base, style, img, video, audio, a, math, marquee';
  const bad = [];
  for (const part of document.querySelectorAll(own))
    for (const node of part.querySelectorAll('*'))
      if (node.matches(forbidden) || [...node.attributes].some(({ name }) => /^(on|src|href|srcdoc|action)/i.test(name)))
        bad.push(node.outerHTML.slice(0, 200));
  return bad;
}"""
UNFOLD = """async ([from, to]) => {
  const rows = [...document.querySelectorAll('.jp-nbllm-Panel [role=row][data-call]')].slice(from, to);
  let told = 0;
  for (const row of rows) {
    row.click();
    for (let tries = 0; tries < 200 && !document.querySelector('.jp-nbllm-Why pre'); tries++)
      await new Promise(requestAnimationFrame);
    told += document.querySelectorAll('.jp-nbllm-Why pre').length;
    row.click();
    await new Promise(requestAnimationFrame);
  }
  return told;
}"""
ASK_ALL = """
import json
for n, (text, name) in enumerate(zip(json.loads({texts!r}), json.loads({names!r}))):
    for model in (f"up/{{name}}", f"up/error{{n}}"):
        try:
            nbllm.ask(text, model=model, feature=text[:100], user=text[:100], cache="off", retries=0)
        except Exception as exc:
            pass
"""

LIMIT_ALL = """
import json
for n, name in enumerate(json.loads({names!r})):
    nbllm.get_client().set_budget(("feature", "user")[n % 2], 5, name=name)
%llm_budget
"""
RENDERED = """() => [...document.querySelectorAll('.jp-RenderedMarkdown *')].filter(node =>
  node.matches('script, iframe, object, embed, form, link, meta, base, style, img, video, audio, math, marquee')
  || [...node.attributes].some(({ name, value }) => /^(on|src)/i.test(name) || (name === 'href' && !/^#/.test(value)))
).map(node => node.outerHTML.slice(0, 200))"""


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server whose answers, errors and model names are attacks."""
    with FaultServer() as server:
        for number, text in enumerate(ATTACKS):
            server.script(f"error{number}", [error(400, text)])
        for name, text in zip(NAMES, ATTACKS, strict=False):
            server.script(name, [ok(text)])
        server.script(ATTACK, [drip(pace_s=0.02, tokens=100_000)])
        yield server


def test_there_are_enough_attacks() -> None:
    """At least 100 texts, and many that can be a model's name."""
    assert len(ATTACKS) >= 100
    assert len(NAMES) >= 60


def test_no_field_runs_what_it_shows(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """100+ hostile models, features, errors, answers, a hostile notebook, budgets of features and users with hostile names.

    In rows, reasons, bars, endpoints and tooltips all of it is text; and so it is in the report, wherever that is pasted.
    """
    names = [NAMES[number % len(NAMES)] for number in range(len(ATTACKS))]
    asked = ASK_ALL.format(texts=json.dumps(ATTACKS), names=json.dumps(names))
    endless = f"nbllm.ask('Hi', model={f'up/{ATTACK}'!r}, cache='off')"
    limits = LIMIT_ALL.format(names=json.dumps(ATTACKS[:MOST_SCOPES]))
    open_loaded(tab, upstream, f"{ATTACK}.ipynb", asked, endless, limits)
    panel = open_panel(tab)
    finish_cell(tab, 1)
    expect(call_rows(tab)).to_have_count(200)
    shown = {row["model"] for row in shown_calls(tab)}
    assert len(shown & {f"up/{name}" for name in names}) > 40
    for first in range(0, 200, 25):
        assert tab.page.evaluate(UNFOLD, [first, first + 25]) >= 20
        assert tab.page.evaluate(FOUND) == []
    meter(tab).hover()
    section(tab, "calls").get_by_role("searchbox").fill(ATTACK)
    section(tab, "calls").get_by_role("searchbox").fill("")
    run_cell(tab, 2)
    expect(section(tab, "running")).to_contain_text("<img src=x")
    assert tab.page.evaluate(FOUND) == []
    section(tab, "running").get_by_role("button", name="Stop").click()
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    expect(panel.locator(".jp-nbllm-Panel-title")).to_contain_text("<img src=x")
    wait_cell(tab, 2)
    finish_cell(tab, 3)
    expect(section(tab, "session").locator(".jp-nbllm-Budget")).to_have_count(MOST_SCOPES)
    expect(section(tab, "session")).to_contain_text("<script>")
    assert tab.page.evaluate(FOUND) == []
    report = copied_report(tab)
    assert "&#60;" in report
    assert tab.page.evaluate("window.pwned") == []
    tab.open(lab.write("pasted.ipynb", [f"from IPython.display import Markdown, display\ndisplay(Markdown({report!r}))"]))
    finish_cell(tab, 0)
    expect(tab.page.locator(".jp-RenderedMarkdown table").last).to_contain_text("<script>")
    assert tab.page.evaluate(RENDERED) == []
    assert tab.page.evaluate("window.pwned") == []
    assert [*tab.dialogs, *tab.foreign, *tab.errors] == []


def copied_report(tab: Visit) -> str:
    """Copy the session's report, as the command does, and return it."""
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.command("nbllm:copy-report")
    expect(tab.page.locator(".Toastify__toast, .jp-toastContainer").last).to_contain_text("clipboard")
    return str(tab.page.evaluate("() => navigator.clipboard.readText()"))
