"""Cascades and who watches: nothing is seen before it is accepted, and the delay is told."""

from __future__ import annotations

import pytest

from nbllm import errors
from nbllm.core.messages import Delta
from nbllm.core.meter_line import meter_line
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import (
    DOUBTFUL,
    LARGE,
    LOGPROB,
    SMALL,
    Seeing,
    world,
)


def spoken(logprob: float) -> Script:
    """An answer in three pieces, with some thinking, a second apart."""
    said = ("one ", "two ", "three")
    pieces = [Delta(reasoning="hm"), *(Delta(text=text, logprobs=({"logprob": logprob},)) for text in said)]
    return Script(pieces=pieces, first_after_s=1, gap_s=1)


@pytest.mark.parametrize("accept", [True, False])
def test_nothing_is_seen_before_it_is_accepted(accept: bool) -> None:
    """No piece of an answer that may be rejected reaches a watcher, thinking included; the last model streams live."""

    async def run() -> None:
        there = world(
            {"r": LOGPROB}, small=spoken(-0.1 if accept else -9), large=Script(pieces=["a", "b"], first_after_s=1, gap_s=1)
        )
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="raise")
        if accept:
            assert [at for at, _ in watcher.texts] == [4.0]
            assert watcher.text.endswith("one two three")
            assert reply.held_s == pytest.approx(3)
        else:
            assert watcher.texts == [(5.0, "a"), (6.0, "b")]
            assert reply.held_s == pytest.approx(4)
        assert watcher.restarts == []
        assert f"held back {reply.held_s:.0f}" in meter_line(reply)
        await there.close()

    run_virtual(run())


def test_a_fixed_ladder_holds_nothing_back() -> None:
    """Without a cascade the first piece is seen when it comes, and nothing is said of holding."""

    async def run() -> None:
        there = world({"r": [SMALL, LARGE]}, small=spoken(-9))
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True)
        assert watcher.texts[0][0] == 1.0
        assert reply.held_s is None
        await there.close()

    run_virtual(run())


def test_a_broken_early_stream_is_nobodys_loss() -> None:
    """An early answer that breaks off was not seen: the next model answers, even for who cannot take pieces back."""

    async def run() -> None:
        broken = Script(pieces=["half"], then=errors.StreamInterrupted)
        there = world({"r": LOGPROB}, small=broken)
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="raise")
        assert (reply.rung, watcher.text, watcher.restarts) == (LARGE, "from large", [])
        await there.close()

    run_virtual(run())


def test_a_last_stream_that_breaks_gives_way_to_the_best_answer() -> None:
    """With restart the pieces are taken back and the best answer stands there; with raise the break is raised with its partial."""

    async def run() -> None:
        broken = Script(pieces=["half"], then=errors.StreamInterrupted)
        there = world({"r": LOGPROB}, small=DOUBTFUL, large=broken)
        watcher = Seeing(there)
        reply = await there.ask("q", "r", sink=watcher, watched=True, on_interrupt="restart")
        assert (reply.text, reply.accepted, watcher.text) == ("doubtful", False, "doubtful")
        assert watcher.restarts[-1] == "fallback"
        with pytest.raises(errors.StreamInterrupted) as caught:
            await there.ask("p", "r", sink=Seeing(there), watched=True, on_interrupt="raise")
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        await there.close()

    run_virtual(run())
