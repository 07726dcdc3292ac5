"""Runs of flows: whatever a flow does, its caller gets an answer in time, and nothing goes on upstream that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client, errors
from nbllm.flow_context import CALLER, CallerContext
from nbllm.service.flow_run import FlowRunner
from nbllm.service.flow_specs import describe
from nbllm.service.flow_watch import Event, Follower
from nbllm.service.problems import ServiceProblem
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import fake_client, our_threads, rows


def ask(text: str) -> str:
    return nbllm.ask(text).text


async def aask(text: str) -> str:
    return (await nbllm.aask(text)).text


KINDS = [ask, aask]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=["sync", "async"])


@asynccontextmanager
async def running(tmp_path: Path, fake: FakeProvider | None = None, **values: Any) -> AsyncIterator[tuple[FlowRunner, Client]]:
    async with fake_client(tmp_path, fake) as client:
        client.adopt_loop()
        runner = FlowRunner(client, running=4, timeout_s=values.pop("timeout_s", 5.0), **values)
        try:
            yield runner, client
        finally:
            await runner.aclose()


async def run(runner: FlowRunner, function: Callable[..., Any], follower: Follower | None = None, /, **arguments: Any) -> bytes:
    spec = describe(function)
    return await runner.run(spec, spec.arguments.model_validate(arguments), follower or Follower())


def in_a_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@by_kind
def test_a_run(kind: Callable[..., Any], tmp_path: Path) -> None:
    """The result is JSON, the calls are the caller's, and what they cost is known afterwards."""

    async def main() -> None:
        async with running(tmp_path, FakeProvider(default="fine")) as (runner, client):
            spec, follower = describe(kind), Follower()
            token = CALLER.set(CallerContext(user="key:abc"))
            got = await runner.run(spec, spec.arguments.model_validate({"text": "hi"}), follower)
            CALLER.reset(token)
            assert got == b'"fine"'
            assert [row.user for row in rows(client)] == ["key:abc"]
            made = follower.made()
            assert (made.calls, made.rungs, made.sources) == (1, ("sim/small",), ("model",))
            assert made.cost_usd is not None
            assert made.cost_usd > 0
            assert await run(runner, kind, text="hi") == b'"fine"'
            again = Follower()
            await run(runner, kind, again, text="hi")
            assert (again.made().sources, again.made().cost_usd) == (("cache",), Decimal(0))

    in_a_loop(main)
    assert our_threads() == []


@by_kind
def test_events(kind: Callable[..., Any], tmp_path: Path) -> None:
    """Calls of a watched run are streamed, each event with its call's number."""

    async def main() -> None:
        async with running(tmp_path, FakeProvider(default=Script(pieces=("One ", "two.")))) as (runner, _):
            seen: list[Event] = []
            assert await run(runner, kind, Follower(seen.append), text="hi") == b'"One two."'
            assert [event.name for event in seen] == ["started", "delta", "delta"]
            assert [event.data for event in seen[1:]] == [{"call": 1, "text": "One "}, {"call": 1, "text": "two."}]
            assert seen[0].data["model"] == "sim/small"

    in_a_loop(main)


def raises(error: BaseException) -> list[Callable[..., Any]]:
    def flow_raises() -> str:
        raise error

    async def flow_raises_later() -> str:
        raise error

    return [flow_raises, flow_raises_later]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("my private text"), KeyboardInterrupt(), SystemExit(3), StopIteration(7), GeneratorExit(), MemoryError(),
        RecursionError(), TimeoutError(), asyncio.CancelledError(), ExceptionGroup("both", [ValueError("private")]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
def test_a_flow_that_raises(error: BaseException, number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises is a 500 that names the class; its text is not told, and not in the log; the service lives on."""

    async def main() -> None:
        async with running(tmp_path) as (runner, _):
            with pytest.raises(ServiceProblem) as caught:
                await run(runner, raises(error)[number])
            problem = caught.value.problem
            assert (problem.status, problem.type) == (500, "flow-failed")
            assert type(error).__name__ in problem.detail or isinstance(error, StopIteration)  # a coroutine turns it into another
            assert await run(runner, KINDS[number], text="hi") == b'"ok"'

    with caplog.at_level(logging.INFO, "nbllm.service"):
        in_a_loop(main)
    assert "private" not in caplog.text
    assert "test_flow_run.py" in caplog.text or isinstance(error, StopIteration)


def test_the_log_says_why_when_asked_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With prompts in the log, so is what a flow said; never a key."""

    async def main() -> None:
        async with running(tmp_path, say_why=True) as (runner, _):
            with pytest.raises(ServiceProblem):
                await run(runner, raises(ValueError("my text, sk-proj-" + "Zx9Yw8Vu7" * 5))[0])

    in_a_loop(main)
    assert "my text" in caplog.text
    assert "Zx9Yw8Vu7" not in caplog.text


@by_kind
def test_errors_of_ours_keep_their_kind(kind: Callable[..., Any], tmp_path: Path) -> None:
    """A refusal by a model's filter is told as such."""

    async def main() -> None:
        async with running(tmp_path, FakeProvider(default=errors.Refused)) as (runner, _):
            follower = Follower()
            with pytest.raises(errors.Refused):
                await run(runner, kind, follower, text="hi")
            assert follower.made().calls == 1

    in_a_loop(main)


def wrong_type() -> int:
    return "my private text"  # type: ignore[return-value]  # the mistake is meant


def test_a_flow_that_returns_another_type(tmp_path: Path) -> None:
    """It is an error of the flow, told without the value."""

    async def main() -> None:
        async with running(tmp_path) as (runner, _):
            with pytest.raises(ServiceProblem) as caught:
                await run(runner, wrong_type)
            assert caught.value.problem.type == "wrong-result"
            assert "private" not in str(caught.value)

    in_a_loop(main)


LOCKS: list[asyncio.Lock] = []


async def shares_a_lock() -> str:
    if not LOCKS:
        LOCKS.append(asyncio.Lock())
    async with LOCKS[0]:
        await asyncio.sleep(0.01)
        return "done"


def test_async_flows_share_a_loop(tmp_path: Path) -> None:
    """What a module of flows keeps that belongs to a loop works in each run of them."""

    async def main() -> None:
        async with running(tmp_path) as (runner, _):
            assert set(await asyncio.gather(*(run(runner, shares_a_lock) for _ in range(5)))) == {b'"done"'}

    LOCKS.clear()
    in_a_loop(main)


def prints() -> str:
    print("printed")
    sys.stderr.write("said\n")
    return "returned"


def test_a_flow_that_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints is no part of the answer."""

    async def main() -> None:
        async with running(tmp_path) as (runner, _):
            assert await run(runner, prints) == b'"returned"'

    in_a_loop(main)
    assert "printed" in capsys.readouterr().out
