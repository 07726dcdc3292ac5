"""Streams that are left early, in every way: the call ends upstream, the row says what came; and what a whole one gives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, errors
from nbllm.core.messages import AttemptStatus
from nbllm.live import DeltaEvent
from nbllm.testing import FakeProvider, Script, offline
from tests import fault_behaviours as f
from tests.client.helpers import check_sent, fake_client, rows, until
from tests.fault_server import FaultServer
from tests.road.invariants import check_money, check_nothing_left, endpoint
from tests.starvation import Stopwatch


def by_break(client: Client) -> None:
    """Leave the loop."""
    for _ in client.stream("hello"):
        break


def by_error(client: Client) -> None:
    """Raise in the loop."""
    for _ in client.stream("hello"):
        raise ZeroDivisionError


def by_del(client: Client) -> None:
    """Forget it after a piece."""
    stream = client.stream("hello")
    next(stream)
    del stream


def by_never_looking(client: Client) -> None:
    """Begin it, and forget it without a look."""
    stream = client.stream("hello")
    time.sleep(0.1)
    del stream


def by_close(client: Client) -> None:
    """Close it, and find it closed."""
    stream = client.stream("hello")
    next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.partial.text.startswith("drip ")
    with pytest.raises(errors.CallFailed, match="stopped"):
        assert stream.reply


def by_with(client: Client) -> None:
    """Leave its block by an error."""
    with client.stream("hello") as stream:
        next(stream)
        raise ZeroDivisionError


def by_dropping_events(client: Client) -> None:
    """Drop the events of a live call."""
    for event in client.start("hello").events():
        if isinstance(event, DeltaEvent):
            break


async def by_async_break(client: Client) -> None:
    """Leave the loop."""
    async for _ in client.astream("hello"):
        break


async def by_async_error(client: Client) -> None:
    """Raise in the loop."""
    async for _ in client.astream("hello"):
        raise ZeroDivisionError


async def by_cancelling(client: Client) -> None:
    """Cancel the task that takes the pieces."""
    began = asyncio.Event()

    async def consume() -> None:
        async for _ in client.astream("hello"):
            began.set()

    task = asyncio.ensure_future(consume())
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def by_timeout(client: Client) -> None:
    """Give it too little time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            async for _ in client.astream("hello"):
                pass


async def by_aclose(client: Client) -> None:
    """Close it, and find it closed."""
    stream = client.astream("hello")
    await anext(stream)
    await stream.aclose()
    assert [piece async for piece in stream] == []
    with pytest.raises(errors.CallFailed, match="stopped"):
        assert stream.reply


async def by_async_with(client: Client) -> None:
    """Leave its block by an error."""
    async with client.astream("hello") as stream:
        await anext(stream)
        raise ZeroDivisionError


async def by_never_awaiting(client: Client) -> None:
    """Begin it, and forget it without a look."""
    stream = client.astream("hello")
    await asyncio.sleep(0.1)
    del stream


async def by_cancelling_aask(client: Client) -> None:
    """Cancel a call for a whole answer."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.aask("hello"), 0.1)


WAYS: list[Callable[[Client], Coroutine[Any, Any, None] | None]] = [
    by_break, by_error, by_del, by_never_looking, by_close, by_with, by_dropping_events,
    by_async_break, by_async_error, by_cancelling, by_timeout, by_aclose, by_async_with, by_never_awaiting, by_cancelling_aask,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_left_early(way: Callable[[Client], Coroutine[Any, Any, None] | None], tmp_path: Path) -> None:
    """However a call is left, upstream is closed within a second, its row is cancelled, and what came is billed as estimated."""
    with FaultServer() as server:
        server.script("m", [f.drip(pace_s=0.01)])
        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("warm", model="lab/other")
            with contextlib.suppress(ZeroDivisionError):
                work = way(client)
                if work is not None:
                    asyncio.run(work)
            left = Stopwatch()
            assert server.wait_closed(left) < 1.0
            until(lambda: rows(client)[-1].status is not AttemptStatus.OPEN)
            _, call = rows(client)
            (attempt,) = client.ledger.attempts(call.call_id)
            assert (call.status, attempt.status) == (AttemptStatus.CANCELLED, AttemptStatus.CANCELLED)
            assert (attempt.cost_basis, attempt.cost_usd > 0) == ("estimated", True)
            check_sent(client, server, {"lab/m": "m"})
            check_money(client)
            assert client.ask("and now?", model="lab/other").text == "One two three four five."
        check_nothing_left(server)


def test_dropped_before_it_is_sent(tmp_path: Path) -> None:
    """A stream that is dropped at once sends nothing at all, or ends at once what it sent."""
    fake = FakeProvider(default=Script(hang=True))
    with fake_client(tmp_path, fake) as client:
        for number in range(20):
            client.stream(f"hello {number}")
        until(lambda: all(row.status is AttemptStatus.CANCELLED for row in rows(client)))
        until(lambda: fake.in_flight == 0)


def test_reply_before_the_end(tmp_path: Path) -> None:
    """The reply is there when the pieces are; asking before is a clear error and changes nothing."""
    with fake_client(tmp_path, FakeProvider(Script(pieces=("a", "b")))) as client:
        stream = client.stream("hello")
        with pytest.raises(RuntimeError, match="not at its end"):
            assert stream.reply
        assert next(stream) == "a"
        with pytest.raises(RuntimeError, match="not at its end"):
            assert stream.reply
        assert list(stream) == ["b"]
        assert stream.reply.text == "ab"
        assert list(stream) == [], "an exhausted stream stays so"
        stream.close()
        assert stream.reply.text == "ab"


@offline()
def test_reply_of_a_stream_that_failed(tmp_path: Path) -> None:
    """A stream that ends by an error gives its pieces, then the error, and the same error for .reply."""
    fake = FakeProvider(Script(pieces=("One ",), then=errors.StreamInterrupted("It broke.", rung="sim/small")))
    with fake_client(tmp_path, fake) as client:
        stream = client.stream("hello")
        assert next(stream) == "One "
        with pytest.raises(errors.StreamInterrupted) as caught:
            next(stream)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "One "
        with pytest.raises(errors.StreamInterrupted):
            assert stream.reply


@offline()
def test_a_stream_that_begins_anew(tmp_path: Path) -> None:
    """With on_interrupt="restart" the pieces of the broken try are followed by those of the next, and `restarts` says so."""
    broken = Script(pieces=("One ",), then=errors.StreamInterrupted("It broke.", rung="sim/small"))
    with fake_client(tmp_path, FakeProvider(broken, Script(pieces=("All ", "of it.")))) as client:
        stream = client.stream("hello", on_interrupt="restart")
        assert list(stream) == ["One ", "All ", "of it."]
        assert stream.restarts == ("interrupted",)
        assert (stream.reply.text, stream.partial.text) == ("All of it.", "All of it.")


def test_a_hit_streams_in_one_piece(tmp_path: Path) -> None:
    """A stored answer comes as one piece, without a request."""
    with fake_client(tmp_path, FakeProvider(Script(pieces=("a", "b")), strict=True)) as client:
        assert list(client.stream("hello")) == ["a", "b"]
        stream = client.stream("hello")
        assert list(stream) == ["ab"]
        assert stream.reply.source == "cache"


def test_two_streams_at_once(tmp_path: Path) -> None:
    """Two streams of one thread are taken in turns; neither waits for the other."""
    fake = FakeProvider(default=lambda wire: Script(pieces=tuple(wire.content.messages[0]["content"]), gap_s=0.002))
    with fake_client(tmp_path, fake) as client, client.stream("abc") as one, client.stream("xyz") as other:
        assert [piece for pair in zip(one, other, strict=True) for piece in pair] == ["a", "x", "b", "y", "c", "z"]
