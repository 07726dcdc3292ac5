"""Sends that fail, ledgers that cannot be read, floods, crowds of pages, forks, ten thousand calls: no call feels any of it."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from typing import Any

import pytest

from nbllm import Client
from nbllm.core.messages import Chat, NullSink, Options, Request
from nbllm.flow_context import CELLS, ONLOOKERS
from nbllm.notebook.lab.bridge import MOST_COMMS, Bridge
from tests.notebook.lab.fakes import Shell
from tests.notebook.lab.making import open_call, record
from tests.starvation import within


def held_bytes() -> int:
    """What was made by the panel's code, or for it here, and is still held; price lists and the like, read once, are not."""
    ours = [tracemalloc.Filter(True, f"*/{folder}/*") for folder in ("nbllm/notebook/lab", "tests/notebook/lab")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)


def test_a_send_that_fails_costs_no_call(bridge: Bridge, shell: Shell, client: Client) -> None:
    """A socket that is gone: calls go on, and when it is there again the page is brought up to date."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    shell.kernel.breaks = OSError("gone")
    assert client.ask("x").text == "ok"
    page.until(lambda: not page.state["running"])
    shell.kernel.breaks = None
    client.ask("y")
    page.say({"v": 1, "type": "ask_snapshot"})
    page.until(lambda: page.state["session"]["calls"] == 2)


def test_a_ledger_that_cannot_be_read_leaves_what_is_known(
    bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is counted from the hooks alone, and nothing fails."""
    del bridge
    client.ask("opened")
    monkeypatch.setattr("nbllm.notebook.lab.desk.read_session", lambda _: 1 / 0)
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    client.ask("x")
    page.until(lambda: page.state["session"]["calls"] == 1)


def test_commands_come_back_whatever_happens(bridge: Bridge, shell: Shell, client: Client) -> None:
    """A budget that makes no sense, a call that is not there, a console's cache: each is told, none fails in the kernel."""
    del bridge
    client.ask("x")
    page = shell.kernel.page("a", None)
    asked = [
        {"do": "set_budget", "usd": "5.00"}, {"do": "clear_cache"}, {"do": "why", "call_id": "nobody"}, {"do": "report"},
        {"do": "stop", "call_id": "nobody"}, {"do": "cache_mode", "mode": "off"},
    ]  # fmt: skip
    for number, command in enumerate(asked):
        page.say({"v": 1, "type": "command", "id": f"k{number}", **command})
    page.until(lambda: len([one for one in page.heard if isinstance(one, dict)]) == len(asked))
    results = {one["id"]: one for one in page.heard if isinstance(one, dict)}
    assert [results[f"k{number}"]["ok"] for number in range(6)] == [True, False, False, True, False, False]
    assert str(client.settings.budgets.session_usd) == "5.00"
    assert "no notebook" in results["k1"]["message"]
    assert "no notebook" in results["k5"]["message"]
    assert CELLS.modes == {}


def test_a_flood_of_commands_does_not_pile_up(
    bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of a page may wait; the others are told at once. When the eight are done, more are taken."""
    client.ask("x")
    page, other = shell.kernel.page("a"), shell.kernel.page("b", "b.ipynb")
    page.until(lambda: page.state and other.state)
    go_on = threading.Event()
    monkeypatch.setattr("nbllm.notebook.lab.report.report", lambda *_: "done" if go_on.wait(30) else "")

    def results() -> list[bool]:
        return [one["ok"] for one in page.heard if isinstance(one, dict)]

    for number in range(100):
        page.say({"v": 1, "type": "command", "id": f"k{number}", "do": "report"})
    assert results() == [False] * 92
    page.say({"v": 1, "type": "command", "id": "m", "do": "cache_mode", "mode": None})
    assert results() == [*[False] * 92, True]
    go_on.set()
    page.until(lambda: sum(results()) == 9)
    other.say({"v": 1, "type": "command", "id": "k", "do": "report"})
    page.until(lambda: any(isinstance(one, dict) for one in other.heard))
    page.say({"v": 1, "type": "command", "id": "again", "do": "report"})
    page.until(lambda: sum(results()) == 10)


def test_no_more_than_thirty_two_pages(bridge: Bridge, shell: Shell, client: Client) -> None:
    """Pages that were reloaded again and again do not add up: the oldest comm is closed."""
    del bridge, client
    pages = [shell.kernel.page(f"c{number}", f"n{number}") for number in range(MOST_COMMS + 5)]
    assert sum(page.closed for page in pages) == 5
    pages[-1].until(lambda: pages[-1].state)


def test_a_page_is_let_in_whatever_becomes_of_the_others(bridge: Bridge, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be said goodbye to, and others that left while room was made, turn nobody away."""
    pages = [shell.kernel.page(f"c{number}", f"n{number}") for number in range(MOST_COMMS)]
    monkeypatch.setattr(pages[0], "close", lambda: 1 / 0)
    shell.kernel.page("late", "late").until(lambda: shell.kernel.comms["late"].state)

    class Emptied(dict[str, Any]):
        """Another thread was quicker, after its length was read."""

        def __len__(self) -> int:
            return MOST_COMMS

    monkeypatch.setattr(bridge, "_comms", Emptied())
    last = shell.kernel.page("last", "last")
    last.until(lambda: last.state)
    last.leave()


def test_memory_stays_flat_over_ten_thousand_calls(bridge: Bridge, shell: Shell, client: Client) -> None:
    """With a page that listens: what is kept is the newest two hundred lines, whatever was made."""
    page = shell.kernel.page("a")
    client.ask("x")
    page.until(lambda: page.state and page.state["session"]["calls"] == 1)
    desk = bridge._desk
    assert desk is not None
    page.until(lambda: desk._picture.exact)  # the ledger has none of what comes now, and is read no more
    requests = [Request(content=Chat(messages=()), options=Options()).opened(call) for call in map(open_call, range(12_000))]

    def calls(first: int, after: int) -> None:
        for number in range(first, after):
            desk.watching.begun(requests[number], NullSink(), lambda: None, client.settings.home)
            desk.watching.ended(record(number, session=client.session), client.settings.home)
            desk.watching.over(requests[number])
            if number % 2000 == 0:
                page.until(lambda number=number: page.state["session"]["calls"] > number)
        page.until(lambda: page.state["session"]["calls"] == after + 1)
        page.heard.clear(), page.at_s.clear()
        gc.collect()

    tracemalloc.start()
    try:
        calls(0, 2_000)
        before = held_bytes()
        calls(2_000, 12_000)
        # Soon, not at once: what came last is let go of when the thread is done with it.
        page.until(lambda: held_bytes() - before < 500_000)
    finally:
        tracemalloc.stop()
    assert len(page.state["calls"]) == 200
    assert not page.state["running"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_child_the_bridge_holds_nothing(bridge: Bridge, shell: Shell, client: Client) -> None:
    """No desk, no thread, no page: those are the parent's, which goes on."""
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    read, write = os.pipe()
    if not (pid := os.fork()):
        left = (bridge._desk, bridge._thread, bridge._comms, ONLOOKERS)
        os.write(write, repr(left).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 99) == b"(None, None, {}, [])"
    client.ask("x")
    page.until(lambda: page.state["session"]["calls"] == 1)


def test_a_wait_for_the_page_is_no_wait_for_a_call(
    bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is stuck holds up nobody who asks."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    client.ask("x")
    slow = threading.Event()
    monkeypatch.setattr(shell.kernel, "send", lambda *_, **__: slow.wait(60))
    try:
        with within(5):
            for _ in range(20):
                client.ask("x")
    finally:
        slow.set()
