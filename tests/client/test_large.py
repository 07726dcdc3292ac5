"""Prompts of 5 MB and answers of 8 MB: they work, or are cut with a clear error, and nobody else's call stalls meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbllm import Client, errors, redaction
from nbllm.redaction.find import forms_of
from tests import fault_behaviours as f
from tests.client.helpers import until
from tests.fault_server import FaultServer
from tests.road.invariants import check_cache, check_nothing_left, check_rows, endpoint
from tests.starvation import Stopwatch

TEXT = "One two three four five."
LARGE = ("Grüße an alle, wie geht es euch heute? " * 140_000)[:4_900_000]
MOST_GAP_S = 0.3
"""A turn of the loop for 5 MB takes some 40 ms on the development machine. Measured in seconds that this process ran, with whatever
thread held the interpreter, so that other programs on the machine do not count."""


@contextmanager
def steady(client: Client) -> Iterator[None]:
    """The client's loop is never busy for long in one turn while the block runs."""
    assert client._house is not None
    stop, gaps = threading.Event(), [0.0]

    async def beat() -> None:
        last_s = time.process_time()
        while not stop.is_set():
            await asyncio.sleep(0.001)
            gaps.append(time.process_time() - last_s)
            last_s = time.process_time()

    beating = asyncio.run_coroutine_threadsafe(beat(), client._house.host.loop)
    try:
        yield
    finally:
        stop.set()
        beating.result(30)
    assert max(gaps) < MOST_GAP_S


@pytest.mark.parametrize("door", ["ask", "aask", "stream"])
def test_a_prompt_of_5_mb(door: str, tmp_path: Path) -> None:
    """It is sent as it is, answered, cached and recorded; other calls go on beside it."""
    with FaultServer() as server:
        lab = endpoint(server, context_tokens=10**8)
        with Client(home=tmp_path, endpoints={"lab": lab}, model="lab/m", recordings=True) as client:
            client.ask("warm")
            others: list[float] = []

            def small_calls() -> None:
                for number in range(10):
                    began_s = time.process_time()
                    client.ask(f"small {number}")
                    others.append(time.process_time() - began_s)

            beside = threading.Thread(target=small_calls)
            with steady(client):
                beside.start()
                if door == "ask":
                    text = client.ask(LARGE).text
                elif door == "aask":
                    text = asyncio.run(client.aask(LARGE)).text
                else:
                    text = "".join(client.stream(LARGE))
                beside.join(30)
            assert text == TEXT
            assert len(others) == 10
            assert max(others) < 2 * MOST_GAP_S
            (sent,) = (r for r in server.requests if len(r.raw) > 4_000_000)
            assert sent.body["messages"] == [{"role": "user", "content": LARGE}]
            with steady(client):
                assert client.ask(LARGE).source == "cache"
            until(lambda: client.recordings.newest(1)[0].prompt["messages"][0]["content"] == LARGE, 60)
            check_rows(client, server, {"lab/m": "m"})
        check_nothing_left(server)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_of_7_mb(streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer below the limit is delivered whole, validated, kept, and hits afterwards, however many keys are in use."""
    secrets = [f"a-key-that-is-in-use-{number:03}" for number in range(60)]
    monkeypatch.setattr(redaction, "_forms", {secret: forms_of(secret) for secret in secrets})
    with FaultServer() as server:
        server.script("m", [f.ok(*(["x" * 1000] * 7000))])
        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("warm", model="lab/other")
            with steady(client):
                text = "".join(client.stream("hello")) if streamed else client.ask("hello").text
                assert text == "x" * 7_000_000
                assert client.ask("hello").source == "cache"
                assert client.ask("hello", schema={"type": "string"}).data == text


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_of_9_mb(streamed: bool, tmp_path: Path) -> None:
    """An answer over the limit is cut: a typed error, upstream closed within half a second, what came billed, nothing cached."""
    with FaultServer() as server:
        server.script("m", [f.huge()])
        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("warm", model="lab/other")
            with steady(client):
                live = client.start("hello", watched=streamed)
                with pytest.raises(errors.AnswerTooLarge) as caught:
                    assert live.reply
                assert server.wait_closed(Stopwatch()) < 0.5
            (attempt,) = client.ledger.attempts(caught.value.call_id)
            assert attempt.cost_usd > 0
            check_rows(client, server, {"lab/m": "m"})
            check_cache(client)
        check_nothing_left(server)
