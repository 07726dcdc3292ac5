"""cache: what is a hit, and whose type and check it has to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import X_SCHEMA, Even
from tests.pipeline.world import World, outcome

# ---------------------------------------------------------------------------------------------------- hits


@pytest.mark.parametrize("door", ["ask", "door"])
def test_the_second_call_is_free(door: str) -> None:
    """The same request again is answered from the cache: no request, cost 0, its own latency, and what it saved."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["an answer"], first_after_s=2)))
        ask: Callable[..., Any] = getattr(world, door)
        first = await ask("q")
        second = await ask("q")
        assert world.provider.calls == 1
        assert (second.text, second.source, second.cost_usd, second.cost_basis) == ("an answer", "cache", 0, "exact")
        assert (second.saved_usd, second.saved_s) == (first.cost_usd, pytest.approx(2))
        assert second.latency_s == 0
        assert second.attempts == ()
        assert second.message == first.message
        assert second.usage == first.usage
        assert second.call_id != first.call_id
        await world.close()

    run_virtual(run())


def test_a_fallbacks_answer_is_never_served_as_the_primarys() -> None:
    """The key names the model that answers: what the fallback said is a hit for the fallback only, and stays marked as its own."""

    async def run() -> None:
        one, two = FakeProvider(errors.ServerFailed("no", status=500), default="of one"), FakeProvider(default="of two")
        world = World(providers={"one": one, "two": two})
        first = await world.ask("q", "one/m", "two/m", retries=0)
        assert (first.text, first.rung) == ("of two", "two/m")
        again = await world.ask("q", "one/m", "two/m", retries=0)
        assert (again.text, again.rung, again.source) == ("of one", "one/m", "model")
        hit = await world.ask("q", "two/m")
        assert (hit.text, hit.rung, hit.source) == ("of two", "two/m", "cache")
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["ask", "door"])
def test_a_cascade_that_is_run_again_is_free(door: str) -> None:
    """Run All a second time: the rung that failed is asked once more, its fallback's answer comes from the cache."""

    async def run() -> None:
        dead = FakeProvider(default=errors.AuthenticationFailed("no", status=401))
        world = World(providers={"one": dead, "two": FakeProvider(default="of two")})
        ask: Callable[..., Any] = getattr(world, door)
        assert (await ask("q", "one/m", "two/m")).cost_usd > 0
        again = await ask("q", "one/m", "two/m")
        assert (again.text, again.source, again.cost_usd) == ("of two", "cache", 0)
        assert dead.calls == 1, "the key is off: not even the first rung is asked again"
        assert world.providers["two"].calls == 1
        await world.close()

    run_virtual(run())


def test_a_hit_needs_no_provider() -> None:
    """A hit costs nothing even when its provider is down and its breaker open."""

    async def run() -> None:
        world = World(FakeProvider("kept", default=errors.ServerFailed("dead", status=503)))
        await world.ask("kept question")
        for n in range(10):
            await outcome(world.ask(f"q{n}", retries=0))
        assert isinstance(await outcome(world.ask("new", retries=0)), errors.BreakerOpen)
        assert (await world.ask("kept question")).text == "kept"
        await world.close()

    run_virtual(run())


def test_modes() -> None:
    """use: reads and keeps. refresh: asks anew and keeps. off: neither."""

    async def run() -> None:
        world = World(FakeProvider("a", "b", "c", "d"))
        assert (await world.ask("q", cache="off")).text == "a"
        assert not list(world.store.entries())
        assert (await world.ask("q")).text == "b"
        assert (await world.ask("q", cache="off")).text == "c"
        assert (await world.ask("q")).text == "b"
        assert (await world.ask("q", cache="refresh")).text == "d"
        hit = await world.ask("q")
        assert (hit.text, hit.source) == ("d", "cache")
        await world.close()

    run_virtual(run())


def test_time_to_live_is_the_shorter_of_writer_and_reader() -> None:
    """An entry is fresh for the ttl it was stored with, and for no longer than the reader's own ttl."""

    async def run() -> None:
        world = World(FakeProvider("a", "b", "c"))
        await world.ask("q", ttl_s=100)
        await asyncio.sleep(50)
        assert (await world.ask("q")).text == "a"
        assert (await world.ask("q", ttl_s=40)).text == "b"
        await asyncio.sleep(30)
        assert (await world.ask("q")).text == "b"
        await asyncio.sleep(11)
        assert (await world.ask("q")).text == "c", "40 s of its own are over"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("stale_ok_s", [None, 10.0**9])
def test_the_maximum_age_is_absolute(stale_ok_s: float | None) -> None:
    """An entry over the maximum age answers nobody, not even as a stale one."""

    async def run() -> None:
        world = World(FakeProvider("a", default=errors.ServerFailed("dead", status=500)), settings={"cache_max_age_days": 1})
        await world.ask("q")
        await asyncio.sleep(86_399)
        assert (await world.ask("q")).text == "a"
        await asyncio.sleep(2)
        assert isinstance(await outcome(world.ask("q", retries=0, stale_ok_s=stale_ok_s)), errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- schema and check on hits


@pytest.mark.parametrize("door", ["ask", "door"])
def test_data_is_rebuilt_for_this_requests_own_type(door: str) -> None:
    """`.data` of a hit is an instance of this request's type, which a re-run cell has defined anew, built from the text."""

    async def run() -> None:
        def define() -> type:
            @dataclass
            class Point:
                x: int

            return Point

        world = World(FakeProvider('{"x": 3}'))
        ask: Callable[..., Any] = getattr(world, door)
        first_type, second_type = define(), define()
        assert isinstance((await ask("q", json_schema=X_SCHEMA, schema_type=first_type)).data, first_type)
        hit = await ask("q", json_schema=X_SCHEMA, schema_type=second_type)
        assert hit.source == "cache"
        assert isinstance(hit.data, second_type)
        assert hit.data.x == 3
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["ask", "door"])
def test_a_hit_that_fails_the_check_is_a_miss(door: str) -> None:
    """A stored answer passes this request's own check, or the model is asked."""

    async def run() -> None:
        world = World(FakeProvider("short", "a much longer answer"))
        ask: Callable[..., Any] = getattr(world, door)
        await ask("q")
        reply = await ask("q", check=lambda text: len(text) > 10)
        assert (reply.text, reply.source) == ("a much longer answer", "model")
        assert (await ask("q", check=lambda text: len(text) > 10)).source == "cache"
        await world.close()

    run_virtual(run())


def test_a_hit_that_fails_the_type_is_a_miss() -> None:
    """The same JSON Schema with a stricter type of the user's: the entry that does not fit it is a miss."""

    async def run() -> None:
        world = World(FakeProvider('{"x": 3}', '{"x": 4}'))
        await world.ask("q", json_schema=X_SCHEMA, schema_type=X_SCHEMA)
        for door in (world.door, world.ask):
            reply = await door("q", json_schema=X_SCHEMA, schema_type=Even)
            assert reply.data.x == 4
        assert world.provider.calls == 2
        await world.close()

    run_virtual(run())
