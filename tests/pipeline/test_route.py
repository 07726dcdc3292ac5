"""route: which rungs are to answer, and why."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Request
from nbllm.core.reply import Reply
from nbllm.core.routing import LADDER, Route
from nbllm.pipeline.road import Hit
from nbllm.pipeline.route import Router, RouteStage
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.making import Inner, Watcher, request, rung
from tests.pipeline.world import World


def unrouted() -> Request:
    made = request()
    return Request(content=made.content, options=made.options, call=made.call)


def test_the_plan_becomes_rungs_in_order_with_a_reason() -> None:
    """Model ids become rungs in the order of the plan, and the call remembers why they were chosen."""

    async def run() -> None:
        async def never() -> tuple[Route, bool]:
            raise AssertionError("nothing to look for")

        router = Router(lambda _: Route(("one/m", "two/m"), LADDER), lambda i: rung(*i.split("/")), never)
        inner = Inner("ok")
        made = unrouted()
        await RouteStage(inner, router, never, never, never)(made, Watcher())
        assert [r.id for r in inner.requests[0].rungs] == ["one/m", "two/m"]
        assert made.call is not None
        assert made.call.why is LADDER

    run_virtual(run())


def test_rungs_of_the_fast_door_are_not_chosen_again() -> None:
    """A request that try_hit has routed already is passed on untouched."""

    async def run() -> None:
        def never(_: object) -> Route:
            raise AssertionError("chosen twice")

        inner = Inner("ok")
        made = request(rung("one"), rung("two"))
        await RouteStage(inner, Router(never, rung, never), never, never, never)(made, Watcher())  # type: ignore[arg-type]
        assert inner.requests == [made]

    run_virtual(run())


def test_named_models_and_routes_win_over_the_ladder() -> None:
    """What the caller names answers, a route's name stands for its models, and without a name the ladder answers."""

    async def run() -> None:
        world = World(settings={"ladder": ["one/m"], "routes": {"cheap": ["two/a", "two/b"]}})
        assert (await world.ask("1")).rung == "one/m"
        assert (await world.ask("2", "three/x")).rung == "three/x"
        assert (await world.ask("3", "cheap")).rung == "two/a"
        assert [row.reason for row in world.ledger.calls_by_id.values()] == ["the ladder", "named by the caller", "route cheap"]
        await world.close()

    run_virtual(run())


def test_what_was_found_is_said_once() -> None:
    """With nothing configured a model is looked for; of the calls that use what was found, one says so."""

    async def run() -> None:
        world = World(settings={"ladder": []}, found=["local/tiny"])
        replies = await asyncio.gather(*(world.ask(f"q{i}") for i in range(5)))
        replies.append(await world.ask("later"))
        assert {reply.rung for reply in replies} == {"local/tiny"}
        assert sum("found on this machine" in " ".join(reply.notes) for reply in replies) == 1
        await world.close()

    run_virtual(run())


def test_the_fast_door_leaves_looking_for_a_model_to_the_road() -> None:
    """try_hit never looks for a model; it hands the opened request on, and the road routes it."""

    async def run() -> None:
        world = World(settings={"ladder": []}, found=["local/tiny"])
        opened = world.road.try_hit(world.request())
        assert isinstance(opened, Request)
        assert opened.call is not None
        assert opened.rungs == ()
        assert world.discoveries == 0
        assert (await world.road(opened, Watcher())).rung == "local/tiny"
        assert isinstance(world.road.try_hit(world.request()), Hit)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("models", [("unknown/m",), ("one/m", "unknown/m")])
def test_an_unknown_model_is_refused_before_anything_is_sent(models: tuple[str, ...]) -> None:
    """A name that nobody answers to is refused at once, wherever it stands on the ladder; no attempt row, nothing sent."""

    async def run() -> None:
        world = World()
        with pytest.raises(errors.UnknownModel):
            await world.ask("hello", *models)
        with pytest.raises(errors.UnknownModel):
            world.road.try_hit(world.request("hello", *models))
        assert world.provider.calls == 0
        assert not world.ledger.attempts_by_id
        (row,) = world.ledger.calls_by_id.values()
        assert (row.status, row.error) == (AttemptStatus.FAILED, "UnknownModel")
        await world.close()

    run_virtual(run())


def test_discovery_counts_against_the_deadline() -> None:
    """Looking for a model is inside the call's deadline; a call that gives up leaves the search to the next one."""

    async def run() -> None:
        world = World(FakeProvider(), settings={"ladder": []}, found=["local/tiny"])
        with pytest.raises(errors.DeadlineExceeded):
            await world.ask(deadline_s=0.1)
        reply = await world.ask(deadline_s=5)
        assert isinstance(reply, Reply)
        assert any("found" in note for note in reply.notes)
        await world.close()

    run_virtual(run())
