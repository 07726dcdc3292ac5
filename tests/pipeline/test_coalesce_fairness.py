"""coalesce: sharing a run costs nobody what he would have had alone: his time, his fallback, his way of being interrupted."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import X_SCHEMA, Even, Watcher
from tests.pipeline.world import TWO, World, now_s, outcome


def silent_primary() -> World:
    return World(providers={"one": FakeProvider(default=Script(hang=True)), "two": FakeProvider()})


@pytest.mark.parametrize("watched", [False, True])
def test_a_joiners_fallback_does_not_starve(watched: bool) -> None:
    """Who joins the run of a call without a fallback leaves it at its own share of its own deadline, and asks its next rung."""

    async def run() -> None:
        world = silent_primary()
        patient = world.start("q", "one/m", watched=watched, ttft_s=None)
        await asyncio.sleep(1)
        began = now_s()
        reply = await world.ask("q", *TWO, deadline_s=10, watched=watched, ttft_s=None)
        assert reply.rung == "two/m"
        assert now_s() - began == pytest.approx(5, abs=0.1)
        assert world.providers["one"].cancelled == 0, "the patient one still waits"
        patient.cancel()
        await outcome(patient)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
def test_a_leaders_fallback_does_not_starve(watched: bool) -> None:
    """Who is joined by a call with much more time still leaves at its own share; the run goes on for the other."""

    async def run() -> None:
        slow = FakeProvider(default=Script(pieces=["at last"], first_after_s=100))
        world = World(providers={"one": slow, "two": FakeProvider()})
        began = now_s()
        hasty = world.start("q", *TWO, deadline_s=10, watched=watched, ttft_s=None, retries=0)
        await asyncio.sleep(1)
        patient = world.start("q", *TWO, deadline_s=1000, watched=watched, ttft_s=None, retries=0)
        assert (await hasty).rung == "two/m"
        assert now_s() - began == pytest.approx(5, abs=0.1)
        assert (await patient).text == "at last"
        assert slow.calls == 1
        await world.close()

    run_virtual(run())


def test_calls_made_together_fall_back_together() -> None:
    """Equal calls with a fallback behave like one: the attempt's own timer ends the attempt, and it counts on the breaker."""

    async def run() -> None:
        world = silent_primary()
        replies = await asyncio.gather(*(world.ask("q", *TWO, deadline_s=10, retries=0) for _ in range(50)))
        assert {reply.rung for reply in replies} == {"two/m"}
        assert (world.providers["one"].calls, world.providers["two"].calls) == (1, 1)
        (first, _) = world.ledger.attempts_by_id.values()
        assert (first.error, first.latency_s) == ("AttemptTimeout", pytest.approx(5, abs=0.01))
        await world.close()

    run_virtual(run())


def test_a_joiner_waits_anew_for_each_attempt() -> None:
    """A run that is retried is not silent: the joiner's share runs from the latest attempt."""

    async def run() -> None:
        failing = Script(first_after_s=4, then=errors.ServerFailed("no", status=500))
        one = FakeProvider(failing, Script(pieces=["second try"], first_after_s=2))
        world = World(providers={"one": one, "two": FakeProvider()})
        first = world.start("q", "one/m")
        await asyncio.sleep(0.1)
        joined = await world.ask("q", *TWO, deadline_s=10)
        assert (joined.text, joined.rung) == ("second try", "one/m")
        await first
        await world.close()

    run_virtual(run())


def test_a_stream_that_has_begun_is_not_left() -> None:
    """Who watches a shared stream come does not leave it for its next rung; silence in it is the idle timer's matter."""

    async def run() -> None:
        one = FakeProvider(Script(pieces=["a"] * 9, first_after_s=1, gap_s=1))
        world = World(providers={"one": one, "two": FakeProvider()})
        first = world.start("q", "one/m", watched=True)
        await asyncio.sleep(2.5)
        joined = await world.ask("q", *TWO, deadline_s=10, watched=True)
        assert (joined.text, joined.rung) == ("a" * 9, "one/m")
        await first
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("rungs", [1, 2])
def test_a_followers_fallback_does_not_starve(rungs: int) -> None:
    """Waiting for another process's answer takes its share at most, for each that waits: who has no fallback waits on."""

    async def run() -> None:
        a = World(FakeProvider(default=Script(pieces=["of the first"], first_after_s=40)))
        b = World(FakeProvider(default="of the second"), store=a.store, flights=a.flights)
        leading = a.start("q")
        await asyncio.sleep(0.1)
        began = now_s()
        hasty = b.start("q", *TWO, deadline_s=20)
        others = [b.start("q", *TWO[:rungs], deadline_s=100) for _ in range(2)]
        reply = await hasty
        assert (reply.text, reply.rung) == ("of the second", "two/m")
        assert now_s() - began == pytest.approx(10, abs=0.1)
        assert {(await call).text for call in others} == {"of the first"}
        await leading
        await a.close()
        await b.close()

    run_virtual(run())


@pytest.mark.parametrize("company", [0, 1, 3])
def test_a_leading_followers_fallback_does_not_starve(company: int) -> None:
    """The same with equal deadlines: who has a fallback gives up at its share, alone; the next in line waits on in its place."""

    async def run() -> None:
        a = World(FakeProvider(default=Script(pieces=["of the first"], first_after_s=80)))
        b = World(FakeProvider(default="of the second"), store=a.store, flights=a.flights)
        leading = a.start("q")
        await asyncio.sleep(0.1)
        began = now_s()
        hasty = b.start("q", *TWO, deadline_s=100)
        others = [b.start("q", "one/m", deadline_s=100) for _ in range(company)]
        assert (await hasty).rung == "two/m"
        assert now_s() - began == pytest.approx(50, abs=0.1)
        assert {(await call).text for call in others} <= {"of the first"}
        await leading
        assert b.provider.calls == 1
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_retry_is_inside_the_latest_deadline() -> None:
    """A wait for Retry-After that fits the longest waiter's deadline is made, though a shorter one's is over before."""

    async def run() -> None:
        slow_down = Script(first_after_s=1, then=errors.RateLimited("slow down", status=429, retry_after_s=10))
        world = World(FakeProvider(slow_down, "fine"))
        calls = [world.start("q", deadline_s=deadline_s) for deadline_s in (5, 100)]
        assert isinstance(await outcome(calls[0]), errors.DeadlineExceeded)
        assert (await calls[1]).text == "fine"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("first", ["restart", "raise"])
def test_who_cannot_take_pieces_back_never_sees_a_restart(first: str) -> None:
    """A stream that must raise when it breaks does not join a run that begins anew, nor the other way round; both are served."""

    async def run() -> None:
        broken = Script(pieces=["half"], first_after_s=1, then=errors.StreamInterrupted)
        world = World(FakeProvider(broken, default="whole"))
        second = "raise" if first == "restart" else "restart"
        watchers = {first: Watcher(), second: Watcher()}
        calls = {
            how: world.start("q", watched=True, on_interrupt=how, sink=watcher, deadline_s=60) for how, watcher in watchers.items()
        }
        results = {how: await outcome(call) for how, call in calls.items()}
        assert isinstance(results["restart"], Reply)
        assert results["restart"].text == "whole"
        assert not any(str(event).startswith("restarted") for event in watchers["raise"].events)
        if first == "raise":
            assert isinstance(results["raise"], errors.StreamInterrupted)
        else:
            assert isinstance(results["raise"], Reply)
            assert world.provider.calls == 2, "it followed: nothing was sent twice"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("cache", ["use", "off"])
def test_a_library_that_cancels_itself_is_a_failed_connection(cache: str) -> None:
    """A CancelledError from below that nobody asked for does not look like the caller's own: it is retried."""

    async def run() -> None:
        world = World(FakeProvider(asyncio.CancelledError(), "fine"))
        reply = await world.ask("q", cache=cache)
        assert (reply.text, [a.error for a in reply.attempts]) == ("fine", ["ConnectionFailed", None])
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- unequal options


def failing(*errors_first: Exception, takes_s: float = 1.0) -> FakeProvider:
    """Fails slowly as often as told, then answers."""
    return FakeProvider(*(Script(first_after_s=takes_s, then=exc) for exc in errors_first), default="fine")


@pytest.mark.parametrize(
    ("failure", "hasty", "patient"),
    [
        (errors.ServerFailed("no", status=500), {"retries": 0}, {"retries": 2}),
        (errors.BadAnswer("no"), {"retries": 0}, {"retries": 1}),
        (errors.RateLimited("no", status=429), {"retries": 0}, {}),
    ],
)
def test_who_asked_for_retries_gets_them(failure: Exception, hasty: dict[str, int], patient: dict[str, int]) -> None:
    """Who joins a run with fewer retries than its own does not fail with it: the run begins again for those, once for all."""

    async def run() -> None:
        world = World(failing(failure))
        calls = [world.start("q", **options) for options in (hasty, hasty, patient, patient)]
        results = [await outcome(call) for call in calls]
        for result in results[:2]:
            assert isinstance(result, errors.AllRungsFailed)
        assert results[0] is not results[1]
        assert [getattr(r, "text", r) for r in results[2:]] == ["fine"] * 2
        assert [r.coalesced for r in results[2:] if isinstance(r, Reply)] == [False, True]
        assert world.provider.calls == 2
        await world.close()

    run_virtual(run())


def test_nobody_gets_more_than_he_asked_for() -> None:
    """Equal or fewer retries: one failure is everybody's, and nothing is sent again; so is an error that no retry can mend."""

    async def run() -> None:
        world = World(failing(*[errors.ServerFailed("no", status=500)] * 2))
        results = await asyncio.gather(*(outcome(world.ask("q", retries=retries)) for retries in (1, 0, 1)))
        assert all(isinstance(r, errors.AllRungsFailed) for r in results)
        assert world.provider.calls == 2
        world = World(failing(errors.BadParameter("no", status=400)))
        results = await asyncio.gather(*(outcome(world.ask("q", retries=retries)) for retries in (0, 2)))
        assert all(isinstance(r, errors.BadParameter) for r in results)
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("script", "timer"),
    [
        (Script(pieces=["late"], first_after_s=5), "ttft_s"),
        (Script(pieces=["la", "te"], gap_s=5), "idle_s"),
        (Script(pieces=["late"], first_after_s=5), "attempt_s"),
    ],
)
def test_a_leaders_short_timer_is_its_own(script: Script, timer: str) -> None:
    """A timer that the leader set shorter ends the leader's call; who gave the model more time gets its answer."""

    async def run() -> None:
        world = World(FakeProvider(default=script))
        hasty = world.start("q", watched=True, retries=0, **{timer: 1.0})
        patient = world.start("q", watched=True, retries=0)
        assert isinstance(await outcome(hasty), errors.AllRungsFailed)
        assert (await patient).text == "late"
        assert world.provider.calls == 2
        await world.close()

    run_virtual(run())


def test_who_asked_for_repairs_gets_them() -> None:
    """Who joins a run with fewer repairs does not fail with its ValidationFailed."""

    async def run() -> None:
        schema = {"type": "integer"}
        ask = {"json_schema": schema, "schema_type": schema}
        world = World(FakeProvider(Script(pieces=["seven"], first_after_s=1), "seven", "7"))
        strict, patient = world.start("q", repairs=0, **ask), world.start("q", repairs=1, **ask)
        assert isinstance(await outcome(strict), errors.ValidationFailed)
        assert ((await patient).data, world.provider.calls) == (7, 3)
        await world.close()

    run_virtual(run())


class Cutting(FakeProvider):
    """Cuts its answer where max_tokens says so."""

    async def send(self, wire: Any, progress: Any) -> Any:
        ending = await super().send(wire, progress)
        return ending if wire.content.max_tokens is None else replace(ending, finish_reason="length")


@pytest.mark.parametrize("on_interrupt", ["restart", "raise"])
@pytest.mark.parametrize("watched", [False, True])
def test_an_answer_cut_for_ones_budget_is_not_the_others(watched: bool, on_interrupt: str) -> None:
    """What a leader's small budget cut short is the leader's alone: the others lead anew, without its note.

    Those who have read pieces and cannot take them back get StreamInterrupted with what they read.
    """

    async def run() -> None:
        world = World(Cutting(default=Script(pieces=["some ", "text"], first_after_s=1)))
        watchers = [Watcher() for _ in range(3)]
        how = {"watched": watched, "on_interrupt": on_interrupt}
        poor = world.start("q", budget_usd=Decimal("0.001"), sink=watchers[0], **how)
        rich = [world.start("q", sink=watcher, **how) for watcher in watchers[1:]]
        cut = await poor
        assert cut.truncated
        assert any("lowered" in note for note in cut.notes)
        for call, watcher in zip(rich, watchers[1:], strict=True):
            result = await outcome(call)
            if on_interrupt == "raise":
                assert isinstance(result, errors.StreamInterrupted)
                assert result.partial is not None
                assert result.partial.text == "some text"
                assert not any(str(event).startswith("restarted") for event in watcher.events)
            else:
                assert isinstance(result, Reply)
                assert (result.finish_reason, result.text, result.notes) == ("stop", "some text", ())
        assert world.provider.calls == (1 if on_interrupt == "raise" else 2)
        await world.close()

    run_virtual(run())


def test_a_whole_answer_under_a_lowered_limit_is_shared_without_the_note() -> None:
    """A lowered limit that cut nothing is said to the call whose budget it was, and to nobody else."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["whole"], first_after_s=1)))
        poor, rich = world.start("q", budget_usd=Decimal("0.001")), world.start("q")
        assert any("lowered" in note for note in (await poor).notes)
        assert ((await rich).text, (await rich).notes, world.provider.calls) == ("whole", (), 1)
        await world.close()

    run_virtual(run())


def test_a_rejected_text_was_never_shown_to_who_cannot_take_it_back() -> None:
    """stream() with a type of its own that refuses a shared answer has shown nothing of it: one text, the one that passed."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=['{"x": 1}'], first_after_s=1), '{"x": 2}'))
        watcher = Watcher()
        plain = world.start("q", json_schema=X_SCHEMA, schema_type=X_SCHEMA, watched=True, on_interrupt="raise")
        even = world.start(
            "q", json_schema=X_SCHEMA, schema_type=Even, watched=True, on_interrupt="raise", sink=watcher, deadline_s=50
        )
        assert (await plain).data == {"x": 1}
        assert (await even).data == Even(2)
        assert watcher.texts == ['{"x": 2}']
        await world.close()

    run_virtual(run())


def test_no_fallback_text_after_pieces_that_cannot_be_taken_back() -> None:
    """A stream that shows pieces and then runs into its deadline ends with them, not with a static answer behind them."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["half", "never"], gap_s=100)))
        watcher = Watcher()
        call = world.ask("q", watched=True, on_interrupt="raise", static="sorry", deadline_s=5, idle_s=None, sink=watcher)
        result = await outcome(call)
        assert isinstance(result, errors.CallFailed)
        assert result.partial is not None
        assert (result.partial.text, watcher.texts) == ("half", ["half"])
        world = World(FakeProvider(Script(pieces=["half", "never"], gap_s=100)))
        restarting = await world.ask("q", watched=True, static="sorry", deadline_s=5, idle_s=None)
        assert (restarting.text, restarting.source) == ("sorry", "static")
        await world.close()

    run_virtual(run())
