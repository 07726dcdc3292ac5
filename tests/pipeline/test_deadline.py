"""deadline: one total deadline; what came is kept; nobody waits longer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest

from nbllm import errors
from nbllm.core.messages import Delta, Partial, Request, Sink
from nbllm.core.ports import Balance, Scope
from nbllm.core.reply import Reply
from nbllm.pipeline.deadline import DeadlineStage
from nbllm.storage.memory import MemoryBudgets
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Inner, Watcher, request
from tests.pipeline.world import Book, World, now_s, outcome


def test_cuts_at_the_deadline_and_says_what_was_tried() -> None:
    """What takes longer than deadline_s is cancelled at the deadline; the error names the rungs that were tried."""

    async def run() -> None:
        inner = Inner("never", took_s=60)
        made = request(deadline_s=5)
        began = now_s()
        with pytest.raises(errors.DeadlineExceeded, match="within the deadline of 5 s") as caught:
            await DeadlineStage(inner)(made, Watcher())
        assert now_s() - began == 5
        assert "nothing yet" in str(caught.value)
        assert caught.value.partial is None
        assert caught.value.hint

    run_virtual(run())


def test_says_how_many_requests_there_were_and_what_they_cost() -> None:
    """The error counts the requests and their cost, so that a deadline is no mystery on the bill."""

    async def run() -> None:
        stalled = Script(pieces=["half an answer that is "], gap_s=0.1, end_after_s=60)
        world = World(provider=FakeProvider(errors.ServerFailed("down", status=503), default=stalled))
        with pytest.raises(errors.DeadlineExceeded, match=r"tried: one/m; 2 requests, \$0\.0\d+ spent, estimated\)") as caught:
            await world.ask("q", "one/m", deadline_s=5, watched=True, idle_s=None, retries=1)
        assert caught.value.spent_usd
        await world.close()

    run_virtual(run())


def test_partial_is_kept() -> None:
    """What had come by the deadline is in `.partial`, and the message says how much it is."""

    async def run() -> None:
        async def stall(made: Request, sink: Sink) -> Reply:
            assert made.call is not None
            made.call.partial = Partial(text="half an ans")
            await asyncio.sleep(60)
            raise AssertionError

        with pytest.raises(errors.DeadlineExceeded, match="11 characters") as caught:
            await DeadlineStage(Inner(stall))(request(deadline_s=1), Watcher())
        assert caught.value.partial == Partial(text="half an ans")

    run_virtual(run())


def test_a_timeout_from_below_is_not_the_deadline() -> None:
    """A TimeoutError that somebody below raises is passed on as what it is, not reported as the deadline."""

    async def run() -> None:
        with pytest.raises(TimeoutError) as caught:
            await DeadlineStage(Inner(TimeoutError("mine")))(request(deadline_s=5), Watcher())
        assert not isinstance(caught.value, errors.DeadlineExceeded)

        async def own_timeout(made: Request, sink: Sink) -> Reply:
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
            raise AssertionError

        began = now_s()
        with pytest.raises(TimeoutError):
            await DeadlineStage(Inner(own_timeout))(request(deadline_s=5), Watcher())
        assert now_s() - began == 1

    run_virtual(run())


def test_a_caller_that_cancels_is_cancelled_not_late() -> None:
    """A cancellation from outside stays one."""

    async def run() -> None:
        task = asyncio.create_task(DeadlineStage(Inner("x", took_s=9))(request(deadline_s=5), Watcher()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(run())


def test_the_shared_run_has_the_latest_deadline() -> None:
    """A waiter with a short deadline is late for itself; the run goes on to the deadline of the one that waits longest."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["a", "b"], first_after_s=1, gap_s=6)))
        short = world.start(watched=True, deadline_s=4)
        await asyncio.sleep(0.5)
        long = world.start(watched=True, deadline_s=20)
        began = now_s()
        late = await outcome(short)
        assert isinstance(late, errors.DeadlineExceeded)
        assert now_s() - began == pytest.approx(3.5, abs=0.1)
        assert late.partial is not None
        assert late.partial.text == "a"
        assert (await long).text == "ab"
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


def test_the_run_dies_with_the_last_deadline() -> None:
    """When the longest deadline is over, the run and its request end with it."""

    async def run() -> None:
        world = World(FakeProvider(Script(hang=True)))
        calls = [world.start(deadline_s=d) for d in (1, 3, 2)]
        began = now_s()
        for call in calls:
            assert isinstance(await outcome(call), errors.DeadlineExceeded)
        assert now_s() - began <= 3.1
        assert world.provider.cancelled == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("cache", ["use", "off"])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("locked_s", [0.0, 30.0])
@pytest.mark.parametrize("static", [None, "sorry"])
@pytest.mark.parametrize("models", [("one/m",), ("one/m", "two/m")])
def test_nobody_waits_longer(cache: str, watched: bool, locked_s: float, static: str | None, models: tuple[str, ...]) -> None:
    """I8: at most the deadline and 0.1 s, with a silent provider, streamed or not, even while the ledger is locked."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(hang=True)), ledger=Book(locked_s=locked_s))
        began = now_s()
        result = await outcome(world.ask("hello", *models, cache=cache, watched=watched, deadline_s=2, static=static, retries=0))
        assert now_s() - began <= 2.1
        if static is None:
            assert isinstance(result, errors.CallFailed)
        else:
            assert isinstance(result, Reply)
            assert (result.text, result.source) == ("sorry", "static")
        await asyncio.sleep(60)
        await world.close()

    run_virtual(run(), patience_s=0.01)


def test_reasoning_is_kept_too() -> None:
    """A model that only thought until the deadline leaves its reasoning in `.partial`."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=[Delta(reasoning="hmm "), Delta(reasoning="hmm")], gap_s=1, hang=True)))
        late = await outcome(world.ask(watched=True, deadline_s=5))
        assert isinstance(late, errors.DeadlineExceeded)
        assert late.partial is not None
        assert late.partial.reasoning == "hmm hmm"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("cache", ["use", "off"])
def test_earlier_partial_is_not_forgotten(cache: str) -> None:
    """I2: what the first rung had sent is still there when the second one is silent until the deadline."""

    async def run() -> None:
        first = FakeProvider(Script(pieces=["One two "], then=errors.StreamInterrupted))
        world = World(providers={"one": first, "two": FakeProvider(Script(hang=True))})
        late = await outcome(world.ask("q", "one/m", "two/m", watched=True, deadline_s=5, retries=0, ttft_s=None, cache=cache))
        assert isinstance(late, errors.DeadlineExceeded)
        assert late.partial is not None
        assert late.partial.text == "One two "
        await world.close()

    run_virtual(run())


class SlowBudgets(MemoryBudgets):
    """A store that books at once and tells so late."""

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        booked = await super().settle(reservation_id, scopes, cost_usd)
        await asyncio.sleep(30)
        return booked


@pytest.mark.parametrize("cache", ["use", "off"])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("deadline_s", [0.2, 2.0, 40.0])
def test_slow_disks_do_not_cost_an_answer_that_came_in_time(cache: str, watched: bool, deadline_s: float) -> None:
    """An answer that came just before the deadline is delivered, though ledger and budgets are slow one after the other."""

    async def run() -> None:
        fake = FakeProvider(Script(pieces=["in time"], first_after_s=deadline_s * 0.45))
        world = World(fake, ledger=Book(locked_s=30), budgets=SlowBudgets())
        began = now_s()
        reply = await world.ask("q", cache=cache, watched=watched, deadline_s=deadline_s)
        assert reply.text == "in time"
        assert now_s() - began <= deadline_s + 0.1
        assert reply.cost_usd == world.spent()
        await asyncio.sleep(60)
        await world.close()

    run_virtual(run(), patience_s=0.01)
