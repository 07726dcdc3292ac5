"""Who looks on: sees every call of the process go by, may end any of them, and costs nobody an answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client
from nbllm.core.messages import Attempt, AttemptStatus, CallRecord, Delta, Origin, Request, Sink
from nbllm.errors import AllRungsFailed, BudgetExceeded, CallFailed, ConnectionFailed, NbllmWarning
from nbllm.flow_context import CELLS, ONLOOKERS, ORIGIN
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import HeldProvider, fake_client, until

SLOW = Script(pieces=["a", "b"], hang=True)


class Seen:
    """Keeps what it sees; may stop each call as soon as its first piece is there."""

    def __init__(self, *, stops: bool = False) -> None:
        self.stops = stops
        self.under_way: dict[str, Callable[[], object]] = {}
        self.texts: dict[str, str] = {}
        self.records: list[CallRecord] = []
        self.homes: list[Path] = []
        self.came = threading.Event()

    def begun(self, request: Request, sink: Sink, stop: Callable[[], object], home: Path) -> Sink:
        assert request.call is not None
        self.under_way[request.call.call_id] = stop
        return _Passing(self, request.call.call_id, sink)

    def over(self, request: Request) -> None:
        assert request.call is not None
        del self.under_way[request.call.call_id]

    def ended(self, record: CallRecord, home: Path) -> None:
        self.records.append(record)
        self.homes.append(home)

    def changed(self) -> None:
        self.came.set()


class _Passing:
    def __init__(self, seen: Seen, call_id: str, sink: Sink) -> None:
        self.seen, self.call_id, self.sink = seen, call_id, sink

    def started(self, attempt: Attempt) -> None:
        self.sink.started(attempt)
        if attempt.streamed is False:
            self.seen.came.set()

    def delta(self, delta: Delta) -> None:
        self.seen.texts[self.call_id] = self.seen.texts.get(self.call_id, "") + delta.text
        self.sink.delta(delta)
        self.seen.came.set()
        if self.seen.stops:
            self.seen.under_way[self.call_id]()

    def restarted(self, reason: str) -> None:
        self.sink.restarted(reason)


@pytest.fixture
def seen() -> Iterator[Seen]:
    onlooker = Seen()
    ONLOOKERS.append(onlooker)
    yield onlooker
    ONLOOKERS.clear()


@pytest.fixture
def fake() -> HeldProvider:
    return HeldProvider()


@pytest.fixture
def client(tmp_path: Any, fake: FakeProvider) -> Iterator[Client]:
    with fake_client(tmp_path / "home", fake) as made:
        yield made


def test_every_door_and_every_client_is_seen(seen: Seen, client: Client, tmp_path: Any) -> None:
    """Calls by each door, of each client, hits included, are told when they end; afterwards none is under way."""

    async def asynchronous() -> None:
        await client.aask("two")
        async for _ in client.astream("three"):
            pass

    client.ask("one")
    client.ask("one")
    asyncio.run(asynchronous())
    list(client.stream("four"))
    client.embed(["five"])
    with fake_client(tmp_path / "other") as other:
        other.ask("six")
    assert [record.call.source for record in seen.records] == ["model", "cache", "model", "model", "model", "model", "model"]
    assert [home.name for home in seen.homes] == ["home"] * 6 + ["other"]
    assert seen.under_way == {}
    assert len({record.call.call_id for record in seen.records}) == 7


def test_a_budget_that_refused_is_told(seen: Seen, tmp_path: Path) -> None:
    """Whatever became of the call: refused outright, a cascade that went without its next model, or one error for every model."""
    cascade = {
        "strategy": "cascade",
        "models": ["sim/small", "sim/large"],
        "accept": "valid",
        "check": lambda text: "large" in text,
    }
    fakes = {"simulated": FakeProvider("an answer", default=Script(pieces=["another"]))}
    with Client(home=tmp_path / "home", providers=fakes, model="sim/large", routes={"r": cascade}) as client:
        with pytest.warns(NbllmWarning, match="this is the best one so far"):
            reply = client.ask("a question", model="r", max_tokens=400, budget_usd=0.0005)
        assert (reply.text, reply.accepted, seen.records[-1].refused) == (
            "an answer",
            False,
            (f"request:{reply.call_id}", Decimal("0.0005")),
        )
        client.set_budget("session", Decimal("0.0000001"))
        with pytest.raises(BudgetExceeded):
            client.ask("another question")
        assert seen.records[-1].refused == (f"session:{client.session}", Decimal("0.0000001"))
        client.set_budget("session", None)
        client.ask("a third question")
        assert seen.records[-1].refused is None


def test_a_refusal_among_the_causes_is_told(seen: Seen, tmp_path: Path) -> None:
    """One error for several models that holds a budget's refusal tells of it, deep down too; of several it is the last."""

    def refusal(scope: str) -> BudgetExceeded:
        nothing = Decimal(0)
        return BudgetExceeded(scope=scope, limit_usd=Decimal(1), spent_usd=nothing, reserved_usd=nothing, needed_usd=Decimal(2))

    other = ConnectionFailed("x", whole_endpoint=False)
    inner = AllRungsFailed("x", [refusal("day"), refusal("user:b"), other])
    for error in (AllRungsFailed("x", [refusal("user:b"), other]), AllRungsFailed("x", [refusal("day"), inner])):
        fakes = {"simulated": FakeProvider(error)}
        with Client(home=tmp_path / "home", providers=fakes, model="sim/small") as client, pytest.raises(AllRungsFailed):
            client.ask("a question")
        assert seen.records[-1].refused == ("user:b", Decimal(1))


def test_nobody_pays_for_what_nobody_looks_at(client: Client) -> None:
    """Without an onlooker nothing is kept of a call, and one that comes later sees only later calls."""
    client.ask("before")
    late = Seen()
    ONLOOKERS.append(late)
    try:
        client.ask("after")
    finally:
        ONLOOKERS.clear()
    client.ask("gone")
    assert len(late.records) == 1


@pytest.mark.parametrize("door", ["ask", "stream", "aask", "start"])
def test_a_call_that_is_stopped_fails_and_keeps_its_text(client: Client, fake: FakeProvider, seen: Seen, door: str) -> None:
    """Its caller gets CallFailed that says so, with what came; the row says cancelled; the provider's request is ended."""
    seen.stops = True
    fake.enqueue(SLOW, "well again")

    def ask() -> None:
        if door == "ask":
            threading.Thread(target=lambda: seen.came.wait(30) and [stop() for stop in [*seen.under_way.values()]]).start()
            client.ask("x")
        elif door == "stream":
            list(client.stream("x"))
        elif door == "start":
            assert client.start("x").reply
        else:
            threading.Thread(target=lambda: seen.came.wait(30) and [stop() for stop in [*seen.under_way.values()]]).start()
            asyncio.run(client.aask("x"))

    with pytest.raises(CallFailed, match="Stopped from the panel") as caught:
        ask()
    (record,) = seen.records
    assert caught.value.call_id == record.call.call_id
    assert record.call.status is AttemptStatus.CANCELLED
    assert fake.cancelled == 1
    if door in ("stream", "start"):
        assert caught.value.partial is not None
        assert caught.value.partial.text.startswith("a")
    assert seen.under_way == {}
    seen.stops = False
    assert client.ask("y").text == "well again"


def test_a_task_of_the_user_lives_on_after_a_stop(client: Client, fake: FakeProvider, seen: Seen) -> None:
    """On the client's own loop, too, a stop ends the call and not the task that made it, which is not marked as cancelled."""
    seen.stops = True
    fake.enqueue(SLOW)

    async def work() -> tuple[str, int]:
        client.adopt_loop()
        said = ""
        try:
            async for _ in client.astream("x"):
                pass
        except CallFailed as exc:
            said = exc.summary
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        await client.aclose()
        return said, task.cancelling()

    assert asyncio.run(work()) == ("Stopped from the panel.", 0)


def test_a_stop_ends_one_waiter_of_a_shared_run(client: Client, fake: HeldProvider, seen: Seen) -> None:
    """Whoever waits for the same answer gets it."""
    fake.enqueue(Script(pieces=["long", " answer"], hang=True))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(client.stream("same")))
        until(lambda: seen.under_way)
        second = pool.submit(lambda: list(client.stream("same")))
        until(lambda: len(seen.under_way) == 2)
        next(iter(seen.under_way.values()))()
        with pytest.raises(CallFailed, match="Stopped"):
            first.result(30)
        fake.go.set()
        assert "".join(second.result(30)).endswith("long answer")
    assert fake.calls == 1


def test_a_stop_that_comes_too_late_does_nothing(client: Client, seen: Seen) -> None:
    """After the end of a call its stop is no error, and ends nobody else's call."""
    kept: list[Callable[[], object]] = []
    begun = seen.begun
    seen.begun = lambda request, sink, stop, home: (kept.append(stop), begun(request, sink, stop, home))[1]  # type: ignore[method-assign]
    client.ask("one")
    kept[0]()
    assert client.ask("two").text == "ok"


def test_where_a_call_was_made_is_in_its_row(client: Client) -> None:
    """The cell of the code that asks; in a pool's thread the cell that runs; outside of cells nothing."""
    here, running = Origin("cell-1", "0" * 16), Origin("cell-2", "1" * 16)
    token = ORIGIN.set(here)
    try:
        client.ask("a")
        CELLS.running = running
        with ThreadPoolExecutor(1) as pool:
            pool.submit(client.ask, "b").result(30)
        client.ask("b")
    finally:
        ORIGIN.reset(token)
        CELLS.running = Origin()
    client.ask("c")
    rows = {row.started_at: (row.cell_id, row.notebook) for row in client.ledger.calls(client._filter({}), limit=9)}
    assert [rows[at] for at in sorted(rows)] == [here, running, here, (None, None)]


def test_a_notebook_may_use_the_cache_in_its_own_way(client: Client, fake: FakeProvider) -> None:
    """Its calls that say nothing else are asked anew; others, and those that say how, are not concerned."""
    CELLS.modes["a"] = "refresh"
    token = ORIGIN.set(Origin("c", "a"))
    try:
        client.ask("x"), client.ask("x")
        assert fake.calls == 2
        assert client.ask("x", cache="use").source == "cache"
        assert client.ask("x", retries=1).source == "model"
        ORIGIN.set(Origin("c", "b"))
        assert client.ask("x").source == "cache"
    finally:
        ORIGIN.reset(token)
        CELLS.modes.clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_not_looked_at(seen: Seen) -> None:
    """Whatever looks on in the parent has nobody to show it to in a child."""
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.write(write, str(len(ONLOOKERS)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 9) == b"0"
    assert [seen] == ONLOOKERS
