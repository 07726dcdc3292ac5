"""ladder: a watcher is told when pieces that it saw are void."""

from __future__ import annotations

import pytest

from nbllm import errors
from nbllm.core.messages import Delta
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import TWO, World, outcome, pair


def test_the_watcher_is_told_when_pieces_are_void() -> None:
    """Pieces of a rung that broke off are declared void before those of the next come; without pieces nothing is said."""

    async def run() -> None:
        world = pair(Script(pieces=["One ", "two "], then=errors.StreamInterrupted), Script(pieces=["all ", "of it"]))
        watcher = Watcher()
        reply = await world.ask("q", *TWO, watched=True, sink=watcher)
        assert reply.text == "all of it"
        assert watcher.events == ["started", "One ", "two ", "restarted: interrupted", "started", "all ", "of it"]
        watcher = Watcher()
        world = pair(errors.ServerFailed("no", status=500), "fine")
        await world.ask("q", *TWO, watched=True, sink=watcher, retries=0)
        assert watcher.events == ["started", "started", "fine"]
        await world.close()

    run_virtual(run())


def test_every_kind_of_break_in_mid_stream_is_declared_void() -> None:
    """Whatever ended a stream after its first piece, a retry or another rung begins on a clean page."""

    async def run() -> None:
        for kind in (errors.BadAnswer, errors.AnswerTooLarge, errors.ServerFailed, errors.ConnectionFailed, errors.RateLimited):
            for models in (("one/m",), TWO):
                world = World(FakeProvider(Script(pieces=["half"], then=kind), default="whole"))
                watcher = Watcher()
                result = await outcome(world.ask("q", *models, watched=True, sink=watcher))
                if isinstance(result, Reply):
                    assert watcher.events == ["started", "half", "restarted: interrupted", "started", "whole"], kind
                else:
                    assert kind is errors.AnswerTooLarge
                    assert models == ("one/m",)
                await world.close()

    run_virtual(run())


def test_the_watcher_is_told_before_a_fallback_answer() -> None:
    """A stale or static answer after pieces of a model is declared a new beginning."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["half"], then=errors.StreamInterrupted)))
        watcher = Watcher()
        await world.ask("q", watched=True, static="sorry", sink=watcher, retries=0)
        assert watcher.events == ["started", "half", "restarted: fallback", "sorry"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("kind", [errors.StreamInterrupted, errors.BadAnswer])
@pytest.mark.parametrize("static", [None, "sorry"])
def test_who_cannot_take_pieces_back_gets_the_error(kind: type[errors.AttemptFailed], static: str | None) -> None:
    """on_interrupt="raise": an interrupted stream ends with its error and partial text; no rung, no static answer follows it."""

    async def run() -> None:
        world = pair(Script(pieces=["half"], then=kind))
        watcher = Watcher()
        with pytest.raises(kind) as caught:
            await world.ask("q", *TWO, watched=True, on_interrupt="raise", static=static, sink=watcher)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        assert watcher.events == ["started", "half"]
        assert world.providers["two"].calls == 0
        await world.close()

    run_virtual(run())


def test_the_partial_of_the_group_is_the_last_that_came() -> None:
    """AllRungsFailed keeps the partial text of the last rung that had one."""

    async def run() -> None:
        world = pair(Script(pieces=["half"], then=errors.StreamInterrupted), errors.ServerFailed("no", status=500))
        with pytest.raises(errors.AllRungsFailed) as caught:
            await world.ask("q", *TWO, watched=True, retries=0)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        await world.close()

    run_virtual(run())


def test_reasoning_of_a_rejected_rung_is_void() -> None:
    """With a schema, reasoning may be seen before the answer is; when no answer of the rung passes, it is declared void too."""

    async def run() -> None:
        schema = {"type": "integer"}
        world = pair([Delta(reasoning="I think"), Delta(text="no number")], [Delta(reasoning="sure"), Delta(text="4")])
        watcher = Watcher()
        reply = await world.ask("q", *TWO, watched=True, repairs=0, json_schema=schema, schema_type=schema, sink=watcher)
        assert reply.data == 4
        kinds = [e if isinstance(e, str) else e.reasoning for e in watcher.events]
        assert kinds == ["started", "I think", "restarted: interrupted", "started", "sure", "4"]
        await world.close()

    run_virtual(run())
