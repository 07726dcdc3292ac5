"""The road of several clients on one Redis: shared answers, runs, money and breakers, and what happens while Redis is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, Endpoint
from nbllm.errors import BreakerOpen, BudgetExceeded, BudgetUnavailable, NbllmError, ServerFailed
from nbllm.storage.redis_shared import open_shared
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, until
from tests.redis_server import RedisServer
from tests.starvation import Stopwatch

Replica = Callable[..., Client]
pytestmark = pytest.mark.filterwarnings("ignore::nbllm.errors.NbllmWarning")  # that Redis is gone is said with each answer


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis that is empty, and that runs again for the next test."""
    redis_server.flush()
    yield redis_server
    redis_server.stop()
    redis_server.start()


@pytest.fixture
def replica(server: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """What makes one more client with a home of its own on the shared Redis."""
    with ExitStack() as stack:
        made: list[Client] = []

        def make(fake: FakeProvider | None = None, **values: Any) -> Client:
            values.setdefault("shared", server.url)
            made.append(stack.enter_context(fake_client(tmp_path / f"home{len(made)}", fake, **values)))
            return made[-1]

        yield make


def test_replicas_share_answers(replica):
    """What one has bought the other has in its cache, and counts it as saved."""
    fake = FakeProvider().enqueue("Rhine")
    first, second = replica(fake), replica(fake)
    assert first.ask("Name a river.").source == "model"
    reply = second.ask("Name a river.")
    assert (reply.text, reply.source, reply.cost_usd) == ("Rhine", "cache", Decimal(0))
    assert second.store.stats().entries == 1
    assert len(fake.requests) == 1


def test_equal_calls_of_two_replicas_are_bought_once(replica):
    """Of 40 equal calls at the same time on two replicas one goes out; the others get its answer."""
    fake = FakeProvider(default=lambda _: Script(pieces=["Rhine"], first_after_s=0.2))
    clients = [replica(fake), replica(fake)]

    async def run() -> list[Any]:
        return await asyncio.gather(*(clients[number % 2].aask("Name a river.") for number in range(40)))

    replies = asyncio.run(run())
    assert {reply.text for reply in replies} == {"Rhine"}
    assert len(fake.requests) == 1


def test_a_budget_worth_two_calls_lets_two_through(server, tmp_path):
    """Of 30 calls at the same time on three replicas, with a budget for the worst case of two, two are sent."""
    lab = Endpoint(base_url="http://127.0.0.1:9/v1", input_usd_per_mtok=0, output_usd_per_mtok=1000)
    fake = FakeProvider(default=lambda _: Script(pieces=["short"], first_after_s=0.3))
    values = {"endpoints": {"lab": lab}, "model": "lab/m", "providers": {"openai_compatible": fake}, "budget_session_usd": "0.6"}
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(home=tmp_path / f"h{n}", shared=server.url, session="one", **values)) for n in range(3)
        ]

        async def run() -> list[Any]:
            asks = (clients[n % 3].aask(f"Question {n}", max_tokens=256, cache="off") for n in range(30))
            return await asyncio.gather(*asks, return_exceptions=True)

        outcomes = asyncio.run(run())
        assert sorted(type(one).__name__ for one in outcomes) == ["BudgetExceeded"] * 28 + ["Reply"] * 2
        assert len(fake.requests) == 2
        for client in clients:
            (line,) = [line for line in client.budget_lines() if line.scope == "session:one"]
            assert line.reserved_usd == 0
            assert 0 < line.spent_usd < Decimal("0.1"), "what they cost, not what they might have"


def test_a_breaker_opened_on_one_is_seen_by_the_other(replica):
    """Five failures on one replica, and a quarter of a second later the other asks the model no more."""
    failing = FakeProvider(default=ServerFailed)
    first, second = replica(failing, retries=0), replica(failing, retries=0)
    for number in range(8):
        with pytest.raises(NbllmError):
            first.ask(f"Question {number}", cache="off")
    sent = len(failing.requests)
    assert sent == 5
    time.sleep(1.0)
    with pytest.raises(BreakerOpen):
        second.ask("And you?", cache="off")
    assert len(failing.requests) == sent


def test_redis_goes_and_comes_back(replica, server):
    """Without Redis answers go on, uncached and in time; with it the cache works again, without a restart of anything."""
    client = replica(FakeProvider(default=lambda _: "fine"))
    assert client.ask("One", deadline_s=5).source == "model"
    server.stop()
    for number in range(5):
        watch = Stopwatch(others=True)
        assert client.ask("One", deadline_s=5).source == "model", number
        assert watch.s < 1.5
    server.start()
    until(lambda: client.ask("One").source == "cache")


def test_money_fails_closed_unless_told_otherwise(replica, server):
    """A hard budget that nobody can check lets nothing be sent; with on_state_loss="allow" it lets everything."""
    fake = FakeProvider(default=lambda _: "fine")
    refusing = replica(fake, budget_session_usd=5)
    allowing = replica(fake, budget_session_usd=5, shared=open_shared(server.url, on_state_loss="allow"))
    assert refusing.ask("Zero", cache="off").text == "fine"
    server.stop()
    sent = len(fake.requests)
    with pytest.raises(NbllmError) as caught:
        refusing.ask("One", cache="off")
    assert isinstance(caught.value, BudgetUnavailable)
    assert len(fake.requests) == sent
    assert allowing.ask("Two", cache="off").text == "fine"
    server.start()
    time.sleep(2.0)
    assert refusing.ask("Three", cache="off").text == "fine"


def test_a_frozen_redis_never_outlasts_the_deadline(replica, server):
    """A Redis that takes connections and says nothing does not keep a call beyond its deadline, and most not at all."""
    client = replica(FakeProvider(default=lambda _: "fine"))
    client.ask("warm up")
    server.freeze()
    try:
        for number in range(6):
            watch = Stopwatch(others=True)
            try:
                client.ask(f"Question {number}", deadline_s=0.4)
            except NbllmError:
                assert number == 0 or watch.lost_s > 0.1, "only the call that finds out may have to wait for so long"
            assert watch.s < 0.5 + 0.1
    finally:
        server.thaw()


def test_no_secret_reaches_redis(server, tmp_path, monkeypatch):
    """Neither keys nor headers of providers, nor what a server echoes of them, are among the keys and values."""
    secret = "sk-test-5f1c2d3e4b5a69788796a5b4c3d2e1f0"
    monkeypatch.setenv("LAB_KEY", secret)
    fake = FakeProvider().enqueue(f"Your key is {secret}.", "a plain answer")
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", api_key_env="LAB_KEY")
    with Client(
        home=tmp_path / "h", endpoints={"lab": endpoint}, model="lab/m", providers={"openai_compatible": fake}, shared=server.url
    ) as client:
        client.ask("One")
        client.ask("Two")
    with server.client() as plain:
        found = b"\n".join(name + b"\n" + (plain.dump(name) or b"") for name in plain.keys("*"))
    assert b"a plain answer" in found, "or else nothing was looked at"
    assert secret.encode() not in found
    assert "hunter2secret" not in repr(open_shared("redis://user:hunter2secret@localhost:6379/0"))


def test_a_closed_client_leaves_nothing(server, tmp_path):
    """Neither a connection nor a thread is left, and what was spent is booked before the end."""
    client = fake_client(tmp_path / "h", FakeProvider(default=lambda _: "fine"), shared=server.url, budget_session_usd=5)
    with client:
        client.ask("One")
        with server.client() as plain:
            assert len(plain.client_list()) == 2
    with server.client() as plain:
        assert len(plain.client_list()) == 1
        assert not plain.keys("*:held:*")
    assert our_threads() == []


def test_a_worker_without_redis_says_what_it_needs(tmp_path):
    """Before anything starts, by the variable's name."""
    environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    done = subprocess.run(
        [sys.executable, "-c", "import nbllm.service.worker"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "REDIS_URL is not set" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_anew(replica, server):
    """Parent and child go on after a fork, each on a connection of its own, and the parent's is not disturbed."""
    client = replica(FakeProvider(default=lambda _: "fine"), budget_session_usd=5)
    assert client.ask("One").source == "model"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            good = client.ask("One").source == "cache" and client.ask("Two").source == "model"
            code = 0 if good else 2
        finally:
            os._exit(code)
    assert client.ask("Three").source == "model"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.ask("Two").source == "cache"
    with pytest.raises(BudgetExceeded):
        client.ask("Four", budget_usd="0.00000001", cache="off")
