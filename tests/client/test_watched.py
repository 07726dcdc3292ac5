"""A watcher around a flow sees every call of it come, through each door and on each kind of loop, and may end them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, errors
from nbllm.core.messages import Attempt, AttemptStatus, Delta, NullSink, Request, Sink
from nbllm.core.reply import Reply
from nbllm.flow_context import WATCHER, FlowStopped
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, rows, until
from tests.starvation import within

PIECES = Script(pieces=("One ", "two."))
SEEN = [("started", "sim/small"), ("delta", "One "), ("delta", "two.")]


class Seen:
    """A watcher that writes down what it sees."""

    def __init__(self, *, streams: bool = True) -> None:
        self.streams = streams
        self.events: list[tuple[str, str]] = []
        self.replies: list[Reply] = []
        self.errors: list[Exception] = []
        self.held: list[Callable[[], object]] = []
        self.stopped = False

    def sink_for(self, request: Request) -> Sink:
        return self if self.streams else NullSink()

    def hold(self, stop: Callable[[], object]) -> Callable[[], object]:
        if self.stopped:
            raise FlowStopped
        self.held.append(stop)
        return lambda: self.held.remove(stop)

    def stop(self) -> None:
        self.stopped = True
        for stop in list(self.held):
            stop()

    def replied(self, reply: Reply) -> None:
        self.replies.append(reply)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def started(self, attempt: Attempt) -> None:
        self.events.append(("started", attempt.rung))

    def delta(self, delta: Delta) -> None:
        self.events.append(("delta", delta.text))

    def restarted(self, reason: str) -> None:
        self.events.append(("restarted", reason))


@contextmanager
def watching(watcher: Seen) -> Iterator[None]:
    token = WATCHER.set(watcher)
    try:
        yield
    finally:
        WATCHER.reset(token)


def ask(client: Client, **options: Any) -> str:
    return client.ask("hello", **options).text


def ask_in_a_pool(client: Client, **options: Any) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, lambda: client.ask("hello", **options).text).result()


def aask(client: Client, **options: Any) -> str:
    async def main() -> str:
        return (await client.aask("hello", **options)).text

    return asyncio.run(main())


def stream(client: Client, **options: Any) -> str:
    return "".join(client.stream("hello", **options))


def astream(client: Client, **options: Any) -> str:
    async def main() -> str:
        return "".join([piece async for piece in client.astream("hello", **options)])

    return asyncio.run(main())


DOORS = [ask, ask_in_a_pool, aask, stream, astream]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_each_door_shows_its_answer(door: Callable[..., str], tmp_path: Path) -> None:
    """Through each door the provider is asked for a stream, its pieces are seen in order, the reply is told once."""
    fake, seen = FakeProvider(default=PIECES), Seen()
    with fake_client(tmp_path, fake) as client, watching(seen):
        assert door(client) == "One two."
        until(lambda: not seen.held)
        assert seen.events == SEEN
        assert [(reply.text, reply.source) for reply in seen.replies] == [("One two.", "model")]
        assert [wire.streamed for wire in fake.requests] == [True]
        assert door(client) == "One two."
    assert seen.events[3:] == [("delta", "One two.")], "a hit is seen too, in one piece"
    assert [reply.source for reply in seen.replies] == ["model", "cache"]
    assert (seen.errors, seen.held) == ([], [])
    assert our_threads() == []


def test_a_lent_loop(tmp_path: Path) -> None:
    """On a service's own loop aask is watched as well, and so is ask in one of its threads."""

    async def main() -> None:
        first, second = Seen(), Seen()
        async with fake_client(tmp_path, FakeProvider(default=PIECES)) as client:
            client.adopt_loop()
            with watching(first):
                assert (await client.aask("hello")).text == "One two."
            with watching(second):
                assert await asyncio.to_thread(ask, client, cache="off") == "One two."
        assert first.events == second.events == SEEN
        assert len(first.replies) == len(second.replies) == 1

    asyncio.run(main())


def test_each_flow_has_its_own_watcher(tmp_path: Path) -> None:
    """Two flows that run at once see their own calls only."""
    fake = FakeProvider(default=lambda wire: str(wire.content.messages[0]["content"]))
    with fake_client(tmp_path, fake) as client:

        async def one(number: int) -> Seen:
            seen = Seen()
            with watching(seen):
                for turn in range(3):
                    await client.aask(f"{number}-{turn}")
            return seen

        async def main() -> list[Seen]:
            return list(await asyncio.gather(*(one(number) for number in range(5))))

        for number, seen in enumerate(asyncio.run(main())):
            assert [reply.text for reply in seen.replies] == [f"{number}-{turn}" for turn in range(3)]


@pytest.mark.parametrize("door", [ask, aask], ids=lambda door: door.__name__)
def test_a_watcher_that_only_counts(door: Callable[..., str], tmp_path: Path) -> None:
    """One that shows nothing leaves calls whole, as without it."""
    fake, seen = FakeProvider(default=PIECES), Seen(streams=False)
    with fake_client(tmp_path, fake) as client, watching(seen):
        assert door(client) == "One two."
    assert [wire.streamed for wire in fake.requests] == [False]
    assert seen.events == []
    assert [reply.text for reply in seen.replies] == ["One two."]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_errors_are_told(door: Callable[..., str], tmp_path: Path) -> None:
    """A call without an answer raises as ever, and its error, with what was spent, is told once."""
    seen = Seen()
    with fake_client(tmp_path, FakeProvider(default=errors.Refused)) as client, watching(seen):
        with pytest.raises(errors.Refused):
            door(client)
        until(lambda: not seen.held)
    assert [type(error) for error in seen.errors] == [errors.Refused]
    assert seen.replies == []


def test_a_repair_is_seen(tmp_path: Path) -> None:
    """What is void is said to be void."""
    fake, seen = FakeProvider("no JSON", "[1]"), Seen()
    with fake_client(tmp_path, fake) as client, watching(seen):
        assert client.ask("hello", schema=list[int]).data == [1]
    assert ("restarted", "repair") in seen.events
    assert seen.events[-1] == ("delta", "[1]")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_stopping(door: Callable[..., str], tmp_path: Path) -> None:
    """A flow that is stopped has its call closed upstream and its row cancelled, ends, and begins no other call."""
    fake, seen = FakeProvider(default=Script(pieces=("One ",), hang=True)), Seen()
    ended: list[BaseException] = []

    def flow(client: Client) -> None:
        try:
            try:
                door(client)
            except Exception:  # a flow's own way with errors does not keep it running
                door(client)
        except BaseException as exc:
            ended.append(exc)

    with fake_client(tmp_path, fake) as client:
        with watching(seen):
            thread = threading.Thread(target=copy_context().run, args=(flow, client))
            thread.start()
            until(lambda: ("delta", "One ") in seen.events)
        with within(1.0, others=True):
            seen.stop()
            thread.join(30)
        assert not thread.is_alive()
        assert (fake.calls, fake.cancelled, fake.in_flight) == (1, 1, 0)
        assert isinstance(ended[0], (FlowStopped, asyncio.CancelledError))
        assert [row.status for row in rows(client)] == [AttemptStatus.CANCELLED]
    assert seen.held == []


def test_stopping_on_a_lent_loop(tmp_path: Path) -> None:
    """There, too, a call ends although the task that made it is not cancelled."""

    async def main() -> None:
        fake, seen = FakeProvider(default=Script(hang=True)), Seen()
        async with fake_client(tmp_path, fake) as client:
            client.adopt_loop()
            with watching(seen):
                task = asyncio.get_running_loop().create_task(client.aask("hello"))
                while not fake.in_flight:
                    await asyncio.sleep(0)
            seen.stop()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert fake.cancelled == 1

    asyncio.run(main())


def test_a_dropped_stream_of_a_watched_flow_ends(tmp_path: Path) -> None:
    """The watcher does not keep a stream alive that the flow has dropped."""
    fake, seen = FakeProvider(default=Script(pieces=("One ",), hang=True)), Seen()
    with fake_client(tmp_path, fake) as client, watching(seen):
        pieces = client.stream("hello")
        assert next(pieces) == "One "
        del pieces
        until(lambda: fake.cancelled == 1)
        until(lambda: not seen.held)
