"""coalesce: sharing a run costs nobody what he would have had alone: his time, his fallback, his way of being interrupted."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, now_s, outcome

TWO = ("one/m", "two/m")


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
