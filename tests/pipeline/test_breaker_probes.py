"""breaker: an endpoint that is down costs nobody time, and one probe at a time finds out whether it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.breaker import MAX_OPEN_S, OPEN_S, PROBE_LEASE_S
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.failing import DEAD, REFUSED, opened, pair
from tests.pipeline.world import TWO, World, now_s, outcome


@pytest.mark.parametrize("fault", [Script(then=DEAD), Script(then=REFUSED, sent=False), Script(first_after_s=0.05, then=DEAD)])
def test_a_dead_primary_under_load(fault: Script) -> None:
    """200 calls from 64 callers: every one is answered, at most 1.2 requests a call and 3 reach the dead one, and once the
    breaker is open calls go straight to the next rung.
    """

    async def run() -> None:
        dead = FakeProvider(default=fault)
        world = pair(dead)
        gate = asyncio.Semaphore(64)

        async def caller(n: int) -> Reply:
            async with gate:
                return await world.ask(f"q{n}", *TWO)

        tasks = [asyncio.create_task(caller(n)) for n in range(200)]
        replies = await asyncio.gather(*tasks)
        assert {reply.rung for reply in replies} == {"two/m"}
        assert dead.calls <= 1.2 * 200 + 3
        hits, began = dead.calls, now_s()
        for n in range(50):
            await world.ask(f"later {n}", *TWO)
        assert dead.calls == hits
        assert now_s() == began, "straight to the next rung"
        await world.close()

    run_virtual(run())


def test_at_most_one_probe_a_window() -> None:
    """Under steady load a dead endpoint gets one request each time its breaker may be tried, with growing pauses."""

    async def run() -> None:
        dead = FakeProvider(default=DEAD)
        world = pair(dead)
        await opened(world)
        began, times = now_s(), []
        while now_s() - began < 400:
            before = dead.calls
            await asyncio.gather(*(world.ask(f"{now_s()} {n}", *TWO, retries=2) for n in range(5)))
            assert dead.calls - before <= 1
            if dead.calls > before:
                times.append(now_s() - began)
            await asyncio.sleep(1)
        gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
        assert gaps == pytest.approx([15, 30, 60, 120, 120], abs=2)
        assert max(gaps) <= MAX_OPEN_S + 1
        await world.close()

    run_virtual(run())


def test_many_callers_at_the_end_of_a_window_send_one_probe() -> None:
    """When the pause is over, one of the callers is the probe; the others go to the next rung while it is out."""

    async def run() -> None:
        coming = Script(pieces=["back"], first_after_s=2)
        one = FakeProvider(*[DEAD] * 5, default=coming)
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        replies = await asyncio.gather(*(world.ask(f"q{n}", *TWO) for n in range(20)))
        assert one.calls == 6
        assert sorted(reply.rung for reply in replies) == ["one/m"] + ["two/m"] * 19
        assert (await world.ask("closed again", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


def test_a_probe_that_never_returns_does_not_wedge_the_breaker() -> None:
    """The probe's lease runs out: then another call is the probe, and a late result of the first one changes nothing."""

    async def run() -> None:
        stuck = Script(first_after_s=PROBE_LEASE_S + 50, then=DEAD)
        one = FakeProvider(*[DEAD] * 5, stuck, default="back")
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        probe = world.start("probe", "one/m", ttft_s=None, deadline_s=1000, retries=0)
        await asyncio.sleep(PROBE_LEASE_S - 1)
        assert (await world.ask("too early", *TWO)).rung == "two/m"
        await asyncio.sleep(1.5)
        assert (await world.ask("second probe", *TWO)).rung == "one/m"
        assert isinstance(await outcome(probe), errors.AllRungsFailed)
        assert (await world.ask("still closed", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("how", ["cancelled", "late", "429"])
def test_a_probe_that_says_nothing_hands_its_lease_back(how: str) -> None:
    """A probe whose caller went away, or that met a 429, neither closes nor reopens; the next call is the probe."""

    async def run() -> None:
        fault: Any = errors.RateLimited("slow down", status=429) if how == "429" else Script(hang=True)
        one = FakeProvider(*[DEAD] * 5, fault, default="back")
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        probe = world.start("probe", "one/m", deadline_s=3 if how == "late" else 300, retries=0)
        await asyncio.sleep(1)
        if how == "cancelled":
            probe.cancel()
        await outcome(probe)
        assert (await world.ask("next", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


def test_a_truncated_answer_is_a_sign_of_life() -> None:
    """A probe whose limit on tokens left no text still proves that the model answers."""

    async def run() -> None:
        class Thinks(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Any:
                ending = await super().send(wire, progress)
                return replace(ending, finish_reason="length") if wire.content.messages[0]["content"] == "probe" else ending

        one = Thinks(*[DEAD] * 5, Script(), default=Script(pieces=["fine"], first_after_s=1))
        world = World(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        assert isinstance(await outcome(world.ask("probe")), errors.Truncated)
        replies = await asyncio.gather(*(world.ask(f"q{n}") for n in range(5)))
        assert {reply.text for reply in replies} == {"fine"}
        await world.close()

    run_virtual(run())
