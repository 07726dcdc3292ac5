"""The meter and the panel in a real JupyterLab: what they show is what the ledger has, through restarts and reloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab
from tests.browser.lab_panel import (
    RECORD,
    RECORDED,
    alarm,
    call_rows,
    expect_meter,
    finish_cell,
    ledger_calls,
    load_and_point,
    meter,
    open_loaded,
    open_panel,
    run_cell,
    section,
    shown_calls,
    usd,
    wait_cell,
)
from tests.browser.visit import Visit
from tests.fault_behaviours import bad_parameter, ok
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

WORDS = tuple(f"word{n} " for n in range(150))
SAY_MANY = "%llm -m up/whole --cache off Say many words."
USAGE = {"prompt_tokens": 12, "completion_tokens": 150, "total_tokens": 162}


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server that answers in about three seconds, word by word, or whole at once; /broken refuses."""
    with FaultServer() as server:
        server.script("words", [ok(*WORDS, pace_s=0.02, usage=USAGE)])
        server.script("whole", [ok(*WORDS, usage=USAGE)])
        server.script("broken", [bad_parameter()])
        yield server


def test_a_streamed_call_moves_the_meter_and_its_row_is_the_ledgers(
    tab: Visit, lab: Lab, upstream: FaultServer, pictures: Path
) -> None:
    """Nothing without nbllm; tokens and speed count up while a call streams; then cost only, and rows that equal the ledger's."""
    streamed = "%%llm -m up/words --feature tour\nSay many words."
    others = ("%%llm -m up/broken --cache off\nHello.", "r = nbllm.ask('Whole', model='up/whole', cache='off')")
    name = lab.write("moves.ipynb", [load_and_point(up=upstream.base_url), streamed, streamed, *others])
    tab.open(name)
    expect(meter(tab)).to_have_count(0)
    finish_cell(tab, 0)
    expect_meter(tab, "$0.00")
    tab.page.evaluate(RECORD)
    run_cell(tab, 1)
    expect_meter(tab, "tok/s")
    panel = open_panel(tab)
    expect(section(tab, "running")).to_contain_text("up/words")
    tab.page.screenshot(path=pictures / "panel-streaming.png")
    wait_cell(tab, 1)
    expect_meter(tab, re.compile(r"^\W*\$0\.016"))
    check_counted_up(tab.page.evaluate(RECORDED))
    expect(meter(tab)).not_to_contain_text("tok")
    for number in (2, 3, 4):
        finish_cell(tab, number)
    expect(call_rows(tab)).to_have_count(4)
    shown, kept = shown_calls(tab), ledger_calls(lab, name)
    check_rows(shown, kept)
    assert [row["cell"] for row in shown] == ["[5]", "[4]", "[3]", "[2]"]
    assert [row["source"] for row in shown] == ["model", "failed", "cache", "model"]
    total = usd(sum(true["cost"] or 0 for true in kept))
    expect(section(tab, "session").locator(".jp-nbllm-Cost-amount")).to_have_text(total)
    expect_meter(tab, total)
    expect(section(tab, "session")).to_contain_text("1 failed")
    expect(section(tab, "endpoints")).to_contain_text("up")
    expect(panel).to_be_visible()
    tab.page.screenshot(path=pictures / "panel-calls.png")
    assert [*tab.errors, *tab.dialogs, *tab.foreign] == []


def check_counted_up(texts: list[str]) -> None:
    """Hold the texts that the meter showed during a stream to counting tokens, several times and never down."""
    seen = [int(found[1]) for text in texts if (found := re.search(r"(\d+) tokens\s· \d+ tok/s$", text))]
    assert len(set(seen)) >= 5
    assert seen == sorted(seen)


def check_rows(shown: list[dict[str, str]], kept: list[dict[str, Any]]) -> None:
    """Hold the rows of the panel to the calls of the ledger, one by one and column by column."""
    assert [row["call_id"] for row in shown] == [row["call_id"] for row in kept]
    for row, true in zip(shown, kept, strict=True):
        assert (row["status"], row["model"], row["rung"]) == (true["status"], true["model"], true["rung"] or "")
        assert row["source"] == (true["source"] if true["status"] == "done" else true["status"])
        assert row["cost"] == usd(true["cost"] or 0)
        for column in ("ttft", "latency"):
            true_s = true[f"{column}_s"]
            assert in_seconds(row[column]) == (None if true_s is None else pytest.approx(true_s, rel=0.05, abs=0.06))


def test_an_amount_is_written_alike_everywhere(tab: Visit, lab: Lab) -> None:
    """A cost far below a cent stands with the same digits in the cell's own line, the badge, the row, the panel and the meter."""
    tab.open(lab.write("alike.ipynb", ["%load_ext nbllm", "%%llm -m sim/small --cache off\nHi."]))
    finish_cell(tab, 0)
    finish_cell(tab, 1)
    (kept,) = ledger_calls(lab, "alike.ipynb")
    cost = usd(kept["cost"])
    assert re.fullmatch(r"\$0\.0000\d+", cost)
    assert f"· {cost}\xa0· cache miss" in tab.outputs(1)
    expect(tab.page.locator(".jp-nbllm-Badge-text")).to_have_text(cost)
    expect_meter(tab, cost)
    open_panel(tab)
    expect(section(tab, "session").locator(".jp-nbllm-Cost-amount")).to_have_text(cost)
    expect(call_rows(tab).locator(".jp-nbllm-Call-cost")).to_have_text(cost)


def in_seconds(shown: str) -> float | None:
    """Return what a duration of the panel says; None where it says nothing."""
    if shown == "":
        return None
    value, unit = shown.split()
    return float(value.replace(",", "")) * {"ms": 0.001, "s": 1}[unit]


def test_soft_and_hard_limits_show(tab: Visit, upstream: FaultServer, pictures: Path) -> None:
    """Near its limit the session wears a sign in meter and bar, at its limit another, and the call that is refused has its row."""
    limits = ("%llm_budget session 0.02 --soft 50%", "%llm_budget session 0.01")
    open_loaded(tab, upstream, "limits.ipynb", SAY_MANY, *limits, "%llm -m up/whole --cache off Say more.")
    finish_cell(tab, 1)
    finish_cell(tab, 2)
    open_panel(tab)
    bar = section(tab, "session").locator(".jp-nbllm-Budget", has=tab.page.get_by_role("meter", name="Budget: Session"))
    expect_meter(tab, "$0.016 of $0.02")
    expect(alarm(tab, "soft")).to_contain_text("▲")
    expect(bar).to_have_attribute("data-level", "soft")
    expect(bar).to_contain_text("Soft limit of $0.01 reached")
    tab.page.screenshot(path=pictures / "panel-soft.png")
    finish_cell(tab, 3)
    expect(alarm(tab, "hard")).to_contain_text("■")
    expect(meter(tab).locator("button")).to_have_attribute("aria-label", re.compile("Hard limit reached.*calls are refused"))
    expect(bar).to_have_attribute("data-level", "hard")
    expect(bar.get_by_role("meter")).to_have_attribute("aria-valuenow", "100")
    run_cell(tab, 4)
    expect(call_rows(tab)).to_have_count(2)
    expect(call_rows(tab).first).to_have_attribute("data-status", "failed")
    tab.page.screenshot(path=pictures / "panel-hard.png")
    assert upstream.count("whole") == 1
    assert "budget" in tab.error_texts()[0].lower()


def test_a_restart_begins_at_nothing_and_hides_nothing(tab: Visit, upstream: FaultServer) -> None:
    """A restarted kernel says nothing without nbllm; loaded again it says $0.00 and today's total, and no old call is listed."""
    open_loaded(tab, upstream, "restart.ipynb", SAY_MANY)
    finish_cell(tab, 1)
    expect_meter(tab, re.compile(r"^\W*\$0\.016"))
    panel = open_panel(tab)
    tab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    expect(panel).to_contain_text("%load_ext nbllm")
    expect(meter(tab)).to_have_count(0)
    tab.wait_idle()
    finish_cell(tab, 0)
    expect_meter(tab, re.compile(r"\$0\.00\W+today \$0\.\d*[1-9]"))
    expect(section(tab, "session").locator(".jp-nbllm-Cost-amount")).to_have_text("$0.00")
    expect(section(tab, "session").locator(".jp-nbllm-Cost-today")).to_have_text(re.compile(r"today \$0\.\d*[1-9]"))
    expect(call_rows(tab)).to_have_count(0)
    finish_cell(tab, 1)
    expect(call_rows(tab)).to_have_count(1)
    assert tab.errors == []
