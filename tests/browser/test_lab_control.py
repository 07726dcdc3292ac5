"""The Stop button of the panel in a real JupyterLab: it ends that request and no other, or says why it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import TRAPS, Lab, Visit
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
from tests.starvation import Stopwatch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.usefixtures("labextension")]

TWO_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
asked = [pool.submit(nbllm.ask, text, model="up/drip", cache="off", on_interrupt="raise") for text in ("one", "two")]
print(*[type(one.exception()).__name__ for one in asked])
"""

BEGIN_AND_LEAVE = """
import contextvars, threading
ask = lambda: nbllm.ask("x", model="up/drip", cache="off")
threading.Thread(target=contextvars.copy_context().run, args=(ask,)).start()
"""
BUSY = """
import time
end = time.time() + 6
while time.time() < end: time.sleep(0.1)
print("through")
"""


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server whose drip never ends and whose quick is done at once."""
    with FaultServer() as server:
        server.script("drip", [drip(pace_s=0.02, tokens=100_000)])
        server.script("quick", [ok()])
        yield server


def press(tab: Visit, button: Locator) -> Stopwatch:
    """Press a button with the keyboard, so that rows which move make no difference; return a watch that runs since then."""
    expect(button).to_be_enabled(timeout=LIMIT_MS)
    button.focus()
    watch = Stopwatch(others=True)
    tab.page.keyboard.press("Enter")
    return watch


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
    watch = press(tab, stops.first)
    assert closed_after_s(tab, upstream, watch) < 1
    expect(stops).to_have_count(1)
    assert sum(request.closed_at is None for request in upstream.requests) == 1
    watch = press(tab, stops.first)
    assert closed_after_s(tab, upstream, watch, 2) < 1
    wait_cell(tab, 1)
    expect(call_rows(tab)).to_have_count(2, timeout=LIMIT_MS)
    expect(call_rows(tab).first).to_have_attribute("data-status", "cancelled")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    finish_cell(tab, 2)
    finish_cell(tab, 3)
    assert "One two three" in tab.outputs(3)
    assert tab.errors == []


def closed_after_s(tab: Visit, server: FaultServer, watch: Stopwatch, number: int = 1) -> float:
    """Return the seconds until so many of a server's requests were closed, what the machine's other work took left out."""
    while len(closed := sorted(r.closed_at for r in server.requests if r.closed_at is not None)) < number:
        assert watch.all_s < 30
        tab.page.wait_for_timeout(5)  # the page's requests pass through this process
    return closed[number - 1] - watch.began_s - watch.lost_s


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
    watch = press(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    assert closed_after_s(tab, upstream, watch) < 1
    wait_cell(tab, 1)
    assert "drip drip" in tab.outputs(1)
    assert "Stopped from the panel" in tab.error_texts()[0]
    finish_cell(tab, 2)
    said, length = tab.outputs(2).split()
    assert said == "True"
    assert int(length) > 5


@contextmanager
def comms_that_wait(lab: Lab) -> Iterator[None]:
    """Pages that are opened in this have comms as older ones do: on the kernel's main thread, where they wait for the cell."""
    with lab.settings("@jupyterlab/apputils-extension/kernels-settings", {"commsOverSubshells": "disabled"}):
        yield


def test_where_comms_wait_the_calls_own_cell_is_interrupted(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Nothing can be said to the kernel while the cell runs: Stop interrupts it, the request ends, and the kernel stays."""
    name = lab.write("waits.ipynb", [load_and_point(up=upstream.base_url), "%%llm -m up/drip --cache off\nGo on.", "print(1 + 1)"])
    with comms_that_wait(lab):
        tab.open(name)
    finish_cell(tab, 0)
    open_panel(tab)
    run_cell(tab, 1)
    expect_meter(tab, "tok/s")
    watch = press(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    assert closed_after_s(tab, upstream, watch) < 1.3  # 0.3 s of it are waiting for an answer
    wait_cell(tab, 1)
    finish_cell(tab, 2)
    assert tab.outputs(2).strip() == "2"


def test_where_comms_wait_another_cell_is_left_alone(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """The call began in a cell that is over and another one runs: it is not interrupted, and the button says why."""
    name = lab.write("other-cell.ipynb", [load_and_point(up=upstream.base_url), BEGIN_AND_LEAVE, BUSY])
    with comms_that_wait(lab):
        tab.open(name)
    finish_cell(tab, 0)
    open_panel(tab)
    finish_cell(tab, 1)
    run_cell(tab, 2)
    press(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    expect(section(tab, "running")).to_contain_text("cannot hear this while a cell runs", timeout=LIMIT_MS)
    wait_cell(tab, 2)
    assert "through" in tab.outputs(2)
    closed_after_s(tab, upstream, Stopwatch())  # the wish was only late


def test_a_kernel_that_dies_in_mid_stream_leaves_nothing_running(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Killed while a call streams: nothing is shown as running; the kernel that follows begins at $0.00 and can be used."""
    cells = [load_and_point(up=upstream.base_url), "%%llm -m up/drip --cache off\nGo on.", "import os\nprint(os.getpid())"]
    tab.open(lab.write("killed.ipynb", cells))
    finish_cell(tab, 0)
    finish_cell(tab, 2)
    panel = open_panel(tab)
    run_cell(tab, 1)
    expect_meter(tab, "tok/s")
    os.kill(int(tab.outputs(2)), signal.SIGKILL)
    expect(panel).to_contain_text("%load_ext nbllm", timeout=LIMIT_MS)
    expect(panel.get_by_role("button", name="Stop up/drip")).to_have_count(0)
    died = tab.page.locator(".jp-Dialog")
    died.get_by_role("button").last.click(timeout=LIMIT_MS)
    tab.wait_idle()
    finish_cell(tab, 0)
    expect_meter(tab, "$0.00")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    assert tab.errors == []


def test_settings_that_break_their_schema_change_nothing(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Values of wrong types, out of range or that are markup are replaced by the defaults; meter and panel work."""
    broken = {
        "currencyDecimals": "<img src=x onerror=alert(1)>",
        "badges": "yes",
        "sections": ["session", "__proto__", 7],
        "updatesPerSecond": 1e9,
        "callsShown": -5,
        "unknown": {},
    }
    tab.page.add_init_script(TRAPS)
    with lab.settings("nbllm-lab/plugin", broken):
        tab.open(lab.write("broken-settings.ipynb", [load_and_point(up=upstream.base_url), "%llm -m up/quick --cache off Hi"]))
    finish_cell(tab, 0)
    finish_cell(tab, 1)
    expect_meter(tab, "$0.0017")
    open_panel(tab)
    expect(call_rows(tab)).to_have_count(1, timeout=LIMIT_MS)
    assert tab.page.evaluate("window.pwned") == []
