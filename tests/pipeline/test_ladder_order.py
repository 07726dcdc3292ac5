"""ladder: the order of rungs, what leads to the next, how the time is shared, one error with every cause."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import priced_like, rung
from tests.pipeline.world import TWO, World, now_s, pair

FALLS = [
    errors.ConnectionFailed,
    errors.ServerFailed,
    errors.BadAnswer,
    errors.AnswerTooLarge,
    errors.RateLimited,
    errors.AuthenticationFailed,
    errors.PermissionDenied,
    errors.ModelNotFound,
    errors.RedirectRefused,
    errors.Truncated,
]
RAISES = [errors.BadParameter, errors.Refused]


@pytest.mark.parametrize("kind", FALLS, ids=lambda k: k.__name__)
@pytest.mark.parametrize("watched", [False, True])
def test_the_next_rung_answers(kind: type[Exception], watched: bool) -> None:
    """After a failure that another model need not share, the next rung answers, and the reply says which one it was."""

    async def run() -> None:
        world = pair(kind("no"))
        reply = await world.ask("q", *TWO, retries=0, watched=watched)
        assert (reply.text, reply.rung, reply.source) == ("from the second", "two/m", "model")
        assert [a.rung for a in reply.attempts] == ["one/m", "two/m"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("kind", RAISES, ids=lambda k: k.__name__)
def test_what_every_model_would_meet_is_raised_as_it_is(kind: type[errors.AttemptFailed]) -> None:
    """A wrong parameter and a refusal end the call at once: no other rung, no stale and no static answer."""

    async def run() -> None:
        world = pair(kind("no"))
        with pytest.raises(kind):
            await world.ask("q", *TWO, static="sorry", stale_ok_s=60.0)
        assert world.providers["two"].calls == 0
        await world.close()

    run_virtual(run())


def test_rungs_are_asked_in_order_and_only_as_far_as_needed() -> None:
    """The first rung that answers is the last that is asked."""

    async def run() -> None:
        asked: list[str] = []

        def say(wire: Any) -> Any:
            asked.append(wire.rung.id)
            return "yes" if wire.rung.id == "three/m" else errors.ServerFailed("no", status=500)

        world = World(FakeProvider(default=say))
        reply = await world.ask("q", "one/m", "two/m", "three/m", "four/m", retries=0)
        assert asked == ["one/m", "two/m", "three/m"]
        assert reply.rung == "three/m"
        await world.close()

    run_virtual(run())


def test_a_context_too_long_goes_to_a_larger_window_only() -> None:
    """After ContextTooLong only rungs with a window known to be larger are tried."""

    async def run() -> None:
        asked: list[str] = []
        windows = {"small/m": 4096, "same/m": 4096, "unknown_size/m": None, "large/m": 128_000}

        def say(wire: Any) -> Any:
            asked.append(wire.rung.id)
            return "yes" if wire.rung.id == "large/m" else errors.ContextTooLong("too long", status=400)

        rungs = {name: priced_like(rung(*name.split("/")), context_tokens=size) for name, size in windows.items()}
        world = World(FakeProvider(default=say), rungs=rungs)
        reply = await world.ask("q", *windows)
        assert asked == ["small/m", "large/m"]
        assert reply.rung == "large/m"
        asked.clear()
        with pytest.raises(errors.ContextTooLong):
            await world.ask("q2", "small/m", "same/m")
        assert asked == ["small/m"]
        await world.close()

    run_virtual(run())


def test_one_error_holds_every_cause() -> None:
    """When nobody answers, one error holds each cause in order, tries included, and says what was tried, waited and spent."""

    async def run() -> None:
        world = pair(errors.ServerFailed("dead", status=503), errors.AuthenticationFailed("no key", status=401))
        with pytest.raises(errors.AllRungsFailed) as caught:
            await world.ask("q", *TWO, retries=2)
        error = caught.value
        assert [type(exc).__name__ for exc in error.exceptions] == ["ServerFailed"] * 3 + ["AuthenticationFailed"]
        assert "2 models, 4 requests" in str(error)
        assert "0.4 s waited" in str(error)
        assert "$0.00 spent" in str(error)
        assert error.hint
        assert error.spent_usd == 0
        assert error.call_id in world.ledger.calls_by_id
        assert error.__cause__ is error.exceptions[-1]
        await world.close()

    run_virtual(run())


def test_one_cause_that_no_retry_mends_is_raised_as_what_it_is() -> None:
    """With a single rung a wrong key is AuthenticationFailed, not a group of one."""

    async def run() -> None:
        world = World(FakeProvider(default=errors.AuthenticationFailed("no key", status=401)))
        with pytest.raises(errors.AuthenticationFailed):
            await world.ask()
        await world.close()

    run_virtual(run())


def test_money_and_settings_are_raised_at_once() -> None:
    """A budget that refuses is the same on every rung: it is raised, no other rung is asked, no static answer given."""

    async def run() -> None:
        world = World()
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("q", *TWO, budget_usd=Decimal("0.000001"), static="sorry")
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("rungs", [2, 3])
def test_a_silent_primary_cannot_starve_its_fallback(watched: bool, rungs: int) -> None:
    """With n rungs left an attempt gets at most 1/n of what is left, streamed or whole; the last rung still answers in time."""

    async def run() -> None:
        names = [f"e{i}/m" for i in range(rungs)]
        silent = {f"e{i}": FakeProvider(default=Script(hang=True)) for i in range(rungs - 1)}
        last = FakeProvider(default=Script(pieces=["late but here"], first_after_s=1))
        world = World(providers={**silent, f"e{rungs - 1}": last})
        began = now_s()
        reply = await world.ask("q", *names, deadline_s=30, watched=watched, ttft_s=None, idle_s=None, retries=0)
        assert reply.text == "late but here"
        gone = now_s() - began
        assert gone == pytest.approx(30 * (rungs - 1) / rungs + 1, abs=0.01)
        for number, attempt in enumerate(reply.attempts[:-1]):
            assert attempt.latency_s == pytest.approx(30 / rungs), number
        await world.close()

    run_virtual(run())


def test_a_slow_connection_does_not_double_a_streams_share() -> None:
    """The share runs from the attempt's start, not from the send: a slow handshake is part of it."""

    async def run() -> None:
        class Slow(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Any:
                await asyncio.sleep(9)
                return await super().send(wire, progress)

        world = World(providers={"one": Slow(default=Script(hang=True)), "two": FakeProvider()})
        began = now_s()
        reply = await world.ask("q", *TWO, deadline_s=20, watched=True, retries=0)
        assert reply.rung == "two/m"
        assert now_s() - began == pytest.approx(10, abs=0.01)
        await world.close()

    run_virtual(run())
