"""breaker: what a failure switches off: a key, a model, or the whole endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.breaker import OPEN_S
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.failing import DEAD, REFUSED, opened, pair
from tests.pipeline.world import TWO, World, outcome


def test_a_wrong_key_is_asked_once() -> None:
    """After a 401 no request with that key is sent to any model of the endpoint; the message names the first refusal."""

    async def run() -> None:
        one = FakeProvider(default=errors.AuthenticationFailed("The key was refused.", status=401))
        world = pair(one)
        assert (await world.ask("a", *TWO)).rung == "two/m"
        assert (await world.ask("b", "one/other", "two/m")).rung == "two/m"
        with pytest.raises(errors.AuthenticationFailed, match=r"Nothing was sent.*The key was refused") as caught:
            await world.ask("c", "one/m")
        assert caught.value.hint
        assert one.calls == 1
        await asyncio.sleep(100_000)
        assert isinstance(await outcome(world.ask("d", "one/m")), errors.AuthenticationFailed)
        assert one.calls == 1, "time does not mend a key"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("change", ["key", "settings"])
def test_another_key_or_settings_are_tried(change: str) -> None:
    """What was switched off is tried again as soon as the key or the settings are others."""

    async def run() -> None:
        one = FakeProvider(errors.AuthenticationFailed("no", status=401), default="fine")
        world = World(one)
        await outcome(world.ask("a"))
        if change == "key":
            world.key = "another"
        else:
            world.road.breakers.settings_changed()
        assert (await world.ask("b")).text == "fine"
        assert (await world.ask("c")).text == "fine"
        await world.close()

    run_virtual(run())


def test_a_forbidden_model_is_off_by_itself() -> None:
    """A 403 switches the model off, not its neighbours on the same endpoint."""

    async def run() -> None:
        def say(wire: Any) -> Any:
            return errors.PermissionDenied("Not for you.", status=403) if wire.rung.model == "gold" else "fine"

        one = FakeProvider(default=say)
        world = World(one)
        assert isinstance(await outcome(world.ask("a", "one/gold")), errors.PermissionDenied)
        assert isinstance(await outcome(world.ask("b", "one/gold")), errors.PermissionDenied)
        assert (await world.ask("c", "one/plain")).text == "fine"
        assert one.calls == 2
        await world.close()

    run_virtual(run())


def test_refused_connections_count_on_the_whole_endpoint() -> None:
    """When nothing listens, all models behind the address rest."""

    async def run() -> None:
        one = FakeProvider(default=Script(then=REFUSED, sent=False))
        world = pair(one)
        for n in range(5):
            await outcome(world.ask(f"q{n}", f"one/model{n}", retries=0))
        assert isinstance(await outcome(world.ask("q", "one/model9")), errors.BreakerOpen)
        assert one.calls == 5
        await world.close()

    run_virtual(run())


def test_server_errors_count_on_the_model_alone() -> None:
    """One broken model does not take its neighbours down."""

    async def run() -> None:
        def say(wire: Any) -> Any:
            return DEAD if wire.rung.model == "broken" else "fine"

        world = World(FakeProvider(default=say))
        await opened(world, "one/broken")
        assert isinstance(await outcome(world.ask("q", "one/broken")), errors.BreakerOpen)
        assert (await world.ask("q", "one/fine")).text == "fine"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    "probe", [errors.BadAnswer("no JSON"), errors.ConnectionFailed("reset"), errors.ServerFailed("500", status=500), "fine"]
)
def test_an_endpoint_that_can_be_reached_again_is_open_to_all_its_models(probe: Any) -> None:
    """A probe that gets through to the endpoint closes the endpoint's breaker, whatever one model makes of the request."""

    async def run() -> None:
        down = Script(then=REFUSED, sent=False)
        one = FakeProvider(*[down] * 5, probe, default=Script(pieces=["fine"], first_after_s=1))
        world = World(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        await outcome(world.ask("probe", "one/m", retries=0))
        replies = await asyncio.gather(*(world.ask(f"q{n}", "one/other") for n in range(5)))
        assert {reply.text for reply in replies} == {"fine"}
        await world.close()

    run_virtual(run())


def test_a_refusal_of_the_models_breaker_gives_the_endpoints_ticket_back() -> None:
    """When the endpoint may be probed but this model still rests, the endpoint's probe is there for another model."""

    async def run() -> None:
        down, late = Script(then=REFUSED, sent=False), Script(first_after_s=10, then=DEAD)

        def say(wire: Any) -> Any:
            return "fine" if wire.rung.model == "x9" else late if wire.rung.model == "m" else down

        world = World(FakeProvider(default=say))
        models = ["one/m"] * 5 + [f"one/x{n}" for n in range(5)]
        await asyncio.gather(*(outcome(world.ask(f"q{n}", model, retries=0)) for n, model in enumerate(models)))
        await asyncio.sleep(OPEN_S - 10 + 0.1)
        with pytest.raises(errors.BreakerOpen):
            await world.road.breakers.ask(world.rung("one/m"))
        assert (await world.ask("another", "one/x9")).text == "fine"
        await world.close()

    run_virtual(run())
