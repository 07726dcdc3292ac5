"""coalesce and the semantic cache: a hit that calls share passes the rules of each of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.likening import ASKED, NEAR, Likening
from tests.pipeline.making import Watcher


async def an_old_answer(folder: Path) -> Likening:
    """A world that has answered a question 100 s ago."""
    world = Likening(folder, provider=FakeProvider("first", "second", "third"))
    await world.ask(ASKED)
    await asyncio.sleep(100)
    return world


@pytest.mark.parametrize("on_interrupt", ["restart", "raise"])
def test_a_shared_hit_that_is_too_old_for_a_follower_is_asked_again_for_it(tmp_path: Path, on_interrupt: Any) -> None:
    """Who allows any age gets the stored answer; those who allow 10 s get the model's, all of them by one more request."""

    async def run() -> None:
        world = await an_old_answer(tmp_path)
        watcher = Watcher()
        strict = {"ttl_s": 10, "on_interrupt": on_interrupt}
        lead, *followers = await asyncio.gather(
            world.ask(NEAR, on_interrupt=on_interrupt),
            world.ask(NEAR, **strict, watched=True, sink=watcher),
            *(world.ask(NEAR, **strict) for _ in range(3)),
        )
        assert (lead.text, lead.source, round(lead.age_s or 0)) == ("first", "semantic", 100)
        assert {(reply.text, reply.source, reply.why.similarity) for reply in followers} == {("second", "model", None)}
        assert world.provider.calls == 2
        assert sum(reply.cost_usd or 0 for reply in followers) == world.spent() / 2
        seen = watcher.events[watcher.events.index("restarted: rejected") + 1 :] if on_interrupt == "restart" else watcher.events
        assert seen == ["started", "second"]
        assert (await world.ask(NEAR, ttl_s=10)).source == "cache"
        await world.close()

    run_virtual(run())


def test_a_shared_hit_that_is_young_enough_is_shared(tmp_path: Path) -> None:
    """A ttl_s that the stored answer's age keeps asks for nothing, whoever leads."""

    async def run() -> None:
        world = await an_old_answer(tmp_path)
        for options in ({}, {"ttl_s": 200}), ({"ttl_s": 200}, {}):
            replies = await asyncio.gather(*(world.ask(NEAR, **one) for one in options))
            assert [reply.source for reply in replies] == ["semantic"] * 2
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


def test_a_strict_leader_does_not_cost_a_lenient_follower_more(tmp_path: Path) -> None:
    """Where the one that allows less comes first, its fresh answer is everybody's."""

    async def run() -> None:
        world = await an_old_answer(tmp_path)
        replies = await asyncio.gather(world.ask(NEAR, ttl_s=10), world.ask(NEAR))
        assert [(reply.text, reply.source) for reply in replies] == [("second", "model")] * 2
        assert world.provider.calls == 2
        await world.close()

    run_virtual(run())
