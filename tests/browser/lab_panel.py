"""The JupyterLab extension as a person sees it: its meter, its panel, and the ledger that both must agree with."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import Any

from playwright.sync_api import Locator, expect

from nbllm.money import format_usd
from tests.browser.lab import Lab
from tests.browser.visit import Visit
from tests.fault_server import FaultServer

ASK = "nbllm.ask('Many words', model='up/words', cache='off');"
"""A line that costs a cent at conftest's upstream."""
PICODOLLARS = Decimal(10) ** 12
RECORD = """() => {
  window.metered = [];
  const look = () => {
    if (window.metered === null) return;
    const text = document.querySelector('.jp-nbllm-Meter:not(.lm-mod-hidden) .jp-nbllm-Meter-button span:last-child')?.textContent;
    if (text && window.metered.at(-1) !== text) window.metered.push(text);
    requestAnimationFrame(look);
  };
  look();
}"""
"""Keeps every text that the meter shows in a frame."""
RECORDED = "() => { const texts = window.metered; window.metered = null; return texts; }"
ROWS = """rows => rows.map(row => Object.fromEntries([
  ['call_id', row.dataset.call], ['status', row.dataset.status],
  ...['model', 'rung', 'source', 'ttft', 'latency', 'cost', 'cell'].map(
    name => [name, row.querySelector(`.jp-nbllm-Call-${name}`).textContent]),
]))"""
COLUMNS = (
    "call_id, status, model, rung, source, feature, ttft_s, latency_s, cell_id, "
    "(SELECT sum(cost_picodollars) FROM attempts WHERE attempts.call_id = calls.call_id) AS cost"
)


def meter(tab: Visit) -> Locator:
    """The meter of the status bar, where it shows."""
    return tab.page.locator(".jp-nbllm-Meter:visible")


def alarm(tab: Visit, kind: str) -> Locator:
    """The meter while it wears an alarm."""
    return tab.page.locator(f".jp-nbllm-Meter[data-alarm={kind}]:visible")


def expect_meter(tab: Visit, text: str | re.Pattern[str]) -> None:
    """Wait until the meter shows a text."""
    expect(meter(tab)).to_contain_text(text)


def open_panel(tab: Visit) -> Locator:
    """Open the panel as a user does, by a click on the meter, and return it."""
    panel = tab.page.locator(".jp-nbllm-Panel")
    if not panel.is_visible():
        meter(tab).locator("button").click()
    expect(panel).to_be_visible()
    return panel


def section(tab: Visit, name: str) -> Locator:
    """A section of the panel: session, running, calls or endpoints."""
    return tab.page.locator(f".jp-nbllm-Panel [data-section={name}]")


def call_rows(tab: Visit) -> Locator:
    """The rows of the panel's list of calls."""
    return section(tab, "calls").locator("[role=row][data-call]")


def shown_calls(tab: Visit) -> list[dict[str, str]]:
    """What the rows of the panel say, column by column."""
    found: list[dict[str, str]] = call_rows(tab).evaluate_all(ROWS)
    return found


def ledger_calls(lab: Lab, notebook: str) -> list[dict[str, Any]]:
    """The calls that the ledger has of a notebook, newest first, read without any of nbllm's code. cost: picodollars."""
    # A kernel that the server started for a notebook knows it by its whole path.
    tag = hashlib.sha256(str(lab.work / notebook).encode()).hexdigest()[:16]
    with closing(sqlite3.connect(f"file:{lab.home}/ledger.db?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        query = f"SELECT {COLUMNS} FROM calls WHERE notebook = ? ORDER BY started_at DESC"  # noqa: S608 - a constant
        return [dict(row) for row in database.execute(query, (tag,))]


def usd(picodollars: int | None) -> str:
    """Return a cost as the ledger has it in the words of the meter."""
    return format_usd(None if picodollars is None else Decimal(picodollars) / PICODOLLARS)


def run_cell(tab: Visit, number: int) -> None:
    """Run one cell, by its place among all cells, and do not wait for its end."""
    tab.page.evaluate("n => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = n; }", number)
    tab.command("notebook:run-cell")


def finish_cell(tab: Visit, number: int) -> None:
    """Run one cell and wait for its end."""
    run_cell(tab, number)
    wait_cell(tab, number)


def wait_cell(tab: Visit, number: int) -> None:
    """Wait until a cell that was started has its number and runs no more."""
    tab.page.wait_for_function(
        """n => {
          const model = window.jupyterapp.shell.currentWidget.content.widgets[n].model;
          return model.executionState === 'idle' && model.executionCount !== null;
        }""",
        arg=number,
    )


def open_loaded(tab: Visit, upstream: FaultServer, name: str, *cells: str) -> str:
    """Open a new notebook whose first cell, which is run, loads nbllm and knows the upstream as `up`; return its name."""
    tab.open(tab.lab.write(name, [load_and_point(up=upstream.base_url), *cells]))
    finish_cell(tab, 0)
    return name


def load_and_point(**models_at: str) -> str:
    """Return a cell that loads nbllm and names servers as endpoints, with prices that make costs of some tenths of a cent."""
    made = ", ".join(
        f"{name!r}: nbllm.Endpoint(base_url={url!r}, input_usd_per_mtok=100, output_usd_per_mtok=100)"
        for name, url in models_at.items()
    )
    return f"%load_ext nbllm\nimport nbllm\nnbllm.get_client().configure(endpoints={{{made}}})"
