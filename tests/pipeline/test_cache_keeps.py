"""cache: what is kept, whole, and what never is."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Delta, Embed, Ending, ToolCallFragment
from nbllm.pipeline.cache import complete
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher, reply
from tests.pipeline.world import World, outcome

TOOL_CALL = Delta(tool_call=ToolCallFragment(0, "call_1", "add", '{"a": 1}'))


class Ends(FakeProvider):
    """Gives its text, and ends with a finish reason of its own."""

    def __init__(self, reason: str | None, *deltas: Delta) -> None:
        super().__init__(default=lambda _: deltas)
        self._reason = reason

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), finish_reason=self._reason)


@pytest.mark.parametrize(
    ("reason", "deltas", "kept"),
    [
        ("stop", [Delta(text="whole")], True),
        ("tool_calls", [TOOL_CALL], True),
        ("stop", [TOOL_CALL], True),
        ("length", [Delta(text="cut")], False),
        ("content_filter", [Delta(text="filtered")], False),
        (None, [Delta(text="no reason")], False),
        ("stop", [], False),
        ("stop", [Delta(reasoning="only thought")], False),
        ("tool_calls", [], False),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_complete_answers_only(reason: str | None, deltas: list[Delta], kept: bool, watched: bool) -> None:
    """I5: kept is what came to its end, with a text or a tool call in it; nothing else."""

    async def run() -> None:
        world = World(Ends(reason, *deltas))
        first = await world.ask("q", watched=watched)
        assert len(list(world.store.entries())) == kept
        again = await world.ask("q", watched=watched)
        assert again.source == ("cache" if kept else "model")
        assert (again.text, dict(again.message)) == (first.text, dict(first.message))
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("kind", [errors.ServerFailed, errors.Refused, errors.StreamInterrupted, errors.BadParameter])
def test_failures_are_not_kept(kind: type[Exception]) -> None:
    """Peer bug: an error, or half an answer, in the cache."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["half"], then=kind)))
        assert isinstance(await outcome(world.ask("q", watched=True, retries=0)), errors.CallFailed)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_a_cancelled_answer_is_not_kept() -> None:
    """What a person stopped is half an answer."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["a", "b"], gap_s=1)))
        call = world.start("q", watched=True)
        await asyncio.sleep(0.5)
        call.cancel()
        await outcome(call)
        await asyncio.sleep(5)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_an_answer_cut_by_the_budget_is_not_kept() -> None:
    """max_tokens that a budget lowered is not part of the key, so an answer that it cut must not be kept under it."""

    async def run() -> None:
        world = World(Ends("length", Delta(text="cut short")))
        reply = await world.ask("q", budget_usd=Decimal("0.0010"))
        assert any("max_tokens was lowered" in note for note in reply.notes)
        assert reply.truncated
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_stale_static_and_interrupted_are_not_kept() -> None:
    """Only what a model said just now is kept."""
    assert complete(reply("x"))
    for source in ("cache", "semantic", "stale", "static"):
        assert not complete(replace(reply("x"), source=source))
    assert not complete(reply("x", interrupted=True))


def test_tool_calls_are_kept_whole_and_shown() -> None:
    """A hit brings the tool calls back as they were, in the message and to whoever watches."""

    async def run() -> None:
        world = World(Ends("tool_calls", TOOL_CALL))
        first = await world.ask("q")
        watcher = Watcher()
        hit = await world.ask("q", sink=watcher, watched=True)
        assert hit.source == "cache"
        assert hit.message["tool_calls"] == first.message["tool_calls"]
        assert hit.message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
        assert [event.tool_call for event in watcher.events] == [TOOL_CALL.tool_call]
        await world.close()

    run_virtual(run())


def test_reasoning_and_logprobs_are_kept() -> None:
    """What was asked for beside the text comes back with it."""

    async def run() -> None:
        logprob = {"token": "yes", "logprob": -0.1, "top_logprobs": []}
        world = World(FakeProvider([Delta(reasoning="hm"), Delta(text="yes", logprobs=(logprob,))]))
        first = await world.ask("q", logprobs=True)
        hit = await world.ask("q", logprobs=True)
        assert (hit.reasoning, hit.logprobs) == ("hm", (logprob,))
        assert first.logprobs == hit.logprobs
        await world.close()

    run_virtual(run())


def test_vectors_are_kept_exactly() -> None:
    """Embeddings come back bit by bit, as float32 of the same shape."""

    async def run() -> None:
        world = World()
        content = Embed(texts=("one", "two"))
        first = await world.ask(content=content)
        hit = await world.ask(content=content)
        assert hit.source == "cache"
        assert hit.vectors.dtype == np.float32
        assert hit.vectors.shape == (2, 8)
        assert np.array_equal(first.vectors, hit.vectors)
        await world.close()

    run_virtual(run())


def test_an_entry_says_what_it_took() -> None:
    """Stored cost and time are those of the whole run, failed tries and repairs included; its tags name the feature."""

    async def run() -> None:
        world = World(FakeProvider(Script(first_after_s=1, then=errors.ServerFailed), Script(pieces=["fine"], first_after_s=2)))
        reply = await world.ask("q", feature="demo", tags=("mine",), ttl_s=60)
        (entry,) = world.store.entries()
        assert entry.cost_usd == reply.cost_usd
        assert entry.latency_s == pytest.approx(3)
        assert set(entry.tags) == {"mine", "feature:demo"}
        assert entry.model == "one/m"
        assert entry.expires_at == entry.created_at + 60
        await world.close()

    run_virtual(run())
