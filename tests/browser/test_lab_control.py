"""The Stop button of the panel in a real JupyterLab: it ends that request and no other, or says why it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, Visit
from tests.browser.lab_panel import (
    LIMIT_MS,
    call_rows,
    expect_meter,
    finish_cell,
    load_and_point,
    open_panel,
    run_cell,
    section,
    wait_cell,
)
from tests.fault_behaviours import drip, ok
from tests.fault_server import FaultServer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

TWO_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
asked = [pool.submit(nbllm.ask, text, model="up/drip", cache="off", on_interrupt="raise") for text in ("one", "two")]
print(*[type(one.exception()).__name__ for one in asked])
"""


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server whose drip never ends and whose quick is done at once."""
    with FaultServer() as server:
        server.script("drip", [drip(pace_s=0.02, tokens=100_000)])
        server.script("quick", [ok()])
        yield server


def press(tab: Visit, button: Locator) -> float:
    """Press a button with the mouse; return when, on the clock of the fault server."""
    expect(button).to_be_enabled(timeout=LIMIT_MS)
    button.hover(timeout=LIMIT_MS)
    tab.page.mouse.down()
    began_s = time.monotonic()
    tab.page.mouse.up()
    return began_s


def test_stop_ends_the_upstream_request_within_a_second(tab: Visit, lab: Lab, upstream: FaultServer, pictures: Path) -> None:
    """Of two calls of a cell the one whose Stop is pressed ends upstream within 1 s, the other goes on; the kernel stays usable."""
    name = lab.write(
        "stop-one.ipynb",
        [
            load_and_point(up=upstream.base_url),
            TWO_AT_ONCE,
            "%llm -m up/quick --cache off -o after Are you there?",
            "print(after.text)",
        ],
    )
    tab.open(name)
    finish_cell(tab, 0)
    open_panel(tab)
    run_cell(tab, 1)
    stops = section(tab, "running").get_by_role("button", name="Stop up/drip")
    expect(stops).to_have_count(2, timeout=LIMIT_MS)
    tab.page.screenshot(path=pictures / "panel-running.png")
    began_s = press(tab, stops.first)
    assert closed_after_s(upstream, began_s) < 1
    expect(stops).to_have_count(1)
    assert sum(request.closed_at is None for request in upstream.requests) == 1
    began_s = press(tab, stops.first)
    assert closed_after_s(upstream, began_s, 2) < 1
    wait_cell(tab, 1)
    expect(call_rows(tab)).to_have_count(2, timeout=LIMIT_MS)
    expect(call_rows(tab).first).to_have_attribute("data-status", "cancelled")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    finish_cell(tab, 2)
    finish_cell(tab, 3)
    assert "One two three" in tab.outputs(3)
    assert tab.errors == []


def closed_after_s(server: FaultServer, since_s: float, number: int = 1) -> float:
    """Return the seconds until so many of a server's requests were closed."""
    while len(closed := sorted(r.closed_at for r in server.requests if r.closed_at is not None)) < number:
        assert time.monotonic() - since_s < 5
        time.sleep(0.005)
    return closed[number - 1] - since_s


def test_a_stopped_cell_keeps_what_came(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """A %%llm cell that streams is stopped from the panel: its request ends within 1 s, its text stays, and it says why."""
    name = lab.write(
        "stop-cell.ipynb",
        [
            load_and_point(up=upstream.base_url),
            "%%llm -m up/drip --cache off -o part\nGo on.",
            "print(part.interrupted, len(part.text))",
        ],
    )
    tab.open(name)
    finish_cell(tab, 0)
    open_panel(tab)
    run_cell(tab, 1)
    expect_meter(tab, "tok/s")
    began_s = press(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    assert closed_after_s(upstream, began_s) < 1
    wait_cell(tab, 1)
    assert "drip drip" in tab.outputs(1)
    assert "Stopped from the panel" in tab.error_texts()[0]
    finish_cell(tab, 2)
    said, length = tab.outputs(2).split()
    assert said == "True"
    assert int(length) > 5
