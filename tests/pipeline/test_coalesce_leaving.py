"""coalesce in one process: a waiter that leaves, the leader too, ends only its own call; closing ends all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import SLOW, slow
from tests.pipeline.world import World, now_s, outcome

# ---------------------------------------------------------------------------------------------------- waiters leave


def test_a_waiters_deadline_ends_only_that_waiter() -> None:
    """Whoever is late gets DeadlineExceeded on time; the run and the others go on."""

    async def run() -> None:
        world = World(FakeProvider(slow(takes_s=5)))
        began = now_s()
        calls = [world.start("q", deadline_s=d) for d in (1, 60, 2)]
        assert isinstance(await outcome(calls[0]), errors.DeadlineExceeded)
        assert isinstance(await outcome(calls[2]), errors.DeadlineExceeded)
        assert now_s() - began <= 2.1
        assert (await calls[1]).text == "an answer"
        assert (world.provider.calls, world.provider.cancelled) == (1, 0)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("who", [0, 1, 2])
def test_a_cancelled_waiter_ends_only_itself(who: int) -> None:
    """Cancel any one of three, the leader too: the others get the answer of the one request."""

    async def run() -> None:
        world = World(FakeProvider(SLOW))
        calls = [world.start("q", watched=True) for _ in range(3)]
        await asyncio.sleep(1.5)
        calls[who].cancel()
        results = [await outcome(call) for call in calls]
        assert isinstance(results[who], asyncio.CancelledError)
        assert [r.text for r in results if isinstance(r, Reply)] == ["one two three"] * 2
        assert (world.provider.calls, world.provider.cancelled) == (1, 0)
        await world.close()

    run_virtual(run())


def test_a_leader_cancelled_in_mid_stream_is_billed_and_nobody_else() -> None:
    """The request was made on the leader's row: it is booked there, once, with its whole cost; who takes over pays nothing."""

    async def run() -> None:
        world = World(FakeProvider(SLOW))
        leader = world.start("q", watched=True, feature="a")
        await asyncio.sleep(0.5)
        second = world.start("q", watched=True, feature="b")
        await asyncio.sleep(1)
        leader.cancel()
        reply = await second
        assert isinstance(await outcome(leader), asyncio.CancelledError)
        assert (reply.text, reply.cost_usd, reply.attempts, reply.coalesced) == ("one two three", 0, (), True)
        (attempt,) = world.ledger.attempts_by_id.values()
        rows = list(world.ledger.calls_by_id.values())
        assert attempt.call_id == rows[0].call_id
        assert attempt.status is AttemptStatus.DONE
        assert [row.status for row in rows] == [AttemptStatus.CANCELLED, AttemptStatus.DONE]
        assert attempt.cost_usd == world.spent() == world.spent("feature:a")
        assert world.spent("feature:b") == 0
        assert (await world.ask("q")).saved_usd == attempt.cost_usd
        await world.close()

    run_virtual(run())


def test_what_is_sent_after_the_leader_left_is_paid_by_the_next() -> None:
    """A retry after the leader is gone is made on the row, and with the budgets, of who leads then."""

    async def run() -> None:
        failing = Script(first_after_s=1, then=errors.ServerFailed("no", status=500))
        world = World(FakeProvider(failing, slow(takes_s=1)))
        leader = world.start("q", feature="a")
        await asyncio.sleep(0.2)
        second = world.start("q", feature="b")
        await asyncio.sleep(0.3)
        leader.cancel()
        reply = await second
        first, retry = world.ledger.attempts_by_id.values()
        rows = list(world.ledger.calls_by_id)
        assert [first.call_id, retry.call_id] == rows
        assert [a.attempt_id for a in reply.attempts] == [retry.attempt_id]
        assert reply.cost_usd == retry.cost_usd == world.spent("feature:b")
        assert world.spent("feature:a") == 0
        await world.close()

    run_virtual(run())


def test_the_last_waiter_that_leaves_ends_the_run() -> None:
    """With nobody left the request is cancelled upstream at once, its row closed as cancelled, nothing stays reserved."""

    async def run() -> None:
        world = World(FakeProvider(SLOW), settings={"budget_session_usd": "5"})
        calls = [world.start("q", watched=True) for _ in range(3)]
        await asyncio.sleep(1.5)
        began = now_s()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert now_s() == began
        assert world.provider.cancelled == 1
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.status, attempt.cost_basis) == (AttemptStatus.CANCELLED, "estimated")
        assert attempt.cost_usd == world.spent() > 0
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


def test_a_provider_that_is_slow_to_let_go_holds_nobody_up() -> None:
    """A run that takes its time to end is waited for a moment; its row is closed all the same, later."""

    async def run() -> None:
        class Clinging(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Any:
                try:
                    return await super().send(wire, progress)
                finally:
                    await asyncio.sleep(5)

        world = World(Clinging(Script(hang=True)))
        began = now_s()
        assert isinstance(await outcome(world.ask("q", deadline_s=1)), errors.DeadlineExceeded)
        assert now_s() - began <= 1.1
        await asyncio.sleep(10)
        await world.close()

    run_virtual(run())


def test_who_comes_while_a_run_is_ending_gets_a_run_of_its_own() -> None:
    """A call that comes just after the last waiter left is not joined to the dying run."""

    async def run() -> None:
        world = World(FakeProvider(Script(hang=True), "fresh"))
        first = world.start("q")
        await asyncio.sleep(1)
        first.cancel()
        second = world.start("q")
        assert (await second).text == "fresh"
        assert isinstance(await outcome(first), asyncio.CancelledError)
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("cache", ["use", "off"])
def test_closing_ends_every_call(cache: str) -> None:
    """aclose() cancels what is in flight, shared or not: every caller is told, every row closed, nothing reserved or left."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(hang=True)), settings={"budget_session_usd": "5"})
        calls = [world.start(f"q{n % 2}", cache=cache) for n in range(4)]
        await asyncio.sleep(1)
        await world.close()
        for call in calls:
            assert isinstance(await outcome(call), asyncio.CancelledError)
        assert {row.status for row in world.ledger.calls_by_id.values()} == {AttemptStatus.CANCELLED}

    run_virtual(run())
