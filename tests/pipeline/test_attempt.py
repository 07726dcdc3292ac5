"""attempt: timers, the bill, and a row that is opened before the send and closed once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Delta, Embed, Ending, ToolCallFragment, Usage
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher, priced_like, rung
from tests.pipeline.world import Book, World, now_s, outcome

LONG = {"ttft_s": None, "idle_s": None, "retries": 0}


async def failure(world: World, **options: Any) -> tuple[BaseException, float]:
    """What the first cause was, and after how long it came."""
    began = now_s()
    result = await outcome(world.ask("q", **{"retries": 0, "watched": True, **options}))
    assert isinstance(result, BaseException), result
    if isinstance(result, errors.AllRungsFailed):
        return result.exceptions[0], now_s() - began
    return result, now_s() - began


# ---------------------------------------------------------------------------------------------------- timers


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


# ---------------------------------------------------------------------------------------------------- the bill


class Counts(FakeProvider):
    """Ends with these counts."""

    def __init__(self, usage: Usage, *steps: Any) -> None:
        super().__init__(*steps)
        self._usage = usage

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), usage=self._usage)


def test_counts_of_the_provider_are_exact() -> None:
    """Cost is reckoned from what the provider counted, cached input included, to the last digit."""

    async def run() -> None:
        world = World(Counts(Usage(input_tokens=1001, output_tokens=7, reasoning_tokens=3, cached_input_tokens=1)))
        reply = await world.ask("q")
        assert (reply.cost_usd, reply.cost_basis) == (Decimal("0.001015"), "exact")
        assert reply.usage.cached_input_tokens == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
def test_missing_counts_are_estimated_and_say_so(usage: Usage) -> None:
    """Where a provider counts nothing, or half of it, we count the rest ourselves; usage and cost are marked estimated."""

    async def run() -> None:
        world = World(Counts(usage, "four words of text"))
        reply = await world.ask("what is it?")
        assert reply.cost_basis == "estimated"
        assert reply.usage.estimated
        assert reply.usage.input_tokens == (usage.input_tokens or 3)
        assert reply.usage.output_tokens == (usage.output_tokens or 5)
        assert reply.cost_usd > 0
        await world.close()

    run_virtual(run())


def test_counts_that_came_before_the_cut_are_used() -> None:
    """A stream that tells its input tokens and is then cut: input as counted, output estimated from what came."""

    async def run() -> None:
        class Cut(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                progress.sent()
                progress.usage(Usage(input_tokens=1000))
                progress.delta(Delta(text="x" * 400))
                raise errors.StreamInterrupted("cut")

        world = World(Cut())
        await failure(world)
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.estimated) == (1000, 100, True)
        assert attempt.cost_usd == Decimal("0.0012")
        assert attempt.cost_basis == "estimated"
        await world.close()

    run_virtual(run())


def test_an_unpriced_model_is_unknown_never_zero() -> None:
    """No price: the cost is None, of the attempt and of the call, answered, failed or cancelled."""

    async def run() -> None:
        steps = ["fine", Script(then=errors.BadAnswer), Script(pieces=["a"], hang=True)]
        world = World(FakeProvider(*steps), rungs={"one/m": priced_like(rung(), price=None)})
        reply = await world.ask("a")
        assert (reply.cost_usd, reply.cost_basis) == (None, "unknown")
        failed, _ = await failure(world)
        assert isinstance(failed, errors.BadAnswer)
        call = world.start("c", watched=True)
        await asyncio.sleep(1)
        call.cancel()
        await outcome(call)
        assert [(a.cost_usd, a.cost_basis) for a in world.ledger.attempts_by_id.values()] == [(None, "unknown")] * 3
        await world.close()

    run_virtual(run())


def test_an_unpriced_model_that_was_not_reached_cost_nothing() -> None:
    """What was not sent, or was refused by status, costs exactly 0, priced or not."""

    async def run() -> None:
        refused = errors.ConnectionFailed("no", whole_endpoint=True)
        world = World(
            FakeProvider(refused, errors.ServerFailed("no", status=503)), rungs={"one/m": priced_like(rung(), price=None)}
        )
        for text in ("a", "b"):
            await outcome(world.ask(text, retries=0))
        assert [(a.cost_usd, a.cost_basis) for a in world.ledger.attempts_by_id.values()] == [(0, "exact")] * 2
        await world.close()

    run_virtual(run())


def test_embeddings_are_billed_by_input() -> None:
    """An embedding has no output tokens; its counts are complete without them, and its row says what it was for."""

    async def run() -> None:
        world = World()
        reply = await world.ask(content=Embed(texts=("two words", "and three more")))
        assert (reply.cost_usd, reply.cost_basis) == (Decimal("0.000005"), "exact")
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.purpose, attempt.streamed) == ("embed", False)
        await world.close()

    run_virtual(run())


def test_content_parts_are_counted() -> None:
    """The estimate reads the text of content parts, and nothing else of them."""

    async def run() -> None:
        parts = [{"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {"url": "data:" + "y" * 4000}}]
        world = World(Counts(Usage(), "ok"))
        reply = await world.ask(messages=({"role": "user", "content": parts}, {"role": "assistant", "content": None}))
        assert reply.usage.input_tokens == 100
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- rows


def test_the_row_is_opened_before_the_send_and_closed_after() -> None:
    """I1: no request without a row; the open row already says which rung, its number, and the worst case."""

    async def run() -> None:
        seen: list[Any] = []

        def look(_: Any) -> str:
            seen.extend(world.ledger.attempts_by_id.values())
            return "x"

        world = World(FakeProvider(default=look))
        await world.ask("q")
        (opened,) = seen
        assert (opened.status, opened.sent, opened.number, opened.rung) == (AttemptStatus.OPEN, None, 1, "one/m")
        assert opened.worst_case_usd > 0
        assert world.ledger.writes == ["open_call", "open_attempt", "close_attempt", "close_call"]
        (closed,) = world.ledger.attempts_by_id.values()
        assert (closed.status, closed.sent, closed.finish_reason) == (AttemptStatus.DONE, True, "stop")
        await world.close()

    run_virtual(run())


def test_the_send_waits_for_its_row() -> None:
    """When the ledger is busy for a moment, the request is sent only once its row is committed."""

    async def run() -> None:
        world = World(ledger=Book(locked_s=0.4))
        began = now_s()
        sent: list[float] = []
        world.provider.enqueue(lambda _: (sent.append(now_s() - began), "x")[1])
        reply = await world.ask("q")
        assert sent == [pytest.approx(0.4)]
        assert not any("locked" in note for note in reply.notes)
        await world.close()

    run_virtual(run(), patience_s=0.01)


@pytest.mark.parametrize("watched", [False, True])
def test_a_locked_ledger_costs_a_note_and_a_second_or_two(watched: bool) -> None:
    """A ledger that stays locked never stops a call: it goes on without, and the reply says so once."""

    async def run() -> None:
        world = World(ledger=Book(locked_s=1000))
        began = now_s()
        reply = await world.ask("q", watched=watched)
        assert reply.text == "ok"
        assert sum("ledger is locked" in note for note in reply.notes) == 1
        assert now_s() - began <= 2.1
        await asyncio.sleep(2000)
        await world.close()

    run_virtual(run(), patience_s=0.01)


@pytest.mark.parametrize("trouble", [errors.StorageError("The disk is full."), errors.HomeUnusable("The home is gone.")])
def test_a_ledger_that_fails_never_kills_a_call(trouble: Exception) -> None:
    """Whatever the ledger raises becomes a note on the reply, or on the error that the call ended with anyway."""

    async def run() -> None:
        world = World(FakeProvider("ok", default=errors.BadParameter("no", status=400)), ledger=Book(trouble=trouble))
        reply = await world.ask("q")
        assert reply.text == "ok"
        assert str(trouble) in reply.notes
        with pytest.raises(errors.BadParameter) as caught:
            await world.ask("r")
        assert str(trouble) in caught.value.__notes__
        await world.road.aclose()

    run_virtual(run())


def test_rows_count_up_over_rungs_and_tries() -> None:
    """Attempts of a call are numbered through, whichever rung they are on."""

    async def run() -> None:
        world = World(FakeProvider(*[errors.ServerFailed("no", status=500)] * 3, "ok"))
        reply = await world.ask("q", "one/m", "two/m")
        assert [(a.number, a.rung, a.http_status) for a in reply.attempts] == [
            (1, "one/m", 500),
            (2, "one/m", 500),
            (3, "one/m", 500),
            (4, "two/m", None),
        ]
        assert reply.attempts[1].waited_s == pytest.approx(0.125)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("locked_s", [0.0, 0.7])
@pytest.mark.parametrize("cache", ["use", "off"])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("at_s", [0.0, 0.3, 0.69, 0.71, 1.0, 1.5, 2.0, 2.5, 3.0, 3.4, 3.5, 3.9, 4.0, 4.3, 5.0])
def test_cancelled_at_any_moment_the_rows_are_closed(at_s: float, watched: bool, cache: str, locked_s: float) -> None:
    """I1: cancelled before, during or after the send, with a ledger that is free or busy, every row is closed once; what was
    sent is marked sent; the caller is gone within 50 ms.
    """

    async def run() -> None:
        fake = FakeProvider(Script(pieces=["one ", "two"], first_after_s=1, gap_s=1, end_after_s=0.5))
        world = World(fake, ledger=Book(locked_s=locked_s))
        began = now_s()
        call = world.start("q", cache=cache, watched=watched)
        await asyncio.sleep(at_s)
        call.cancel()
        result = await outcome(call)
        if not isinstance(result, Reply):
            assert isinstance(result, asyncio.CancelledError)
            assert now_s() - began <= at_s + 0.1
        await asyncio.sleep(5)
        attempts = list(world.ledger.attempts_by_id.values())
        assert sum(bool(a.sent) for a in attempts) == fake.calls
        if fake.cancelled:
            assert attempts[0].status is AttemptStatus.CANCELLED
            assert attempts[0].cost_basis == "estimated"
        await world.close()

    run_virtual(run(), patience_s=0.01)


# ---------------------------------------------------------------------------------------------------- the reply


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
