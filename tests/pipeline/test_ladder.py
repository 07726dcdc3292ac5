"""ladder: order, what leads to the next rung, stale and static answers, one error with every cause."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Delta
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher, priced_like, rung
from tests.pipeline.world import World, now_s, outcome

TWO = ("one/m", "two/m")
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


def pair(first: Any, second: Any = "from the second", **more: Any) -> World:
    return World(providers={"one": FakeProvider(default=first), "two": FakeProvider(default=second)}, **more)


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


# ---------------------------------------------------------------------------------------------------- stale, static


def test_a_stale_answer_serves_when_every_rung_failed() -> None:
    """An entry that expired at most stale_ok_s ago answers, marked stale, with a note why, and is not stored anew."""

    async def run() -> None:
        world = World(FakeProvider("fresh"), settings={"ladder": ["one/m"]})
        await world.ask("q", ttl_s=10)
        (entry,) = world.store.entries()
        await asyncio.sleep(60)
        world.provider.enqueue(*[errors.ServerFailed("dead", status=500)] * 2)
        reply = await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0)
        assert (reply.text, reply.source, reply.cost_usd) == ("fresh", "stale", 0)
        assert reply.age_s == pytest.approx(60)
        assert any("stale answer, because" in note for note in reply.notes)
        assert list(world.store.entries()) == [entry]
        await asyncio.sleep(60)
        with pytest.raises(errors.AllRungsFailed):
            await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0)
        await world.close()

    run_virtual(run())


def test_a_stale_answer_of_a_lower_rung_will_do() -> None:
    """Stale entries are looked for rung by rung, and the reply names the rung whose answer it was."""

    async def run() -> None:
        world = World(FakeProvider("of the second"))
        await world.ask("q", "two/m", ttl_s=10)
        world.provider.enqueue(*[errors.ServerFailed("dead", status=500)] * 2)
        await asyncio.sleep(20)
        reply = await world.ask("q", *TWO, ttl_s=10, stale_ok_s=100, retries=0)
        assert (reply.text, reply.rung, reply.source) == ("of the second", "two/m", "stale")
        await world.close()

    run_virtual(run())


def test_no_stale_answer_without_leave_or_with_the_cache_off() -> None:
    """Without stale_ok_s, and with cache off, an expired entry is never served."""

    async def run() -> None:
        world = World(FakeProvider("old", default=errors.ServerFailed("dead", status=500)))
        await world.ask("q", ttl_s=10)
        await asyncio.sleep(20)
        for options in ({"ttl_s": 10}, {"stale_ok_s": 100.0, "cache": "off"}):
            with pytest.raises(errors.AllRungsFailed):
                await world.ask("q", retries=0, **options)
        await world.close()

    run_virtual(run())


def test_a_stale_answer_passes_this_requests_own_check() -> None:
    """A stale entry that fails the request's check is a miss."""

    async def run() -> None:
        world = World(FakeProvider("old", default=errors.ServerFailed("dead", status=500)))
        await world.ask("q", ttl_s=10)
        await asyncio.sleep(20)
        seen: list[str] = []

        def check(text: str) -> bool:
            seen.append(text)
            return False

        with pytest.raises(errors.AllRungsFailed):
            await world.ask("q", ttl_s=10, stale_ok_s=100, retries=0, check=check)
        assert seen == ["old"]
        await world.close()

    run_virtual(run())


def test_a_static_answer_that_does_not_pass_does_not_hide_why_it_stood_in() -> None:
    """static= that fails the check: the error says first that the model was down, then what is wrong with static=."""

    async def run() -> None:
        world = World(provider=FakeProvider(default=errors.ServerFailed("down", status=503)))
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", "one/m", static="sorry", check=lambda text: text == "fine", retries=0)
        said = str(caught.value)
        assert said.index("No model answered") < said.index("static answer") < said.index("static= that fits")
        assert isinstance(caught.value.__cause__, errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


def test_static_is_the_last_resort_and_is_marked() -> None:
    """The static answer comes after the stale one, says so, costs what the failures cost, and is never kept."""

    async def run() -> None:
        world = World(FakeProvider(default=errors.ServerFailed("dead", status=500)))
        watcher = Watcher()
        reply = await world.ask("q", static="closed today", stale_ok_s=60.0, retries=0, watched=True, sink=watcher)
        assert (reply.text, reply.source, reply.rung, reply.finish_reason) == ("closed today", "static", "static", None)
        assert any("static answer, because: No model answered" in note for note in reply.notes)
        assert watcher.texts == ["closed today"]
        assert not list(world.store.entries())
        assert len(reply.attempts) == 1
        await world.close()

    run_virtual(run())


def test_static_passes_schema_and_check() -> None:
    """Never an unvalidated .data: a static answer is parsed for the schema, and one that does not fit raises ValidationFailed."""

    async def run() -> None:
        dead = errors.ServerFailed("dead", status=500)
        world = World(FakeProvider(default=dead))
        schema = {"type": "array", "items": {"type": "integer"}}
        reply = await world.ask("q", static="[1, 2]", json_schema=schema, schema_type=schema, retries=0)
        assert (reply.data, reply.source) == ([1, 2], "static")
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", static="no list", json_schema=schema, schema_type=schema, retries=0)
        assert isinstance(caught.value.__cause__, errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("deadline_s", [0.2, 3.0, 300.0])
def test_static_comes_before_the_deadline(watched: bool, deadline_s: float) -> None:
    """With a silent ladder the static answer is there before the deadline is over, not an error after it."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(hang=True)))
        began = now_s()
        reply = await world.ask(
            "q", *TWO, deadline_s=deadline_s, static="sorry", watched=watched, ttft_s=None, idle_s=None, retries=0
        )
        assert (reply.text, reply.source) == ("sorry", "static")
        assert now_s() - began <= deadline_s
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- what a watcher sees


def test_the_watcher_is_told_when_pieces_are_void() -> None:
    """Pieces of a rung that broke off are declared void before those of the next come; without pieces nothing is said."""

    async def run() -> None:
        world = pair(Script(pieces=["One ", "two "], then=errors.StreamInterrupted), Script(pieces=["all ", "of it"]))
        watcher = Watcher()
        reply = await world.ask("q", *TWO, watched=True, sink=watcher)
        assert reply.text == "all of it"
        assert watcher.events == ["started", "One ", "two ", "restarted: interrupted", "started", "all ", "of it"]
        watcher = Watcher()
        world = pair(errors.ServerFailed("no", status=500), "fine")
        await world.ask("q", *TWO, watched=True, sink=watcher, retries=0)
        assert watcher.events == ["started", "started", "fine"]
        await world.close()

    run_virtual(run())


def test_every_kind_of_break_in_mid_stream_is_declared_void() -> None:
    """Whatever ended a stream after its first piece, a retry or another rung begins on a clean page."""

    async def run() -> None:
        for kind in (errors.BadAnswer, errors.AnswerTooLarge, errors.ServerFailed, errors.ConnectionFailed, errors.RateLimited):
            for models in (("one/m",), TWO):
                world = World(FakeProvider(Script(pieces=["half"], then=kind), default="whole"))
                watcher = Watcher()
                result = await outcome(world.ask("q", *models, watched=True, sink=watcher))
                if isinstance(result, Reply):
                    assert watcher.events == ["started", "half", "restarted: interrupted", "started", "whole"], kind
                else:
                    assert kind is errors.AnswerTooLarge
                    assert models == ("one/m",)
                await world.close()

    run_virtual(run())


def test_the_watcher_is_told_before_a_fallback_answer() -> None:
    """A stale or static answer after pieces of a model is declared a new beginning."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["half"], then=errors.StreamInterrupted)))
        watcher = Watcher()
        await world.ask("q", watched=True, static="sorry", sink=watcher, retries=0)
        assert watcher.events == ["started", "half", "restarted: fallback", "sorry"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("kind", [errors.StreamInterrupted, errors.BadAnswer])
@pytest.mark.parametrize("static", [None, "sorry"])
def test_who_cannot_take_pieces_back_gets_the_error(kind: type[errors.AttemptFailed], static: str | None) -> None:
    """on_interrupt="raise": an interrupted stream ends with its error and partial text; no rung, no static answer follows it."""

    async def run() -> None:
        world = pair(Script(pieces=["half"], then=kind))
        watcher = Watcher()
        with pytest.raises(kind) as caught:
            await world.ask("q", *TWO, watched=True, on_interrupt="raise", static=static, sink=watcher)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        assert watcher.events == ["started", "half"]
        assert world.providers["two"].calls == 0
        await world.close()

    run_virtual(run())


def test_the_partial_of_the_group_is_the_last_that_came() -> None:
    """AllRungsFailed keeps the partial text of the last rung that had one."""

    async def run() -> None:
        world = pair(Script(pieces=["half"], then=errors.StreamInterrupted), errors.ServerFailed("no", status=500))
        with pytest.raises(errors.AllRungsFailed) as caught:
            await world.ask("q", *TWO, watched=True, retries=0)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "half"
        await world.close()

    run_virtual(run())


def test_reasoning_of_a_rejected_rung_is_void() -> None:
    """With a schema, reasoning may be seen before the answer is; when no answer of the rung passes, it is declared void too."""

    async def run() -> None:
        schema = {"type": "integer"}
        world = pair([Delta(reasoning="I think"), Delta(text="no number")], [Delta(reasoning="sure"), Delta(text="4")])
        watcher = Watcher()
        reply = await world.ask("q", *TWO, watched=True, repairs=0, json_schema=schema, schema_type=schema, sink=watcher)
        assert reply.data == 4
        kinds = [e if isinstance(e, str) else e.reasoning for e in watcher.events]
        assert kinds == ["started", "I think", "restarted: interrupted", "started", "sure", "4"]
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
