"""The meter in JupyterLab's status bar with a real kernel: streaming, reload, restart, death, several notebooks, Stop."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.lab import ROOT, Lab, Visit
from tests.starvation import Stopwatch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (ROOT / "nbllm" / "_labextension" / "install.json").exists(), reason="the JupyterLab extension is not built"
    ),
]

METER = ".jp-nbllm-Meter:not(.lm-mod-hidden)"
LOAD = "%load_ext nbllm"
DOC = f"doc = {'A sentence of the document, which is long. ' * 60!r}"
CALL = "%%llm -m sim/large -o a --cache off\nSummarise in ten bullets: {{ doc }}"
SLOW = CALL.replace("sim/large", "sim/large?tok_s=8")
ASK = 'import nbllm\nnbllm.ask("One two three", model="sim/large", cache="off").cost_usd'
STATE = """async () => {
  const app = window.jupyterapp;
  const token = [...app.pluginRegistry._services.keys()].find(one => one.name === 'nbllm-lab:INbllm');
  const nbllm = await app.resolveRequiredService(token);
  window.nbllm = nbllm;
  const session = nbllm.front.session;
  return session && { phase: session.phase, state: session.state };
}"""
STOP = "async () => window.nbllm.stop(window.nbllm.front.session, window.nbllm.front.session.state.running[0].call_id)"
AT_REST = """() => window.jupyterapp.shell.currentWidget.content.widgets.every(one => one.model.executionState !== 'running')"""
KERNEL = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"


def run(tab: Visit, number: int) -> None:
    """Run one cell without waiting for it."""
    tab.page.evaluate("(n) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = n; }", number)
    tab.command("notebook:run-cell")


def expect_meter(tab: Visit, text: str, limit_s: float = 20) -> None:
    """Wait until the status bar shows a text."""
    expect(tab.page.locator(METER)).to_contain_text(text, timeout=limit_s * 1000)


def expect_no_meter(tab: Visit) -> None:
    """Wait until the status bar shows nothing of nbllm."""
    expect(tab.page.locator(METER)).to_have_count(0, timeout=20_000)


def front(tab: Visit) -> dict[str, Any]:
    """Return the phase and state of the session in front."""
    found: dict[str, Any] = tab.page.evaluate(STATE)
    return found


def begin(tab: Visit, cells: int) -> None:
    """Run the first cell, which loads nbllm, wait for the meter, and run so many more."""
    run(tab, 0)
    expect_meter(tab, "$0.00")
    for number in range(1, cells + 1):
        run(tab, number)


def wait_running(tab: Visit, least_tokens: int = 5) -> None:
    """Wait until a call streams."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        session = front(tab)
        running = session["state"]["running"] if session["state"] else []
        if running and running[0]["output_tokens"] >= least_tokens:
            return
        tab.page.wait_for_timeout(50)
    raise AssertionError(f"no call streamed: {front(tab)}")


def show(tab: Visit, name: str) -> None:
    """Bring a notebook to the front."""
    find = f"[...window.jupyterapp.shell.widgets('main')].find(one => one.context && one.context.path === '{name}')"
    tab.page.evaluate(f"() => window.jupyterapp.shell.activateById({find}.id)")


def test_the_meter_follows_a_stream(tab: Visit, lab: Lab) -> None:
    """Nothing before nbllm is loaded; cost, tokens and speed while an answer streams; quiet after it, with the cell's own cost."""
    tab.open(lab.write("meter-stream.ipynb", [LOAD, DOC, CALL, "a.cost_usd"]))
    expect_no_meter(tab)
    run(tab, 0)
    expect_meter(tab, "$0.00")
    run(tab, 1)
    run(tab, 2)
    expect_meter(tab, "tok/s")
    expect_meter(tab, "tokens")
    expect(tab.page.locator(METER)).not_to_contain_text("tok/s", timeout=60_000)
    run(tab, 3)
    tab.expect_text(".jp-CodeCell >> nth=3", "Decimal")
    cost = tab.outputs(3).split("'")[1]
    assert Decimal(front(tab)["state"]["session"]["cost_usd"]) == Decimal(cost)
    assert tab.errors == []
    assert tab.foreign == []


def test_a_running_cell_still_looks_busy(tab: Visit, lab: Lab) -> None:
    """Run All from %load_ext on: the kernel's circle does not go idle while the next cell runs."""
    tab.open(lab.write("meter-busy.ipynb", [LOAD, "import time\ntime.sleep(3)"]))
    tab.command("notebook:run-all-cells")
    expect_meter(tab, "$0.00")
    tab.page.wait_for_timeout(700)
    assert tab.page.evaluate(f"() => ({KERNEL})().status") == "busy"


def test_a_page_reloaded_in_mid_stream_is_live_again(tab: Visit, lab: Lab) -> None:
    """The new page finds nbllm and shows the call that is still under way, though the kernel is busy with it."""
    tab.open(lab.write("meter-reload.ipynb", [LOAD, DOC, SLOW]))
    begin(tab, 2)
    wait_running(tab)
    tab.page.reload()
    tab.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
    expect_meter(tab, "tok/s")
    assert front(tab)["state"]["running"]


def test_two_notebooks_on_one_kernel(tab: Visit, lab: Lab) -> None:
    """Both show the kernel's session; the second goes on when the first, which had the comms of the page, is closed."""
    tab.open(lab.write("meter-one.ipynb", [LOAD]))
    run(tab, 0)
    expect_meter(tab, "$0.00")
    other = lab.write("meter-two.ipynb", [ASK, ASK])
    kernel = tab.page.evaluate(f"() => ({KERNEL})().id")
    tab.command("docmanager:open", {"path": other, "kernel": {"id": kernel}})
    tab.page.wait_for_function(f"() => window.jupyterapp.shell.currentWidget.context?.path === '{other}'")
    tab.wait_idle()
    expect_meter(tab, "$0.00")
    run(tab, 0)
    tab.expect_text(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell >> nth=0", "Decimal")
    tab.page.wait_for_timeout(600)
    cost = tab.page.locator(METER).inner_text()
    assert cost != "$0.00"
    show(tab, "meter-one.ipynb")
    tab.page.wait_for_timeout(300)
    assert tab.page.locator(METER).inner_text() == cost
    tab.page.evaluate(
        "() => { const one = window.jupyterapp.shell.currentWidget; return one.context.save().then(() => one.dispose()); }"
    )
    show(tab, other)
    run(tab, 1)
    tab.expect_text(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell >> nth=1", "Decimal")
    expect(tab.page.locator(METER)).not_to_have_text(cost, timeout=20_000)
    tab.page.wait_for_timeout(600)
    assert front(tab)["state"]["session"]["calls"] == 2


def test_a_restart_begins_anew_and_a_plain_notebook_shows_nothing(tab: Visit, lab: Lab) -> None:
    """After a restart the meter is gone until nbllm is loaded again, and is $0.00 then."""
    tab.open(lab.write("meter-restart.ipynb", [LOAD, ASK]))
    run(tab, 0)
    run(tab, 1)
    tab.expect_text(".jp-CodeCell >> nth=1", "Decimal")
    tab.page.evaluate(f"() => ({KERNEL})().restart()")
    expect_no_meter(tab)
    tab.wait_idle()
    run(tab, 0)
    expect_meter(tab, "$0.00")
    plain = lab.write("meter-plain.ipynb", ["1 + 1"])
    tab.command("docmanager:open", {"path": plain})
    tab.page.wait_for_function(f"() => window.jupyterapp.shell.currentWidget.context?.path === '{plain}'")
    expect_no_meter(tab)
    show(tab, "meter-restart.ipynb")
    expect_meter(tab, "$0.00")


def test_a_kernel_that_dies_in_mid_stream(tab: Visit, lab: Lab) -> None:
    """Its session is gone, no script fails, and the kernel that follows can be used."""
    die = "import os, signal, threading\nthreading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()"
    tab.open(lab.write("meter-death.ipynb", [LOAD, DOC, die, SLOW]))
    begin(tab, 3)
    wait_running(tab, 1)
    expect_no_meter(tab)
    tab.page.locator(".jp-Dialog button").first.click(timeout=20_000)
    run(tab, 0)
    expect_meter(tab, "$0.00")
    assert tab.errors == []


@pytest.mark.parametrize("setting", ["perCommTarget", "disabled"])
def test_stop_ends_a_call_within_a_second(tab: Visit, lab: Lab, setting: str) -> None:
    """Over a subshell the kernel hears Stop at once; where comms wait for the cell, the cell is interrupted. The part is kept."""
    plain = lab.write("meter-before.ipynb", ["1"])
    tab.open(plain)
    tab.page.evaluate(f"() => {{ window.jupyterapp.serviceManager.kernels.commsOverSubshells = '{setting}'; }}")
    name = lab.write(f"meter-stop-{setting}.ipynb", [LOAD, DOC, SLOW, "a.interrupted, len(a.text) > 0"])
    tab.command("docmanager:open", {"path": name})
    tab.page.wait_for_function(f"() => window.jupyterapp.shell.currentWidget.context?.path === '{name}'")
    tab.wait_idle()
    begin(tab, 2)
    wait_running(tab, 10)
    watch = Stopwatch(others=True)
    answer = tab.page.evaluate(STOP)
    assert answer["ok"], answer
    assert ("interrupted" in answer["message"]) is (setting == "disabled")
    shown = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell"
    expect(tab.page.locator(shown).nth(2)).to_contain_text("stopped: this is a part", timeout=30_000)
    took_s = watch.s
    tab.page.wait_for_function(AT_REST)
    run(tab, 3)
    tab.expect_text(f"{shown} >> nth=3", "(True, True)")
    assert took_s < 5  # the call ends in a tenth of that; the rest is the page's drawing on a busy machine
    (call,) = front(tab)["state"]["calls"]
    assert call["status"] == "cancelled"
