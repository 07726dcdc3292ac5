"""The calls that a page sees: how they run, how they are stopped, whose they are, what they may spend."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.core.messages import Chat, NullSink, Options, Origin, Request
from nbllm.current import get_client
from nbllm.errors import BudgetExceeded, CallFailed
from nbllm.flow_context import ONLOOKERS, ORIGIN, origin_now
from nbllm.notebook.lab.bridge import EARLY_S, Bridge
from nbllm.notebook.lab.origin import tag_of
from nbllm.notebook.lab.picture import Picture
from nbllm.notebook.lab.watching import Watching
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import HeldProvider
from tests.notebook.lab.fakes import Comm, Shell
from tests.notebook.lab.making import open_call, record


def test_a_stop_ends_the_call_and_nothing_else(bridge: Bridge, shell: Shell, client: Client, fake: HeldProvider) -> None:
    """Of two calls the one that is named."""
    del bridge
    page = shell.kernel.page("a")
    fake.enqueue(Script(pieces=["a"], hang=True), Script(pieces=["b", "c"], hang=True))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(client.stream("one")))
        page.until(lambda: page.state and page.state["running"])
        second = pool.submit(lambda: "".join(client.stream("two")))
        page.until(lambda: len(page.state["running"]) == 2)
        page.say({"v": 1, "type": "command", "id": "k", "do": "stop", "call_id": page.state["running"][0]["call_id"]})
        with pytest.raises(CallFailed, match="Stopped from the panel"):
            first.result(30)
        fake.go.set()
        assert second.result(30) == "bc"
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
        assert came.wait(30)
        page = shell.kernel.page("a")
        page.until(lambda: page.state and page.state["running"] and page.state["running"][0]["output_tokens"] == 10)
        assert page.state["running"][0]["stoppable"]
        page.say({"v": 1, "type": "command", "id": "k", "do": "stop", "call_id": page.state["running"][0]["call_id"]})
        with pytest.raises(CallFailed, match="Stopped from the panel"):
            first.result(30)


def test_nobody_is_waited_for_long(announcing: Bridge, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call after the first seconds finds that no page came, and nobody looks on any more."""
    assert len(ONLOOKERS) == 1
    client.ask("x")
    assert len(ONLOOKERS) == 1
    monkeypatch.setattr("nbllm.notebook.lab.bridge._clock_s", lambda: time.monotonic() + EARLY_S + 1)
    client.ask("y")
    assert ONLOOKERS == []
    assert announcing._desk is None


def test_without_a_page_no_call_is_kept(announcing: Bridge, shell: Shell, client: Client) -> None:
    """Before anybody says hello calls that ended leave nothing behind; the page that comes reads them from the ledger."""
    (early,) = ONLOOKERS
    for number in range(5):
        client.ask(f"{number}")
    assert early._ended == deque()
    assert early._live == {}
    page = shell.kernel.page("a")
    page.until(lambda: page.state and page.state["session"]["calls"] == 5)
    client.ask("now")
    page.until(lambda: page.state["session"]["calls"] == 6 and len(page.state["calls"]) == 6)
    assert announcing._early is None


def test_a_limit_that_is_set_shows_at_once(bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget is no call: a page of a quiet kernel sees it all the same, not only when it looks again."""
    del bridge
    monkeypatch.setattr("nbllm.notebook.lab.desk.IDLE_S", 3600.0)
    client.ask("x")
    page = shell.kernel.page("a")
    page.until(lambda: page.state and page.state["session"]["calls"] == 1)
    for limit_usd in ("5", "7"):
        client.set_budget("session", Decimal(limit_usd))
        page.until(lambda limit_usd=limit_usd: limit_usd in [one["hard_usd"] for one in page.state["budgets"]])


def test_calls_that_share_a_run_say_so(bridge: Bridge, shell: Shell, client: Client, fake: HeldProvider) -> None:
    """Two that wait for the same answer are marked; one alone is not."""
    del bridge
    page = shell.kernel.page("a")
    fake.enqueue(Script(pieces=["a", "b"], hang=True))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(client.stream("same")))
        page.until(lambda: page.state and page.state["running"] and not page.state["running"][0]["shared"])
        second = pool.submit(lambda: list(client.stream("same")))
        page.until(lambda: [one["shared"] for one in page.state["running"]] == [True, True])
        fake.go.set()
        first.result(30), second.result(30)
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
    lines = watching.running(watching.lives(), 1.0, 1.0)
    assert [line["shared"] for line in lines] == [True] + [False] * 49
    assert _Key.compared < 2_000


def test_a_call_costs_the_panel_a_few_steps(tmp_path: Path) -> None:
    """Counted in calls of functions, Python's and C's: in its way, when it is added to the sums, and while it is under way."""
    watching, number_of = Watching(lambda: None), 2_000
    requests = [Request(content=Chat(messages=()), options=Options(), call=open_call(number)) for number in range(number_of)]
    records = [record(number) for number in range(number_of)]
    sink = NullSink()

    def steps(work: Callable[[], object]) -> float:
        count = 0

        def step(_: object, event: str, __: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(step)
        try:
            work()
        finally:
            sys.setprofile(None)
        return count / number_of

    picture = Picture(watching)
    watching.of(tmp_path, "s")
    assert steps(lambda: [watching.begun(one, sink, lambda: None, tmp_path) for one in requests]) < 6
    assert steps(lambda: picture.state(1.0, 1.0)) < 5
    assert steps(lambda: [watching.over(one) for one in requests]) < 5
    assert steps(lambda: [watching.ended(one, tmp_path) for one in records]) < 5
    assert steps(lambda: picture.take(watching.take())) < 30
    assert picture.state(1.0, 1.0)["session"]["calls"] == number_of


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
