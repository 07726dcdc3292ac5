"""ladder: a stale answer, then a static one, marked and held to the request's own check."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import TWO, World, now_s


def test_a_stale_answer_serves_when_every_rung_failed() -> None:
    """An entry that expired at most stale_ok_s ago answers, marked stale, with a note why, and is not stored anew."""

    async def run() -> None:
        world = World(FakeProvider("fresh"), settings={"ladder": ["one/m"]})
        await world.ask("q", ttl_s=10)
        (entry,) = world.store.entries()
        await asyncio.sleep(60)
        world.provider.enqueue(*[errors.ServerFailed("dead", status=500)] * 2)
        reply = await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0)
        assert (reply.text, reply.source, reply.cost_usd) == ("fresh", "stale", 0)
        assert reply.age_s == pytest.approx(60)
        assert any("stale answer, because" in note for note in reply.notes)
        assert list(world.store.entries()) == [entry]
        await asyncio.sleep(60)
        with pytest.raises(errors.AllRungsFailed):
            await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0)
        await world.close()

    run_virtual(run())


def test_a_stale_answer_of_a_lower_rung_will_do() -> None:
    """Stale entries are looked for rung by rung, and the reply names the rung whose answer it was."""

    async def run() -> None:
        world = World(FakeProvider("of the second"))
        await world.ask("q", "two/m", ttl_s=10)
        world.provider.enqueue(*[errors.ServerFailed("dead", status=500)] * 2)
        await asyncio.sleep(20)
        reply = await world.ask("q", *TWO, ttl_s=10, stale_ok_s=100, retries=0)
        assert (reply.text, reply.rung, reply.source) == ("of the second", "two/m", "stale")
        await world.close()

    run_virtual(run())


def test_no_stale_answer_without_leave_or_with_the_cache_off() -> None:
    """Without stale_ok_s, and with cache off, an expired entry is never served."""

    async def run() -> None:
        world = World(FakeProvider("old", default=errors.ServerFailed("dead", status=500)))
        await world.ask("q", ttl_s=10)
        await asyncio.sleep(20)
        for options in ({"ttl_s": 10}, {"stale_ok_s": 100.0, "cache": "off"}):
            with pytest.raises(errors.AllRungsFailed):
                await world.ask("q", retries=0, **options)
        await world.close()

    run_virtual(run())


def test_a_stale_answer_passes_this_requests_own_check() -> None:
    """A stale entry that fails the request's check is a miss."""

    async def run() -> None:
        world = World(FakeProvider("old", default=errors.ServerFailed("dead", status=500)))
        await world.ask("q", ttl_s=10)
        await asyncio.sleep(20)
        seen: list[str] = []

        def check(text: str) -> bool:
            seen.append(text)
            return False

        with pytest.raises(errors.AllRungsFailed):
            await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0, check=check)
        assert seen == ["old"]
        await world.close()

    run_virtual(run())


def test_a_static_answer_that_does_not_pass_does_not_hide_why_it_stood_in() -> None:
    """static= that fails the check: the error says first that the model was down, then what is wrong with static=."""

    async def run() -> None:
        world = World(provider=FakeProvider(default=errors.ServerFailed("down", status=503)))
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", "one/m", static="sorry", check=lambda text: text == "fine", retries=0)
        said = str(caught.value)
        assert said.index("No model answered") < said.index("static answer") < said.index("static= that fits")
        assert isinstance(caught.value.__cause__, errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


def test_static_is_the_last_resort_and_is_marked() -> None:
    """The static answer comes after the stale one, says so, costs what the failures cost, and is never kept."""

    async def run() -> None:
        world = World(FakeProvider(default=errors.ServerFailed("dead", status=500)))
        watcher = Watcher()
        reply = await world.ask("q", static="closed today", stale_ok_s=60.0, retries=0, watched=True, sink=watcher)
        assert (reply.text, reply.source, reply.rung, reply.finish_reason) == ("closed today", "static", "static", None)
        assert any("static answer, because: No model answered" in note for note in reply.notes)
        assert watcher.texts == ["closed today"]
        assert not list(world.store.entries())
        assert len(reply.attempts) == 1
        await world.close()

    run_virtual(run())


def test_static_passes_schema_and_check() -> None:
    """Never an unvalidated .data: a static answer is parsed for the schema, and one that does not fit raises ValidationFailed."""

    async def run() -> None:
        dead = errors.ServerFailed("dead", status=500)
        world = World(FakeProvider(default=dead))
        schema = {"type": "array", "items": {"type": "integer"}}
        reply = await world.ask("q", static="[1, 2]", json_schema=schema, schema_type=schema, retries=0)
        assert (reply.data, reply.source) == ([1, 2], "static")
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", static="no list", json_schema=schema, schema_type=schema, retries=0)
        assert isinstance(caught.value.__cause__, errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("deadline_s", [0.2, 3.0, 300.0])
def test_static_comes_before_the_deadline(watched: bool, deadline_s: float) -> None:
    """With a silent ladder the static answer is there before the deadline is over, not an error after it."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(hang=True)))
        began = now_s()
        reply = await world.ask(
            "q", *TWO, deadline_s=deadline_s, static="sorry", watched=watched, ttft_s=None, idle_s=None, retries=0
        )
        assert (reply.text, reply.source) == ("sorry", "static")
        assert now_s() - began <= deadline_s
        await world.close()

    run_virtual(run())
