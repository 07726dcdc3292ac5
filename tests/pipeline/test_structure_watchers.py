"""structure: what a watcher sees of an answer that has yet to be validated."""

from __future__ import annotations

import pytest

from nbllm import errors
from nbllm.core.messages import Delta, ToolCallFragment
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import ASK, Watcher
from tests.pipeline.world import World, outcome


def test_text_is_held_until_it_is_valid() -> None:
    """With a schema a watcher sees no text before it is valid, and then all of it; a repair is announced."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["sev", "en"], gap_s=1), Script(pieces=["4", "2"], gap_s=1)))
        watcher = Watcher()
        reply = await world.ask("q", **ASK, watched=True, sink=watcher)
        assert reply.data == 42
        assert watcher.events == ["started", "restarted: repair", "started", "42"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
def test_reasoning_may_be_seen_before(watched: bool) -> None:
    """Reasoning is no answer and may be watched while the text is held; each is shown once."""

    async def run() -> None:
        world = World(FakeProvider([Delta(reasoning="let me see"), Delta(text="7")]))
        watcher = Watcher()
        await world.ask("q", **ASK, watched=watched, sink=watcher)
        assert watcher.events == ["started", Delta(reasoning="let me see"), "7"]
        await world.close()

    run_virtual(run())


def test_held_text_that_broke_off_is_not_lost() -> None:
    """I2: text that was held is in `.partial` of the error."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["[1, ", "2"], hang=True)))
        late = await outcome(world.ask("q", **ASK, watched=True, deadline_s=2))
        assert isinstance(late, errors.DeadlineExceeded)
        assert late.partial is not None
        assert late.partial.text == "[1, 2"
        await world.close()

    run_virtual(run())


def test_a_tool_call_is_no_answer_yet() -> None:
    """An answer that only calls a tool is passed on as it is: schema and check are about the answer that follows."""

    async def run() -> None:
        call = Delta(tool_call=ToolCallFragment(0, "c1", "add", "{}"))
        world = World(FakeProvider([call]))
        watcher = Watcher()
        reply = await world.ask("q", **ASK, check=lambda _: False, watched=True, sink=watcher)
        assert reply.data is None
        assert reply.message["tool_calls"][0]["function"]["name"] == "add"
        assert watcher.events == ["started", call]
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())
