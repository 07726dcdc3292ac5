"""attempt: a row that is opened before the send and closed once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import Book, World, now_s, outcome


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
