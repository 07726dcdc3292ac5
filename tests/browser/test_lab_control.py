"""The Stop button of the panel in a real JupyterLab: it ends that request and no other, or says why it cannot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab
from tests.browser.lab_panel import (
    call_rows,
    expect_meter,
    finish_cell,
    load_and_point,
    open_panel,
    run_cell,
    section,
    wait_cell,
)
from tests.browser.visit import LIMIT_S, Visit
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
import pathlib, time
print("begun")
while not pathlib.Path("go-on").exists(): time.sleep(0.05)
print("through")
"""
SUBSHELLS = "setting => { window.jupyterapp.serviceManager.kernels.commsOverSubshells = setting; }"


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server whose drip never ends and whose quick is done at once."""
    with FaultServer() as server:
        server.script("drip", [drip(pace_s=0.02, tokens=100_000)])
        server.script("quick", [ok()])
        yield server


def press(tab: Visit, button: Locator) -> Stopwatch:
    """Press a button with the keyboard, so that rows which move make no difference; return a watch that runs since then."""
    expect(button).to_be_enabled()
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
    expect(stops).to_have_count(2)
    asked(tab, upstream, 2)
    tab.page.screenshot(path=pictures / "panel-running.png")
    watch = press(tab, stops.first)
    assert closed_after_s(tab, upstream, watch) < 1
    expect(stops).to_have_count(1)
    assert sum(request.closed_at is None for request in upstream.requests) == 1
    watch = press(tab, stops.first)
    assert closed_after_s(tab, upstream, watch, 2) < 1
    wait_cell(tab, 1)
    expect(call_rows(tab)).to_have_count(2)
    expect(call_rows(tab).first).to_have_attribute("data-status", "cancelled")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    finish_cell(tab, 2)
    finish_cell(tab, 3)
    assert "One two three" in tab.outputs(3)
    assert tab.errors == []


def asked(tab: Visit, server: FaultServer, number: int) -> None:
    """Wait until so many requests have reached a server: what is stopped before that never reaches it."""
    tab.wait_for(lambda: len(server.requests) >= number)


def closed_after_s(tab: Visit, server: FaultServer, watch: Stopwatch, number: int = 1) -> float:
    """Return the seconds until so many of a server's requests were closed, what the machine's other work took left out."""
    while len(closed := sorted(r.closed_at for r in server.requests if r.closed_at is not None)) < number:
        assert watch.all_s < LIMIT_S
        tab.frames(1)
    lost_s, since_s = watch.lost_s, time.monotonic() - closed[number - 1]
    return closed[number - 1] - watch.began_s - max(0.0, lost_s - since_s)


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


def test_where_comms_wait_the_calls_own_cell_is_interrupted(fresh: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Nothing can be said to the kernel while the cell runs: Stop interrupts it, the request ends, and the kernel stays."""
    name = lab.write("waits.ipynb", [load_and_point(up=upstream.base_url), "%%llm -m up/drip --cache off\nGo on.", "print(1 + 1)"])
    with lab.settings("@jupyterlab/apputils-extension/kernels-settings", {"commsOverSubshells": "disabled"}):
        fresh.open(name)
    finish_cell(fresh, 0)
    open_panel(fresh)
    run_cell(fresh, 1)
    expect_meter(fresh, "tok/s")
    watch = press(fresh, section(fresh, "running").get_by_role("button", name="Stop up/drip"))
    assert closed_after_s(fresh, upstream, watch) < 1.3  # 0.3 s of it are waiting for an answer
    wait_cell(fresh, 1)
    finish_cell(fresh, 2)
    assert fresh.outputs(2).strip() == "2"


@pytest.fixture
def comms_wait(tab: Visit) -> Iterator[None]:
    """Notebooks have comms as older ones do: on the kernel's main thread, where they wait for the cell."""
    tab.page.evaluate(SUBSHELLS, "disabled")
    yield
    tab.page.evaluate(SUBSHELLS, "perCommTarget")


@pytest.mark.usefixtures("comms_wait")
def test_where_comms_wait_another_cell_is_left_alone(tab: Visit, lab: Lab, upstream: FaultServer) -> None:
    """The call began in a cell that is over and another one runs: it is not interrupted, and the button says why."""
    lab.forget("go-on")
    name = lab.write("other-cell.ipynb", [load_and_point(up=upstream.base_url), BEGIN_AND_LEAVE, BUSY])
    tab.open(name)
    finish_cell(tab, 0)
    open_panel(tab)
    finish_cell(tab, 1)
    asked(tab, upstream, 1)
    run_cell(tab, 2)
    tab.expect_text(".jp-CodeCell >> nth=2 >> .jp-OutputArea", "begun")
    press(tab, section(tab, "running").get_by_role("button", name="Stop up/drip"))
    expect(section(tab, "running")).to_contain_text("cannot hear this while a cell runs")
    (lab.work / "go-on").touch()
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
    expect(panel).to_contain_text("%load_ext nbllm")
    expect(panel.get_by_role("button", name="Stop up/drip")).to_have_count(0)
    died = tab.page.locator(".jp-Dialog")
    died.get_by_role("button").last.click()
    tab.wait_idle()
    finish_cell(tab, 0)
    expect_meter(tab, "$0.00")
    expect(section(tab, "running")).to_contain_text("Nothing is running")
    assert tab.errors == []


def test_settings_that_break_their_schema_change_nothing(fresh: Visit, lab: Lab, upstream: FaultServer) -> None:
    """Values of wrong types, out of range or that are markup are replaced by the defaults; meter and panel work."""
    broken = {
        "currencyDecimals": "<img src=x onerror=alert(1)>",
        "badges": "yes",
        "sections": ["session", "__proto__", 7],
        "updatesPerSecond": 1e9,
        "callsShown": -5,
        "unknown": {},
    }
    with lab.settings("nbllm-lab/plugin", broken):
        fresh.open(lab.write("broken-settings.ipynb", [load_and_point(up=upstream.base_url), "%llm -m up/quick --cache off Hi"]))
    finish_cell(fresh, 0)
    finish_cell(fresh, 1)
    expect_meter(fresh, "$0.0017")
    open_panel(fresh)
    expect(call_rows(fresh)).to_have_count(1)
    assert fresh.page.evaluate("window.pwned") == []
