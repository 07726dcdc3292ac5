"""Routes at the doors: the fast one, odd requests, names that are none, crowds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Embed, NullSink
from nbllm.pipeline.road import Hit
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import (
    CHEAPEST,
    CLASSIFIER,
    LARGE,
    LOGPROB,
    SMALL,
    TASK,
    VERIFIER,
    WEIGHTED,
    asked,
    calls,
    world,
)


def test_the_fast_door_serves_routes() -> None:
    """A stored answer of a route is served without leaving the caller's thread; a miss is not looked for again."""

    async def run() -> None:
        there = world({"r": CHEAPEST})
        assert not isinstance(there.road.try_hit(there.request("q", "r")), Hit)
        await there.door("q", "r")
        hit = there.road.try_hit(there.request("q", "r"))
        assert isinstance(hit, Hit)
        assert hit.reply.why.reason == "route r: small/m holds the exact answer"
        row = there.ledger.calls_by_id[hit.reply.call_id]
        assert (row.why.route, row.key_hash, row.source) == ("r", next(iter(there.store.entries())).key, "cache")
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("cache", ["refresh", "off"])
def test_without_the_cache_a_route_decides_anew(cache: str) -> None:
    """Refresh and off take no stored answer: the strategy is asked."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help="hard")
        await there.ask("q", SMALL)
        reply = await there.ask("q", "r", cache=cache)
        assert (reply.rung, reply.source) == (LARGE, "model")
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("route", [CLASSIFIER, LOGPROB], ids=["classifier", "cascade"])
def test_routes_for_chats_refuse_embeddings(route: dict[str, Any]) -> None:
    """Texts to embed have nothing for these to go by: refused by name, nothing sent."""

    async def run() -> None:
        there = world({"r": route})
        with pytest.raises(errors.InvalidRequest, match="texts to embed"):
            await there.ask("", "r", content=Embed(texts=("a",)))
        assert calls(there) == {}
        await there.close()

    run_virtual(run())


def test_odd_requests_are_routed() -> None:
    """Messages without text, a megabyte, nothing but an image: every strategy answers."""
    image = ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},)
    tool = ({"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "x", "tool_call_id": "1"})
    rules = [{"matches": "a+b", "use": LARGE}, {"contains": ["zz"], "use": LARGE}, {"language": "de", "use": LARGE}]

    async def run() -> None:
        routes = {
            "task": {**TASK, "rules": rules},
            "classifier": CLASSIFIER,
            "weighted": WEIGHTED,
            "cheapest": CHEAPEST,
            "l": LOGPROB,
        }
        there = world(routes, help="easy")
        for route in routes:
            for messages in (image, tool, ({"role": "user", "content": "a" * 1_000_000},)):
                assert (await there.ask("", route, messages=messages, cache="refresh")).text
        long = [w for w in there.providers["help"].requests if "characters left out" in asked(w)]
        assert long
        assert all(len(asked(w)) < 5000 for w in long)
        await there.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["fast", "road"])
def test_a_model_that_nobody_answers_to_is_left_out(door: str) -> None:
    """A route of a file may name an endpoint that is not there yet: the others answer, and it is said."""

    async def run() -> None:
        gone = "unknown/m"
        routes = {
            "w": {"strategy": "weighted", "weights": {gone: 1000, SMALL: 1}},
            "low": {**CHEAPEST, "models": [gone, SMALL]},
            "task": {**TASK, "rules": [{"feature": "f", "use": gone}]},
            "none": {**CHEAPEST, "models": [gone]},
            "cascade": {**VERIFIER, "models": [SMALL, gone]},
        }
        there = world(routes)
        ask = there.door if door == "fast" else there.ask
        for route in ("w", "low", "task"):
            reply = await ask(f"q {route}", route, feature="f", user="ann")
            assert reply.rung == SMALL
            assert reply.notes == ("No endpoint answers to 'unknown/m'. The route went on without it.",)
        for route in ("none", "cascade"):
            with pytest.raises(errors.UnknownModel):
                await ask("x", route)
        await there.close()

    run_virtual(run())


def test_a_route_that_is_removed_under_way_is_an_error() -> None:
    """A route that settings lose between the fast door and the road is told as what it is now: no model."""

    async def run() -> None:
        there = world({"r": CLASSIFIER})
        opened = there.road.try_hit(there.request("q", "r"))
        assert not isinstance(opened, Hit)
        there.configure(routes={"r": None})
        with pytest.raises(errors.UnknownModel):
            await there.road(opened, NullSink())
        await there.close()

    run_virtual(run())


def test_many_calls_share_one_label() -> None:
    """500 identical calls at once: one label is asked for, one answer is bought."""

    async def run() -> None:
        there = world({"r": CLASSIFIER}, help=Script(pieces=["hard"], first_after_s=1), large=Script(pieces=["x"], first_after_s=1))
        replies = await asyncio.gather(*(there.ask("q", "r") for _ in range(500)))
        assert {r.rung for r in replies} == {LARGE}
        assert calls(there) == {"help": 1, "large": 1}
        await there.close()

    run_virtual(run())


def test_reasons_hold_no_text_of_a_prompt() -> None:
    """What is asked and answered is not in the ledger's reasons, whatever the helpers say."""

    async def run() -> None:
        there = world({"r": CLASSIFIER, "v": VERIFIER}, help="SECRETWORD nothing", small="SECRETWORD")
        for route in ("r", "v"):
            await there.ask("SECRETWORD in a prompt", route)
        rows = json.dumps([str(row) for row in there.ledger.calls_by_id.values()])
        assert "SECRETWORD" not in rows
        await there.close()

    run_virtual(run())
