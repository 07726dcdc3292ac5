"""The bridge itself, without a kernel's processes: its thread, its listeners, and which calls are counted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nbllm import Client
from nbllm.current import get_client, set_process_client
from nbllm.flow_context import ONLOOKERS
from nbllm.notebook.lab.bridge import Bridge
from nbllm.testing import Script
from tests.client.helpers import HeldProvider, fake_client
from tests.notebook.lab.conftest import threads
from tests.notebook.lab.fakes import Shell


def test_nobody_listens_nothing_happens(bridge: Bridge, client: Client) -> None:
    """No thread, no onlooker, and loading the extension makes no client."""
    client.ask("x")
    assert (threads(), ONLOOKERS, bridge._desk) == ([], [], None)


def test_who_leaves_last_ends_it(bridge: Bridge, shell: Shell, client: Client) -> None:
    """The thread lives as long as somebody listens, and begins again with the next."""
    del bridge, client
    for number in range(3):
        first, second = shell.kernel.page(f"a{number}", "a"), shell.kernel.page(f"b{number}", "b")
        first.until(lambda first=first, second=second: first.state and second.state)
        assert len(threads()) == 1
        first.leave()
        second.leave()
        first.until(lambda: not threads() and not ONLOOKERS)


def test_before_the_first_call_no_home_is_made(bridge: Bridge, shell: Shell, client: Client, tmp_path: Any) -> None:
    """A page that listens sees zeros; nothing is opened for it."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    assert page.state["session"]["calls"] == 0
    assert not client.is_open
    assert not (tmp_path / "home").exists()


def test_calls_of_many_threads_and_clients_are_all_counted(bridge: Bridge, shell: Shell, client: Client, tmp_path: Any) -> None:
    """A hundred calls at once, hits among them, and another client's: the page shows as many as were made."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    with (
        fake_client(tmp_path / "home") as other,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda n: (other if n % 10 == 0 else client).ask(f"q{n % 50}"), range(100)))
    page.until(lambda: page.state["session"]["calls"] == 100 and not page.state["running"])
    assert page.state["session"]["running"] == 0
    assert len(page.state["calls"]) == 100


def test_calls_on_another_account_are_not_counted_here(bridge: Bridge, shell: Shell, client: Client, tmp_path: Any) -> None:
    """A client on another home, as a parity check has, pays into another ledger: the page shows what its own ledger has."""
    fake = HeldProvider()
    client.ask("mine")
    page = shell.kernel.page("a")
    page.until(lambda: page.state and page.state["session"]["calls"] == 1)
    with fake_client(tmp_path / "other", fake) as other, ThreadPoolExecutor(1) as pool:
        other.ask("theirs")
        fake.enqueue(Script(pieces=["a", "b"], hang=True))
        pending = pool.submit(lambda: list(other.stream("theirs, too")))
        page.until(lambda: fake.in_flight)
        client.ask("mine, too")
        page.until(lambda: page.state["session"]["calls"] == 2)
        assert bridge._desk is not None
        assert bridge._desk.watching.lives() == []
        fake.go.set()
        pending.result(30)
        client.ask("mine, at last")
        page.until(lambda: page.state["session"]["calls"] == 3)
        assert len(page.state["calls"]) == 3
        # The other one is set for the notebook: from now on it is its session that is shown.
        set_process_client(other)
        page.until(lambda: page.state["session"]["calls"] == 2)
        set_process_client(client)


def test_what_other_processes_add_to_a_named_session_is_seen(shell: Shell, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NBLLM_SESSION is shared: calls that this process is not told of are read from the ledger while a page listens; today too."""
    monkeypatch.setattr("nbllm.notebook.lab.desk.NAMED_S", 0.2)
    monkeypatch.setattr("nbllm.notebook.lab.desk.SESSION_S", 0.1)
    monkeypatch.setattr("nbllm.notebook.lab.desk.IDLE_S", 0.1)
    monkeypatch.setenv("NBLLM_SESSION", "shared")
    monkeypatch.setattr("nbllm.notebook.lab.bridge.ONLOOKERS", [])  # as in another process, nobody tells of the calls
    with fake_client(tmp_path / "home") as made:
        set_process_client(made)
        bridge = Bridge(shell, get_client, "0.1.0")
        bridge.open()
        try:
            made.ask("x")
            page = shell.kernel.page("a")
            page.until(lambda: page.state and page.state["session"]["calls"] == 1)
            for number in range(9):
                made.ask(f"{number}")
            page.until(lambda: page.state["session"]["calls"] == 10 and len(page.state["calls"]) == 10)
            page.until(lambda: page.state["today"] == {"cost_usd": page.state["session"]["cost_usd"], "calls": 10})
        finally:
            bridge.close()
            set_process_client(None)


def test_a_page_that_comes_in_the_middle_of_a_storm_is_right_in_the_end(bridge: Bridge, shell: Shell, client: Client) -> None:
    """The ledger is read while calls end; when it is over, the page shows what the ledger has."""
    del bridge
    stop = threading.Event()

    def storm() -> None:
        number = 0
        while not stop.is_set():
            client.ask(f"q{number % 30}", cache="refresh" if number % 3 else "use")
            number += 1

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(storm) for _ in range(2)]
        client.ask("first")
        page = shell.kernel.page("a")
        page.until(lambda: page.state and page.state["session"]["calls"] > 20)
        stop.set()
        [one.result() for one in running]
    (row,) = client.usage("total").rows
    want = (row.calls, row.hits, row.input_tokens)
    page.until(
        lambda: (page.state["session"]["calls"], page.state["session"]["hits"], page.state["session"]["input_tokens"]) == want
    )
