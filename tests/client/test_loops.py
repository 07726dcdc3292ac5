"""Event loops: ours, the user's own, several in sequence, and one that is lent."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, errors
from nbllm.core.ports import Wire
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, rows, until
from tests.fault_server import FaultServer
from tests.road.invariants import check_nothing_left, endpoint
from tests.starvation import Stopwatch

TEXT = "One two three four five."


def test_event_loop_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Known bug of peers: a client used from one asyncio.run after another fails with "Event loop is closed". Here all work."""
    with FaultServer() as server, Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:

        async def both(number: int) -> list[str]:
            asked = (await client.aask(f"asked {number}")).text
            return [asked, "".join([piece async for piece in client.astream(f"streamed {number}")])]

        for number in range(4):
            assert asyncio.run(both(number)) == [TEXT, TEXT]
            assert client.ask(f"between {number}").text == TEXT
        assert server.connections == 1, "the connection outlives the callers' loops"
    check_nothing_left(server)
    assert not caplog.records


def test_callers_loops_are_let_go(tmp_path: Path) -> None:
    """Nothing of ours keeps a caller's loop alive after its end."""
    loops: list[weakref.ref[Any]] = []
    with fake_client(tmp_path) as client:

        async def main() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            await client.aask("hello")

        for _ in range(3):
            asyncio.run(main())
        # Soon, not at once: our loop's thread may still stand behind the wake-up that told the caller's loop of the answer.
        until(lambda: gc.collect() >= 0 and [loop() for loop in loops] == [None] * 3)


def test_many_loops_at_once(tmp_path: Path) -> None:
    """Callers on loops of several threads share one client."""
    fake = FakeProvider(default=lambda wire: str(wire.content.messages[0]["content"]))
    with fake_client(tmp_path, fake) as client:
        got: dict[int, list[str]] = {}

        def run(number: int) -> None:
            async def main() -> list[str]:
                replies = await asyncio.gather(*(client.aask(f"{number}-{turn}") for turn in range(10)))
                return [reply.text for reply in replies]

            got[number] = asyncio.run(main())

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert got == {number: [f"{number}-{turn}" for turn in range(10)] for number in range(8)}


def test_a_callers_loop_that_ends_in_mid_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that is closed under a call ends the call, and nobody complains on its behalf afterwards."""
    fake = FakeProvider(default=Script(hang=True))
    with fake_client(tmp_path, fake) as client:
        for door in ("aask", "astream"):

            async def main(door: str = door) -> None:
                work = client.aask("hello") if door == "aask" else anext(client.astream("hello"))
                task = asyncio.ensure_future(work)
                while not fake.in_flight:
                    await asyncio.sleep(0.002)
                del task

            asyncio.run(main())
            assert fake.in_flight == 0
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.aask("left alone"))
        loop.run_until_complete(asyncio.sleep(0.05))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        assert {row.status.value for row in rows(client)} == {"cancelled"}
    assert not caplog.records


def test_sync_doors_on_our_own_loop(tmp_path: Path) -> None:
    """A sync door called on the loop that would have to answer raises at once and says what to use; the call there goes on."""
    raised: list[BaseException] = []

    def nested(wire: Wire) -> str:
        for door in (client.ask, client.stream, client.start, lambda _: client.embed(["x"]), lambda _: client.spent_session_usd()):
            try:
                door("nested")
            except RuntimeError as exc:
                raised.append(exc)
        try:
            client.close()
        except RuntimeError as exc:
            raised.append(exc)
        return "fine"

    client = fake_client(tmp_path, FakeProvider(nested))
    watch = Stopwatch()
    assert client.ask("hello").text == "fine"
    assert watch.s < 2
    assert len(raised) == 6
    assert all("would wait for the loop" in str(exc) and "Use " in str(exc) for exc in raised)
    assert client.ask("again").text == "ok", "a close that was refused closed nothing"
    client.close()


def test_sync_doors_inside_a_users_loop(tmp_path: Path) -> None:
    """In a notebook a loop of the user runs already: sync doors work there all the same."""
    with fake_client(tmp_path, FakeProvider(default=Script(pieces=("a", "b"), gap_s=0.001))) as client:

        async def cell() -> tuple[str, list[str]]:
            return client.ask("x").text, list(client.stream("y"))

        assert asyncio.run(cell()) == ("ab", ["a", "b"])


def test_a_lent_loop(tmp_path: Path) -> None:
    """A service lends its loop: calls run there, no thread is started, sync doors work from other threads and are refused on it."""
    ran_on: list[asyncio.AbstractEventLoop] = []

    def note(wire: Wire) -> Script:
        ran_on.append(asyncio.get_running_loop())
        return Script(pieces=("a", "b"), gap_s=0.001)

    async def main() -> None:
        client = fake_client(tmp_path, FakeProvider(default=note))
        client.adopt_loop()
        assert (await client.aask("one")).text == "ab"
        assert [piece async for piece in client.astream("two")] == ["a", "b"]
        assert (await client.aask("one")).source == "cache"
        with pytest.raises(RuntimeError, match="would wait for the loop"):
            client.ask("three")
        with pytest.raises(RuntimeError, match="aclose"):
            client.close()
        assert (await asyncio.to_thread(client.ask, "four")).text == "ab"
        assert set(ran_on) == {asyncio.get_running_loop()}
        assert len(ran_on) == 3
        assert "nbllm-loop" not in [thread.name for thread in threading.enumerate()]
        with pytest.raises(RuntimeError, match="before the first call"):
            client.adopt_loop()
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await client.aask("five")

    asyncio.run(main())
    assert our_threads() == []


def test_closing_on_a_lent_loop(tmp_path: Path) -> None:
    """Callers whose calls are under way get an error that says so; their tasks are not cancelled, and nothing is left."""
    fake = FakeProvider(default=Script(hang=True))

    async def main() -> None:
        client = fake_client(tmp_path, fake)
        client.adopt_loop()
        afterwards: list[str] = []

        async def handler(number: int) -> None:
            try:
                await client.aask(f"hello {number}", cache="off" if number % 2 else "use")
            except errors.CallFailed as exc:
                afterwards.append(str(exc))
            await asyncio.sleep(0)
            afterwards.append("went on")

        tasks = [asyncio.ensure_future(handler(number)) for number in range(6)]
        while fake.in_flight < 6:
            await asyncio.sleep(0.002)
        await client.aclose()
        await asyncio.gather(*tasks)
        assert sorted(set(afterwards)) == [
            "The client was closed while this call was under way.\nMake another client.",
            "went on",
        ]
        assert len(afterwards) == 12
        assert fake.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_lent_loop_that_is_gone(tmp_path: Path) -> None:
    """When the lent loop was closed before its client, calls say so at once, and closing still closes the files."""

    async def main() -> Client:
        client = fake_client(tmp_path)
        client.adopt_loop()
        await client.aask("hello")
        return client

    client = asyncio.run(main())
    watch = Stopwatch()
    with pytest.raises(errors.CallFailed, match="event loop of this client was closed"):
        client.ask("anything new")
    assert client.ask("hello").source == "cache", "a hit needs no loop"
    client.close()
    assert watch.s < 2
    with fake_client(tmp_path) as other:
        assert [row.source for row in rows(other) if row.source] == ["model", "cache"]


def test_cancelling_on_a_lent_loop(tmp_path: Path) -> None:
    """A task that is cancelled there ends its call, and sees its own cancellation."""
    fake = FakeProvider(default=Script(hang=True))

    async def main() -> None:
        async with fake_client(tmp_path, fake) as client:
            client.adopt_loop()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.aask("hello"), 0.05)
            assert fake.in_flight == 0
            assert [row.status.value for row in rows(client)] == ["cancelled"]

    asyncio.run(main())


def test_logging_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A day's ordinary use logs nothing, asyncio's debug mode included."""
    caplog.set_level(logging.INFO)
    with fake_client(tmp_path) as client:
        client.ask("hello")
        asyncio.run(client.aask("there"), debug=True)
        list(client.stream("you"))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
