"""Runs of flows that do not end by themselves: their callers hear in time, and nothing goes on upstream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.service import flow_run
from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.context import ASKING
from nbllm.service.flow_run import FlowRunner
from nbllm.service.flow_specs import describe
from nbllm.service.flow_watch import Follower
from nbllm.service.problems import ServiceProblem
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import our_threads, rows
from tests.service.test_flow_run import KINDS, ask, by_kind, in_a_loop, run, running
from tests.starvation import Stopwatch

HANGS = Script(pieces=("One ",), hang=True)
RELEASED = threading.Event()
BEGUN: list[str] = []
"""Runs of what follows that have begun since `afresh`."""


def sleeps() -> str:
    BEGUN.append("sleeps")
    RELEASED.wait(30)
    return "late"


async def blocks() -> str:
    BEGUN.append("blocks")
    RELEASED.wait(30)
    return "late"


async def waits() -> str:
    BEGUN.append("waits")
    await asyncio.sleep(3600)
    return "late"


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """What hangs is let go at the end."""
    RELEASED.clear()
    BEGUN.clear()
    yield
    RELEASED.set()


async def over(runner: FlowRunner, sleeper: Callable[..., Any], times: int = 1) -> ServiceProblem:
    """Run it until so many runs are over in mid-run: on a busy machine the time of one may be over before it has begun."""
    spec, timeout_s = describe(sleeper), 0.05
    while True:
        watch = Stopwatch(others=True)
        with pytest.raises(ServiceProblem) as caught:
            await runner.run(spec, spec.arguments.model_validate({}), Follower(), timeout_s=timeout_s)
        assert watch.s < timeout_s + 1
        if len(BEGUN) == times:
            return caught.value
        timeout_s *= 2


@pytest.mark.parametrize("sleeper", [sleeps, blocks, waits])
def test_a_flow_that_sleeps_for_an_hour(sleeper: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller is told in time; other flows of both kinds run on, and the service closes at once."""
    monkeypatch.setattr(flow_run, "_COMES_BACK_S", 0.05)

    async def main() -> None:
        async with running(tmp_path) as (runner, _):
            told = await over(runner, sleeper)
            watch = Stopwatch(others=True)
            assert (told.problem.status, told.problem.type) == (504, "flow-timeout")
            for kind in reversed(KINDS):  # at once, while nobody knows yet whether the first one comes back
                assert await asyncio.wait_for(run(runner, kind, text="hi"), 30) == b'"ok"'
            if sleeper is waits:
                await asyncio.sleep(0.2)
                assert runner.stuck == 0
            while sleeper is not waits and runner.stuck == 0:
                await asyncio.sleep(0.01)
        assert watch.s < 4

    in_a_loop(main)


def test_flows_behind_one_that_blocks_are_begun_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were handed to its loop before anybody knew run once on the next; those whose time is over are lost to nobody."""
    monkeypatch.setattr(flow_run, "_COMES_BACK_S", 0.05)
    begun: list[int] = []

    async def counts() -> int:
        begun.append(1)
        return len(begun)

    async def main() -> None:
        async with running(tmp_path, timeout_s=30) as (runner, _):
            first, behind = describe(blocks), describe(counts)
            told = asyncio.ensure_future(runner.run(first, first.arguments.model_validate({}), Follower(), timeout_s=1))
            while not BEGUN:
                await asyncio.sleep(0.01)
            old = runner._loop._thread
            assert old is not None
            late = [run(runner, counts) for _ in range(3)]
            over = runner.run(behind, behind.arguments.model_validate({}), Follower(), timeout_s=0.02)
            got = await asyncio.wait_for(asyncio.gather(told, over, *late, return_exceptions=True), 30)
            assert [type(one) for one in got[:2]] == [ServiceProblem, ServiceProblem]
            assert sorted(got[2:]) == [b"1", b"2", b"3"]
            while runner.stuck != 1:
                await asyncio.sleep(0.01)
            RELEASED.set()
            while runner.stuck or old.is_alive():
                await asyncio.sleep(0.01)
            assert len(begun) == 3, "the loop that came back begins nothing again"

    in_a_loop(main)


def test_too_many_lost_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many runs have not come back, others are refused with a time to come again, until they do."""
    monkeypatch.setattr(flow_run, "_COMES_BACK_S", 0.01)
    monkeypatch.setattr(flow_run, "MOST_STUCK", 2)

    async def main() -> None:
        async with running(tmp_path, timeout_s=0.02) as (runner, _):
            for times in (1, 2):
                await over(runner, sleeps, times)
            while runner.stuck < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(ServiceProblem) as caught:
                await run(runner, ask, text="hi")
            assert (caught.value.problem.status, caught.value.problem.retry_after_s) == (503, 30.0)
            RELEASED.set()
            while runner.stuck:
                await asyncio.sleep(0.01)
            spec = describe(ask)
            assert await runner.run(spec, spec.arguments.model_validate({"text": "hi"}), Follower(), timeout_s=5) == b'"ok"'

    in_a_loop(main)


def test_one_key_does_not_use_up_what_all_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose runs do not come back is refused, and everybody else's go on."""
    monkeypatch.setattr(flow_run, "_COMES_BACK_S", 0.01)
    monkeypatch.setattr(flow_run, "MOST_STUCK_OF_ONE", 2)

    async def main() -> None:
        async with running(tmp_path, timeout_s=0.02) as (runner, _):
            token = ASKING.set(Caller("one", Tier(name="default")))
            for times in (1, 2):
                await over(runner, sleeps, times)
            while runner.stuck < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(ServiceProblem, match="have not come back"):
                await run(runner, ask, text="hi")
            ASKING.reset(token)
            spec = describe(ask)
            assert await runner.run(spec, spec.arguments.model_validate({"text": "hi"}), Follower(), timeout_s=5) == b'"ok"'

    in_a_loop(main)


@by_kind
@pytest.mark.parametrize("watched", [False, True], ids=["whole", "streamed"])
def test_a_caller_that_leaves(kind: Callable[..., Any], watched: bool, tmp_path: Path) -> None:
    """Upstream is closed within a second, the flow ends, and no thread is left."""

    async def main() -> None:
        fake = FakeProvider(default=HANGS)
        async with running(tmp_path, fake) as (runner, client):
            follower = Follower((lambda _: None) if watched else None)
            task = asyncio.ensure_future(run(runner, kind, follower, text="hi"))
            while not fake.in_flight:
                await asyncio.sleep(0.005)
            task.cancel()
            watch = Stopwatch()
            with pytest.raises(asyncio.CancelledError):
                await task
            while fake.in_flight:
                await asyncio.sleep(0.005)
            assert watch.s < 1
            assert [row.status.value for row in rows(client)] == ["cancelled"]
            await asyncio.sleep(0.15)
            assert runner.stuck == 0

    in_a_loop(main)
    assert our_threads() == []


def stubborn() -> str:
    while True:
        try:
            return ask("hi")
        except Exception:  # noqa: S112 - a flow that tries for ever
            continue


def test_a_stubborn_flow(tmp_path: Path) -> None:
    """One that catches every exception and asks again does not go on asking after its time."""

    async def main() -> None:
        fake = FakeProvider(default=HANGS)
        async with running(tmp_path, fake, timeout_s=0.5) as (runner, _):
            with pytest.raises(ServiceProblem):
                await run(runner, stubborn)
            await asyncio.sleep(0.2)
            assert (fake.calls, fake.in_flight, runner.stuck) == (1, 0, 0)

    in_a_loop(main)
