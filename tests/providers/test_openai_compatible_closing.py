"""One request that is cut or cancelled: its connection is gone at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm.core.messages import Chat, Ending
from nbllm.errors import (
    AnswerTooLarge,
)
from nbllm.providers.openai_compatible import OpenAICompatible
from tests import fault_behaviours as faults
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer
from tests.providers.helpers import BOTH, Heard, exchange, run, wire
from tests.starvation import Stopwatch, within


@pytest.mark.parametrize(
    ("behaviour", "streamed"),
    [(faults.huge(), False), (faults.huge(), True), (faults.huge_line(), True), (faults.huge().with_(pace_s=0.0005), True)],
    ids=["9 MB whole", "9 MB stream", "2 MB line", "9 MB slowly"],
)
def test_an_answer_that_is_too_large_is_cut_at_once(behaviour: Behaviour, streamed: bool) -> None:
    """More than 8 MB, or a line of more than 1 MB, raises AnswerTooLarge, and the connection is gone within half a second."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [behaviour])
            provider, heard = OpenAICompatible({}), Heard()
            with pytest.raises(AnswerTooLarge, match=r"8\.4 MB") as caught:
                await provider.send(wire(server.base_url, streamed=streamed), heard)
            assert await server.closed_after_s(Stopwatch()) < 0.5
            assert caught.value.rung == "lab/m"
            await provider.aclose()

    run(scenario())


def test_an_answer_that_unpacks_to_too_much_is_cut() -> None:
    """9 MB that travel as 9 kB of gzip are still 9 MB."""
    import gzip

    async def scenario() -> None:
        body = gzip.compress(faults.whole_body(faults.huge(), "m"))
        bomb = Behaviour(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
        async with FaultServer() as server:
            error, _ = await exchange(server, bomb, streamed=False)
            assert isinstance(error, AnswerTooLarge)
            fine = gzip.compress(faults.whole_body(faults.ok(), "m"))
            ending, heard = await exchange(server, bomb.with_(body=fine), streamed=False)
            assert isinstance(ending, Ending)
            assert heard.text == "One two three four five."

    run(scenario())


@pytest.mark.parametrize(
    "behaviour",
    [faults.stall("request"), faults.stall("headers"), faults.stall("tokens"), faults.drip()],
    ids=["before headers", "after headers", "after tokens", "drip"],
)
@BOTH
def test_cancelling_closes_the_upstream_at_once(behaviour: Behaviour, streamed: bool) -> None:
    """Wherever a request hangs, a cancel closes its connection at once; what came before was told."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [behaviour])
            provider, heard = OpenAICompatible({}), Heard()
            task = asyncio.create_task(provider.send(wire(server.base_url, streamed=streamed), heard))
            while not server.requests:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.03)
            task.cancel()
            since = Stopwatch()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await server.closed_after_s(since) < 0.5
            assert heard.sent_count == 1
            if streamed and behaviour.break_after == "tokens":
                assert heard.text == "One two "
            await provider.aclose()

    run(scenario())


def test_a_request_that_the_server_does_not_read_is_cut_too() -> None:
    """A prompt of 20 MB that hangs in the socket's buffer keeps no cancelled connection open, and closing does not wait for it."""

    async def scenario() -> None:
        gone = asyncio.Event()

        class Deaf(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.pause_reading()
                self.transport = transport

            def connection_lost(self, exc: Exception | None) -> None:
                gone.set()

        deaf: list[Deaf] = []
        server = await asyncio.get_running_loop().create_server(lambda: deaf.append(Deaf()) or deaf[-1], "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        provider, heard = OpenAICompatible({}), Heard()
        content = Chat(messages=({"role": "user", "content": "x" * 20_000_000},))
        task = asyncio.create_task(provider.send(wire(f"http://127.0.0.1:{port}/v1", content), heard))
        while not heard.sent_count:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with within(0.5):
            await provider.aclose()
            deaf[0].transport.resume_reading()
            await asyncio.wait_for(gone.wait(), 30)
        server.close()

    run(scenario())
