"""breaker: what opens it, and what never counts because it is not the endpoint's fault."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.failing import pair
from tests.pipeline.world import TWO, World, outcome

NEVER = [
    errors.RateLimited("429", status=429),
    errors.BadParameter("400", status=400),
    errors.ContextTooLong("400", status=400),
    errors.Refused("400", status=400),
    errors.ModelNotFound("404", status=404),
    errors.RedirectRefused("302", status=302),
    errors.AuthenticationFailed("401", status=401),
    errors.PermissionDenied("403", status=403),
]


@pytest.mark.parametrize("error", NEVER, ids=lambda e: type(e).__name__)
def test_what_is_not_its_fault_never_counts(error: errors.AttemptFailed) -> None:
    """429, the caller's own 4xx and refusals do not open a breaker, however many there are."""

    async def run() -> None:
        one = FakeProvider(default=error)
        world = World(one)
        for n in range(30):
            world.road.breakers.settings_changed()  # 401 and 403 are off until settings change: change them
            await outcome(world.ask(f"q{n}", "one/m", retries=0))
        assert one.calls == 30
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
def test_the_deadline_never_counts(watched: bool) -> None:
    """Calls that ran into their own deadline, or were cancelled, say nothing about the endpoint."""

    async def run() -> None:
        one = FakeProvider(*[Script(hang=True)] * 30, default="fine")
        world = World(one)
        calls = [world.start(f"q{n}", deadline_s=0.5, watched=watched) for n in range(20)]
        calls += [world.start(f"c{n}", watched=watched) for n in range(10)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (await world.ask("then")).text == "fine"
        await world.close()

    run_virtual(run())


HURRIED = [
    ({"deadline_s": 1.0}, False),
    ({"deadline_s": 1.0}, True),
    ({"attempt_s": 0.5}, False),
    ({"attempt_s": 0.5}, True),
    ({"ttft_s": 0.5}, True),
]


@pytest.mark.parametrize(("options", "watched"), HURRIED)
def test_a_callers_own_hurry_never_counts(options: dict[str, Any], watched: bool) -> None:
    """Timers that a caller set shorter than the client's settings say nothing about an endpoint that others find well."""

    async def run() -> None:
        one = FakeProvider(default=Script(pieces=["in its own time"], first_after_s=3))
        world = pair(one)
        for n in range(20):
            assert (await world.ask(f"q{n}", *TWO, watched=watched, retries=0, **options)).rung == "two/m"
        assert one.calls == 20
        assert (await world.ask("patient", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("settings", "watched"), [({}, False), ({}, True), ({"ttft_s": 2}, True), ({"attempt_s": 2}, False), ({"deadline_s": 6}, False)]
)
def test_a_silent_endpoint_opens_the_breaker(settings: dict[str, Any], watched: bool) -> None:
    """An endpoint that says nothing for as long as the client's settings wait for it is down: five at a time open the breaker."""

    async def run() -> None:
        silent = FakeProvider(default=Script(hang=True))
        world = pair(silent, settings=settings)
        given = {name: value for name, value in world.now.call.items() if name in ("ttft_s", "attempt_s", "deadline_s")}
        for wave in range(2):
            calls = (world.ask(f"{wave} {n}", *TWO, watched=watched, retries=0, **given) for n in range(5))
            assert {reply.rung for reply in await asyncio.gather(*calls)} == {"two/m"}
        assert silent.calls == 5
        await world.close()

    run_virtual(run())


def test_a_stream_that_stalls_opens_the_breaker_unless_the_caller_hurried() -> None:
    """idle_s as the settings have it counts; a shorter one of the caller's own does not."""

    async def run() -> None:
        for options, calls in (({}, 5), ({"idle_s": 0.5}, 10)):
            stalls = FakeProvider(default=Script(pieces=["half"], end_after_s=500))
            world = pair(stalls)
            for wave in range(2):
                await asyncio.gather(*(world.ask(f"{wave} {n}", *TWO, watched=True, retries=0, **options) for n in range(5)))
            assert stalls.calls == calls
            await world.close()

    run_virtual(run())
