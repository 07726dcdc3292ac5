"""attempt: the timers of a stream, of a whole answer and of a handshake."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Delta, Ending, ToolCallFragment
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import World, failure

LONG = {"ttft_s": None, "idle_s": None, "retries": 0}


def test_first_token_is_waited_for_from_the_send() -> None:
    """ttft_s runs from the moment when the request is on the socket, not from the handshake before."""

    async def run() -> None:
        class Handshake(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                await asyncio.sleep(3)
                return await super().send(wire, progress)

        late, after_s = await failure(World(Handshake(Script(hang=True))), ttft_s=5)
        assert isinstance(late, errors.FirstTokenTimeout)
        assert after_s == pytest.approx(8)
        world = World(Handshake(Script(pieces=["x"], first_after_s=4.9)))
        reply = await world.ask("q", watched=True, ttft_s=5)
        assert reply.ttft_s == pytest.approx(4.9)
        assert reply.latency_s == pytest.approx(7.9)
        await world.close()

    run_virtual(run())


def test_a_handshake_that_never_ends_runs_into_the_same_timer() -> None:
    """What is never sent is not waited for for ever: ttft_s counts from the start then, nothing is marked sent, it costs 0."""

    async def run() -> None:
        class Never(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                await asyncio.sleep(10_000)
                raise AssertionError

        world = World(Never())
        late, after_s = await failure(world, ttft_s=5)
        assert isinstance(late, errors.FirstTokenTimeout)
        assert after_s == pytest.approx(5)
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.sent, attempt.cost_usd, attempt.cost_basis) == (False, 0, "exact")
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    "first",
    [Delta(reasoning="hm"), Delta(text="a"), Delta(tool_call=ToolCallFragment(0, "c", "f", ""))],
    ids=["reasoning", "text", "tool"],
)
def test_reasoning_and_tool_calls_are_progress(first: Delta) -> None:
    """A model that thinks aloud, or calls a tool, has begun: TTFT is over, and each piece winds the idle timer up again."""

    async def run() -> None:
        pieces = [first, *[Delta(reasoning="hm")] * 10, Delta(text="done")]
        world = World(FakeProvider(Script(pieces=pieces, first_after_s=4, gap_s=4)))
        reply = await world.ask("q", watched=True, ttft_s=5, idle_s=5)
        assert reply.text.endswith("done")
        assert reply.ttft_s == pytest.approx(4)
        await world.close()

    run_virtual(run())


def test_an_empty_piece_is_no_first_token() -> None:
    """Keep-alives and role-only chunks do not count as an answer that has begun."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=[Delta()] * 20, first_after_s=1, gap_s=1, hang=True)))
        late, after_s = await failure(world, ttft_s=5)
        assert isinstance(late, errors.FirstTokenTimeout)
        assert after_s == pytest.approx(5)
        await world.close()

    run_virtual(run())


def test_a_silence_ends_the_stream_with_what_came() -> None:
    """idle_s of silence in mid-answer is StreamInterrupted with the partial text, billed as estimated."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["One ", "two "], gap_s=2, hang=True)))
        cut, after_s = await failure(world, idle_s=3, on_interrupt="raise")
        assert isinstance(cut, errors.StreamInterrupted)
        assert after_s == pytest.approx(5)
        assert cut.partial is not None
        assert cut.partial.text == "One two "
        assert cut.rung == "one/m"
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.status, attempt.cost_basis, attempt.error) == (AttemptStatus.FAILED, "estimated", "StreamInterrupted")
        assert attempt.usage.output_tokens == 2
        await world.close()

    run_virtual(run())


def test_a_whole_answer_has_neither_first_token_nor_idle_timer() -> None:
    """Nobody watches: ttft_s and idle_s do not apply, the provider is asked for a whole answer, and ttft_s is None."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["a", "b"], first_after_s=50, gap_s=100)))
        reply = await world.ask("q", ttft_s=5, idle_s=5)
        assert reply.text == "ab"
        assert reply.ttft_s is None
        assert not world.provider.requests[0].streamed
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(("watched", "kind"), [(False, errors.AttemptTimeout), (True, errors.StreamInterrupted)])
def test_attempt_s_limits_one_attempt(watched: bool, kind: type[Exception]) -> None:
    """attempt_s holds for whole answers and for streams; a stream that had begun is interrupted and keeps what came."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["a"] * 100, first_after_s=1, gap_s=1)))
        late, after_s = await failure(world, watched=watched, attempt_s=7.5, on_interrupt="raise")
        assert isinstance(late, kind)
        assert after_s == pytest.approx(7.5)
        if watched:
            assert isinstance(late, errors.AttemptFailed)
            assert late.partial is not None
            assert late.partial.text == "a" * 7
        await world.close()

    run_virtual(run())


def test_the_only_rung_has_the_whole_deadline() -> None:
    """Without a fallback there is no share to keep free: the only rung may use all of the deadline."""

    async def run() -> None:
        for watched in (False, True):
            world = World(FakeProvider(Script(pieces=["late"], first_after_s=29)))
            assert (await world.ask("q", deadline_s=30, watched=watched, **LONG)).text == "late"
            await world.close()

    run_virtual(run())


def test_the_provider_knows_how_long_there_is() -> None:
    """wire.deadline_s is what is left, for libraries that insist on a timeout of their own."""

    async def run() -> None:
        world = World(FakeProvider(Script(first_after_s=4, then=errors.ServerFailed), "ok"))
        await world.ask("q", deadline_s=30)
        first, second = world.provider.requests
        assert first.deadline_s == pytest.approx(30)
        assert 25 < second.deadline_s < 26
        await world.close()

    run_virtual(run())


def test_a_timeout_of_the_providers_own_is_a_failed_connection() -> None:
    """A TimeoutError from below that is none of our timers is not mistaken for one, and is retried."""

    async def run() -> None:
        world = World(FakeProvider(TimeoutError("socket"), "fine"))
        reply = await world.ask("q")
        assert (reply.text, [a.error for a in reply.attempts]) == ("fine", ["ConnectionFailed", None])
        await world.close()

    run_virtual(run())
