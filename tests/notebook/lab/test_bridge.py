"""The bridge itself, without a kernel's processes: its thread, its listeners, and what happens when things go wrong."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client
from nbllm.core.messages import Call, Chat, NullSink, Options, Origin, Request
from nbllm.current import get_client, set_process_client
from nbllm.errors import BudgetExceeded, CallFailed
from nbllm.flow_context import CELLS, ONLOOKERS, ORIGIN, origin_now
from nbllm.notebook.lab.bridge import EARLY_S, MOST_COMMS, Bridge
from nbllm.notebook.lab.origin import tag_of
from nbllm.notebook.lab.watching import Watching
from nbllm.testing import FakeProvider, Script
from tests.notebook.lab.fakes import Comm, Shell
from tests.notebook.lab.making import record


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def client(tmp_path: Any, fake: FakeProvider) -> Iterator[Client]:
    with Client(home=tmp_path / "home", providers={"simulated": fake}, model="sim/small") as made:
        set_process_client(made)
        yield made
        set_process_client(None)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr("comm.create_comm", lambda **_: None)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return Shell()


@pytest.fixture
def bridge(shell: Shell) -> Iterator[Bridge]:
    made = Bridge(shell, get_client, "0.1.0")
    made.open()
    yield made
    made.close()
    assert threads() == []
    assert ONLOOKERS == []


def open_call(number: int) -> Call:
    return Call(call_id=f"c{number:06}", session="s", started_at=1000.0 + number, started_s=1.0, deadline_at_s=9.0, payer=Options())


def held_bytes() -> int:
    """What was made by the panel's code, or for it here, and is still held; price lists and the like, read once, are not."""
    ours = [tracemalloc.Filter(True, f"*/{folder}/*") for folder in ("nbllm/notebook/lab", "tests/notebook/lab")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nbllm-lab"]


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
        Client(home=tmp_path / "home", providers={"simulated": FakeProvider()}, model="sim/small") as other,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda n: (other if n % 10 == 0 else client).ask(f"q{n % 50}"), range(100)))
    page.until(lambda: page.state["session"]["calls"] == 100 and not page.state["running"])
    assert page.state["session"]["running"] == 0
    assert len(page.state["calls"]) == 100


def test_calls_on_another_account_are_not_counted_here(bridge: Bridge, shell: Shell, client: Client, tmp_path: Any) -> None:
    """A client on another home, as a parity check has, pays into another ledger: the page shows what its own ledger has."""
    fake = FakeProvider()
    client.ask("mine")
    page = shell.kernel.page("a")
    page.until(lambda: page.state and page.state["session"]["calls"] == 1)
    with Client(home=tmp_path / "other", providers={"simulated": fake}, model="sim/small") as other, ThreadPoolExecutor(1) as pool:
        other.ask("theirs")
        fake.enqueue(Script(pieces=["a", "b"], gap_s=0.3))
        pending = pool.submit(lambda: list(other.stream("theirs, too")))
        client.ask("mine, too")
        page.until(lambda: page.state["session"]["calls"] == 2)
        assert bridge._desk is not None
        assert bridge._desk.watching.running(0.0, 0.0) == []
        pending.result(5)
        client.ask("mine, at last")
        page.until(lambda: page.state["session"]["calls"] == 3)
        assert len(page.state["calls"]) == 3
        # The other one is set for the notebook: from now on it is its session that is shown.
        set_process_client(other)
        page.until(lambda: page.state["session"]["calls"] == 2)
        set_process_client(client)


def test_what_other_processes_add_to_a_named_session_is_seen(shell: Shell, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NBLLM_SESSION is shared: calls that this process is not told of are read from the ledger while a page listens."""
    monkeypatch.setattr("nbllm.notebook.lab.desk.NAMED_S", 0.2)
    monkeypatch.setattr("nbllm.notebook.lab.desk.SESSION_S", 0.1)
    monkeypatch.setattr("nbllm.notebook.lab.desk.IDLE_S", 0.1)
    monkeypatch.setenv("NBLLM_SESSION", "shared")
    monkeypatch.setattr("nbllm.notebook.lab.bridge.ONLOOKERS", [])  # as in another process, nobody tells of the calls
    with Client(home=tmp_path / "home", providers={"simulated": FakeProvider()}, model="sim/small") as made:
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
    page.until(lambda: page.state, within_s=3)
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
    monkeypatch.setattr("nbllm.notebook.lab.report.report", lambda *_: "done" if go_on.wait(10) else "")

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


def test_a_stop_ends_the_call_and_nothing_else(bridge: Bridge, shell: Shell, client: Client, fake: FakeProvider) -> None:
    """Of two calls the one that is named."""
    del bridge
    page = shell.kernel.page("a")
    fake.enqueue(Script(pieces=["a"], hang=True), Script(pieces=["b", "c"], gap_s=0.3))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(client.stream("one")))
        page.until(lambda: page.state and page.state["running"])
        second = pool.submit(lambda: "".join(client.stream("two")))
        page.until(lambda: len(page.state["running"]) == 2)
        page.say({"v": 1, "type": "command", "id": "k", "do": "stop", "call_id": page.state["running"][0]["call_id"]})
        with pytest.raises(CallFailed, match="Stopped from the panel"):
            first.result(2)
        assert second.result(5) == "bc"
    page.until(lambda: page.state["session"]["calls"] == 2)
    assert sorted(line["status"] for line in page.state["calls"]) == ["cancelled", "done"]
    assert {line["error"] for line in page.state["calls"]} == {None, "Stopped"}


@pytest.fixture
def announcing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    """A bridge whose announcement reached a front end: pages may be on their way."""
    monkeypatch.setattr("comm.create_comm", lambda **_: Comm("announced"))
    made = Bridge(shell, get_client, "0.1.0")
    made.open()
    yield made
    made.close()
    assert ONLOOKERS == []


def test_a_call_that_began_before_the_page_came_is_seen_and_stopped(
    announcing: Bridge, shell: Shell, client: Client, fake: FakeProvider
) -> None:
    """Run All makes the first call while the page's hello is on its way."""
    del announcing
    fake.enqueue(Script(pieces=["a" * 40], hang=True))
    with ThreadPoolExecutor(1) as pool:
        came = threading.Event()

        def read() -> None:
            for _ in client.stream("one"):
                came.set()

        first = pool.submit(read)
        assert came.wait(10)
        page = shell.kernel.page("a")
        page.until(lambda: page.state and page.state["running"] and page.state["running"][0]["output_tokens"] == 10)
        assert page.state["running"][0]["stoppable"]
        page.say({"v": 1, "type": "command", "id": "k", "do": "stop", "call_id": page.state["running"][0]["call_id"]})
        with pytest.raises(CallFailed, match="Stopped from the panel"):
            first.result(5)


def test_nobody_is_waited_for_long(announcing: Bridge, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call after the first seconds finds that no page came, and nobody looks on any more."""
    assert len(ONLOOKERS) == 1
    client.ask("x")
    assert len(ONLOOKERS) == 1
    later_s = time.monotonic() + EARLY_S + 1
    monkeypatch.setattr("nbllm.notebook.lab.bridge.time.monotonic", lambda: later_s)
    client.ask("y")
    assert ONLOOKERS == []
    assert announcing._desk is None


def test_calls_that_share_a_run_say_so(bridge: Bridge, shell: Shell, client: Client, fake: FakeProvider) -> None:
    """Two that wait for the same answer are marked; one alone is not."""
    del bridge
    page = shell.kernel.page("a")
    fake.enqueue(Script(pieces=["a", "b"], gap_s=0.6))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(client.stream("same")))
        page.until(lambda: page.state and page.state["running"] and not page.state["running"][0]["shared"])
        second = pool.submit(lambda: list(client.stream("same")))
        page.until(lambda: [one["shared"] for one in page.state["running"]] == [True, True])
        first.result(5), second.result(5)
    assert fake.calls == 1


class _Key(str):
    """A key that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Key.compared += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


def test_a_crowd_costs_a_look_as_many_steps_as_it_has_calls(tmp_path: Path) -> None:
    """Who shares a run is told without comparing everybody with everybody, and at most fifty are shown."""
    watching = Watching(lambda: None)
    for number in range(400):
        call = open_call(number)
        call.key = _Key(number % 399)  # the first and the last are the same
        request = Request(content=Chat(messages=()), options=Options(), call=call)
        watching.begun(request, NullSink(), lambda: None, tmp_path)
    _Key.compared = 0
    lines = watching.running(1.0, 1.0)
    assert [line["shared"] for line in lines] == [True] + [False] * 49
    assert _Key.compared < 2_000


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


def test_a_budget_that_refuses_shows_so_until_it_is_raised(bridge: Bridge, shell: Shell, client: Client) -> None:
    """A call that is too dear for what is left is refused; the bar is at its limit, and no more when the limit is another."""
    del bridge
    client.ask("hi", max_tokens=50)
    page = shell.kernel.page("a")
    client.set_budget("session", client.spent_session_usd() + Decimal("0.000001"))

    def level() -> str:
        return next((one["level"] for one in page.state["budgets"] if one["scope"] == "session"), "")

    page.until(lambda: page.state and level())
    assert level() in ("ok", "soft")
    with pytest.raises(BudgetExceeded):
        client.ask("another " * 50, max_tokens=500)
    page.until(lambda: level() == "hard")
    client.set_budget("session", Decimal(5))
    client.ask("hi", max_tokens=50)  # a hit: it asks no budget
    page.until(lambda: level() == "ok")


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


def test_cells_are_noted_as_the_kernel_says(bridge: Bridge, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell and notebook come from the request that is executed; in other threads they are those of the cell that runs."""
    del bridge
    shell.kernel.page("session-a", "work/a.ipynb").leave()
    (entered,), (left,) = shell.events.callbacks["pre_run_cell"], shell.events.callbacks["post_run_cell"]
    token = ORIGIN.set(None)
    try:
        shell.kernel.parent = {"metadata": {"cellId": "cell-1"}, "header": {"session": "session-a"}}
        entered(None)
        origin = Origin("cell-1", tag_of("work/a.ipynb"))
        assert origin_now() == origin
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(origin_now).result() == origin
            left(None)
            assert pool.submit(origin_now).result() == Origin()
        for parent in (
            {},
            {"metadata": None},
            {"metadata": {"cellId": 7}, "header": {"session": "x"}},
            {"metadata": {"cellId": "c" * 65}},
            {"metadata": {"cellId": "vscode-notebook-cell:/home/ann/a.ipynb#W0"}, "header": {"session": "x"}},
        ):
            shell.kernel.parent = parent
            entered(None)
            assert origin_now() == Origin()
    finally:
        ORIGIN.reset(token)
        left(None)


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
    """A socket that takes half a second a message holds up nobody who asks."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state)
    client.ask("x")
    slow = threading.Event()
    monkeypatch.setattr(shell.kernel, "send", lambda *_, **__: slow.wait(0.5))
    began_s = time.monotonic()
    for _ in range(20):
        client.ask("x")
    assert time.monotonic() - began_s < 0.4
    slow.set()
