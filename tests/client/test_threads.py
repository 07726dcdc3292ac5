"""Many threads on one client, several clients on one home, and which client is the current one where."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

import nbllm
from nbllm import Client, errors
from nbllm.core.messages import Ending, Usage
from nbllm.core.ports import Wire
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, rows


def echo(wire: Wire) -> str:
    """Answer with the prompt."""
    return f"You said: {wire.content.messages[-1]['content']}"


@pytest.fixture
def no_process_client() -> Iterator[None]:
    """No client of other tests before, none of ours after."""
    nbllm.set_process_client(None)
    yield
    nbllm.get_client().close()
    nbllm.set_process_client(None)


def test_fifty_threads(tmp_path: Path) -> None:
    """Fifty threads on one client each get their own answers, by every door, and every call has its rows."""
    fake = FakeProvider(default=echo)
    start = threading.Barrier(50)
    with fake_client(tmp_path, fake) as client:

        def work(number: int) -> list[str]:
            start.wait(30)
            asked = client.ask(f"a{number}").text
            streamed = "".join(client.stream(f"b{number}"))
            awaited = asyncio.run(client.aask(f"c{number}")).text
            return [asked, streamed, awaited]

        with ThreadPoolExecutor(50) as pool:
            got = list(pool.map(work, range(50)))
        assert got == [[f"You said: {letter}{number}" for letter in "abc"] for number in range(50)]
        assert fake.calls == 150
        assert Counter(row.status.value for row in rows(client)) == {"done": 150}
    assert our_threads() == []


def test_five_hundred_identical_calls(tmp_path: Path) -> None:
    """Five hundred threads that ask the same cost one request; the others' rows say coalesced or cache, and cost 0."""
    fake = FakeProvider(default=Script(pieces=("Once.",), first_after_s=0.2))
    start = threading.Barrier(500)
    with fake_client(tmp_path, fake) as client:

        def work(_: int) -> tuple[str, bool, Decimal | None, int]:
            start.wait(30)
            reply = client.ask("the same")
            return reply.text, reply.coalesced or reply.source == "cache", reply.cost_usd, len(reply.attempts)

        with ThreadPoolExecutor(500) as pool:
            got = Counter(pool.map(work, range(500)))
        assert fake.calls == 1
        assert sum(got.values()) == 500
        assert got["Once.", True, Decimal(0), 0] == 499
        booked = rows(client)
        assert sum(row.coalesced for row in booked if row.source == "model") >= 1
        assert sum(len(client.ledger.attempts(row.call_id)) for row in booked) == 1


def full_answer(_: Wire) -> Script:
    """An answer that is as long as the call allows."""
    return Script(pieces=("x",), first_after_s=0.005, then=Ending(finish_reason="stop", usage=Usage(10, 256)))


@pytest.mark.parametrize("how", ["threads", "asyncio"])
def test_two_hundred_callers_on_a_budget_worth_two_calls(how: str, tmp_path: Path) -> None:
    """Of two hundred callers at once two get through; what was spent is never over the hard limit, and nothing stays reserved."""
    fake = FakeProvider(default=full_answer)
    with fake_client(tmp_path, fake, budget_session_usd="0.00040") as client:

        def ask(number: int) -> str:
            try:
                client.ask(f"hello {number}", max_tokens=256, cache="off")
            except errors.BudgetExceeded:
                return "refused"
            return "answered"

        async def all_of_them() -> list[str]:
            async def aask(number: int) -> str:
                try:
                    await client.aask(f"hello {number}", max_tokens=256, cache="off")
                except errors.BudgetExceeded:
                    return "refused"
                return "answered"

            return await asyncio.gather(*(aask(number) for number in range(200)))

        if how == "threads":
            with ThreadPoolExecutor(200) as pool:
                ends = Counter(pool.map(ask, range(200)))
        else:
            ends = Counter(asyncio.run(all_of_them()))
        (session,) = (line for line in client.budget_lines() if line.scope.startswith("session:"))
        assert ends == {"answered": 2, "refused": 198}
        assert fake.calls == 2
        assert session.spent_usd <= Decimal("0.00040")
        assert session.reserved_usd == 0
        assert session.spent_usd == client.spent_session_usd() == 2 * (10 * Decimal("0.15") + 256 * Decimal("0.60")) / 10**6


def test_two_clients_on_one_home(tmp_path: Path) -> None:
    """Two clients share cache, ledger and the process's session, a named session is its own, and closing one ends only that."""
    first, second = FakeProvider(default="first"), FakeProvider(default="second")
    with fake_client(tmp_path, second, session="mine") as other:
        with fake_client(tmp_path, first) as client:
            assert client.ask("hello").text == "first"
            assert (other.ask("hello").text, other.ask("hello").source) == ("first", "cache")
            assert (other.session, fake_client(tmp_path).session) == ("mine", client.session)
            assert [row.calls for row in client.usage("total")] == [1]
            assert [row.calls for row in other.usage("total")] == [2]
        assert other.ask("something else").text == "second"
        assert len(rows(other)) == 4
    assert our_threads() == []


def test_the_process_client_is_seen_in_pool_threads(no_process_client: None, tmp_path: Path) -> None:
    """The doors of the package use the client that was set for the process, in threads of a pool too."""
    with fake_client(tmp_path, FakeProvider(default=echo)) as client:
        nbllm.set_process_client(client)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: nbllm.get_client(), range(20))) == {client}
            assert pool.submit(nbllm.ask, "hi").result().text == "You said: hi"


def test_use_holds_in_its_context_only(no_process_client: None, tmp_path: Path) -> None:
    """use() nests, ends with its block even after an error, follows tasks, and is not seen by other threads."""
    with fake_client(tmp_path / "a") as a, fake_client(tmp_path / "b") as b, fake_client(tmp_path / "c") as c:
        nbllm.set_process_client(a)
        with nbllm.use(b) as given:
            assert given is b is nbllm.get_client()
            with nbllm.use(c):
                assert nbllm.get_client() is c
            with pytest.raises(ZeroDivisionError), nbllm.use(c):
                1 / 0  # noqa: B018 - the error is the test
            assert nbllm.get_client() is b
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(nbllm.get_client).result() is a
        assert nbllm.get_client() is a

        async def main() -> list[Client]:
            async def with_client(client: Client) -> Client:
                with nbllm.use(client):
                    await asyncio.sleep(0.001)
                    return nbllm.get_client()

            return list(await asyncio.gather(with_client(b), with_client(c), with_client(b)))

        assert asyncio.run(main()) == [b, c, b]


def test_a_check_runs_in_its_callers_context(no_process_client: None, tmp_path: Path) -> None:
    """A check function that looks for the current client sees the one that its caller used, whoever else calls at that moment."""
    seen: list[tuple[int, bool]] = []
    clients = [fake_client(tmp_path / str(number), FakeProvider(default=str(number))) for number in range(8)]

    def work(number: int) -> None:
        def check(text: str) -> None:
            seen.append((number, nbllm.get_client() is clients[number] and text == str(number)))

        with nbllm.use(clients[number]):
            for turn in range(5):
                nbllm.ask(f"hello {turn}", check=check)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for client in clients:
        client.close()
    assert Counter(seen) == {(number, True): 5 for number in range(8)}


def test_one_default_client(no_process_client: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any client of their own, threads that begin together make one default client, from files and variables."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    start = threading.Barrier(20)

    def get(_: int) -> Client:
        start.wait(30)
        return nbllm.get_client()

    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(get, range(20)))
    assert len(found) == 1
    assert nbllm.ask("Say hi", model="sim/small").simulated
    assert (tmp_path / "home" / "ledger.db").exists()
    assert [row.group for row in nbllm.usage()] == ["sim/small"]
