"""attempt: what the reply says of the answer."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Delta, Ending
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import World


def test_nothing_but_a_limit_is_truncated() -> None:
    """Finish "length" without any text is a typed Truncated that keeps the reasoning; with text it is an answer, marked."""

    async def run() -> None:
        class Short(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                return replace(await super().send(wire, progress), finish_reason="length")

        world = World(Short([Delta(reasoning="thinking")], "cut of"))
        with pytest.raises(errors.Truncated, match="only reasoned") as caught:
            await world.ask("a", static=None)
        assert caught.value.partial is not None
        assert caught.value.partial.reasoning == "thinking"
        assert "max_tokens" in caught.value.hint
        assert caught.value.spent_usd > 0
        reply = await world.ask("b")
        assert (reply.text, reply.truncated) == ("cut of", True)
        await world.close()

    run_virtual(run())


def test_the_reply_says_what_came() -> None:
    """Text, reasoning, message, model and rung of the reply are those of the answer."""

    async def run() -> None:
        world = World(FakeProvider([Delta(reasoning="hm"), Delta(text="an "), Delta(text="answer")]))
        watcher = Watcher()
        reply = await world.ask("q", watched=True, sink=watcher)
        assert (reply.text, reply.reasoning, reply.model, reply.rung) == ("an answer", "hm", "m", "one/m")
        assert reply.message == {"role": "assistant", "content": "an answer"}
        assert (reply.source, reply.finish_reason, reply.simulated) == ("model", "stop", False)
        assert watcher.events == ["started", Delta(reasoning="hm"), "an ", "answer"]
        await world.close()

    run_virtual(run())
