"""One embedding per request: a learned route, the semantic cache and every rung share it, and share its failure too."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Embed, Ending, Usage
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.routing import LARGE, SMALL, learned, world
from tests.pipeline.world import World

ON = {"semantic_cache.mode": "shadow", "semantic_cache.embedder": "help/e"}


def slow(wire: Any) -> Script:
    """The vectors that FakeProvider gives, after a while."""
    return Script(then=FakeProvider()._embedded(wire.content), first_after_s=0.1)


def both(folder: Path, settings: dict[str, Any] | None = None, **steps: Any) -> World:
    """A world whose learned route and semantic cache ask one embedder."""
    return world({"r": learned(folder)}, settings={**ON, **(settings or {})}, **steps)


def embedded(there: World) -> list[str]:
    """The texts that the embedder was sent, in order."""
    return [text for wire in there.providers["help"].requests for text in wire.content.texts]  # type: ignore[union-attr]


@pytest.mark.parametrize("cache", ["use", "refresh"])
def test_a_learned_route_and_the_semantic_cache_embed_a_text_once(tmp_path: Path, cache: Any) -> None:
    """The route asks first, the cache takes what it got: one request, one attempt row, one cost; both have used the vector."""

    async def run() -> None:
        there = both(tmp_path)
        reply = await there.ask("hello", "r", cache=cache)
        assert (reply.rung, embedded(there)) == (LARGE, ["hello"])
        assert [a.purpose for a in reply.attempts] == ["embed", "answer"]
        assert reply.cost_usd == sum((a.cost_usd or Decimal(0) for a in reply.attempts), Decimal(0))
        assert [row.question for row in there.index.rows] == ["hello"]
        assert there.index.rows[0].vector @ there.index.rows[0].vector == pytest.approx(1.0)
        await there.close()

    run_virtual(run())


def test_equal_texts_in_flight_share_whoever_asks_first(tmp_path: Path) -> None:
    """A call on a fixed model (the semantic cache embeds) and calls of the route, at the same time: one embedding."""

    async def run() -> None:
        there = both(tmp_path, help=slow)
        await asyncio.gather(there.ask("hello", SMALL), there.ask("hello", "r"), there.ask("hello", "r", sample=1))
        assert embedded(there) == ["hello"]
        await there.ask("hello", "r", sample=2)
        assert embedded(there) == ["hello"]
        await there.close()

    run_virtual(run())


FAILURES = {"down": errors.ServerFailed, "never": Script(hang=True)}


@pytest.mark.parametrize("step", FAILURES)
def test_a_failing_embedder_is_asked_and_named_once(tmp_path: Path, step: str) -> None:
    """A degrade for the route and a miss for the cache: one request, one warning, and nobody waits for it twice."""

    async def run() -> None:
        there = both(tmp_path, help=FAILURES[step])
        began_s = there.clock.now_s()
        reply = await there.ask("hello", "r", deadline_s=20)
        assert (reply.rung, reply.source, len(reply.notes)) == (SMALL, "model", 1)
        assert "so its fixed ladder answered" in reply.notes[0]
        assert [a.purpose for a in reply.attempts] == ["embed", "answer"]
        assert embedded(there) == ["hello"]
        assert there.clock.now_s() - began_s < 10.1
        there.providers["help"].enqueue("works again")
        assert (await there.ask("hello", "r", sample=1)).notes == (), "another call tries anew"
        await there.close()

    run_virtual(run())


def test_rungs_share_a_failure(tmp_path: Path) -> None:
    """An embedder that hangs costs a call embed_timeout_s once, however many rungs it falls through."""

    async def run() -> None:
        there = both(tmp_path, help=Script(hang=True), small=errors.ServerFailed)
        began_s = there.clock.now_s()
        reply = await there.ask("hello", SMALL, LARGE, retries=0)
        assert (reply.rung, len(embedded(there))) == (LARGE, 1)
        assert [note for note in reply.notes if "No similar question" in note] == [
            "No similar question was looked for: help/e gave no embedding within 0.5 s."
        ]
        assert there.clock.now_s() - began_s < 0.6
        await there.close()

    run_virtual(run())


def test_a_budget_of_one_call_is_no_failure_of_anothers(tmp_path: Path) -> None:
    """Who waits for an embedding that the first one's budget refused asks for itself, out of its own."""

    async def run() -> None:
        there = both(tmp_path, help=slow)
        lead, follow = await asyncio.gather(
            there.ask("hello", SMALL, budget_usd=Decimal("0.0000001"), cache="refresh"),
            there.ask("hello", LARGE),
            return_exceptions=True,
        )
        assert isinstance(lead, errors.NbllmError)
        assert not isinstance(follow, BaseException)
        assert (follow.notes, embedded(there)) == ((), ["hello"])
        await there.close()

    run_virtual(run())


def test_cache_off_shares_nothing(tmp_path: Path) -> None:
    """A call with cache="off" neither takes a kept embedding nor leaves one."""

    async def run() -> None:
        there = both(tmp_path)
        await there.ask("hello", "r", cache="off")
        await there.ask("hello", "r", cache="off")
        assert embedded(there) == ["hello", "hello"]
        assert all(isinstance(wire.content, Embed) for wire in there.providers["help"].requests)
        await there.ask("hello", "r")
        assert len(embedded(there)) == 3
        await there.close()

    run_virtual(run())


def test_zeros_are_not_kept(tmp_path: Path) -> None:
    """An embedder that had a bad moment is asked again by the next call; in the same one its zeros are an error once."""

    async def run() -> None:
        there = both(tmp_path)
        there.providers["help"].enqueue(Ending(finish_reason="stop", usage=Usage(input_tokens=1), vectors=((0.0,) * 8,)))
        reply = await there.ask("hello", "r")
        assert (reply.rung, len(reply.notes), len(embedded(there))) == (SMALL, 1, 1)
        assert "zeros" in reply.notes[0]
        assert (await there.ask("hello", "r", sample=1)).rung == LARGE
        assert len(embedded(there)) == 2
        await there.close()

    run_virtual(run())
