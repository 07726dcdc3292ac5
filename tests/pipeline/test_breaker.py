"""breaker: an endpoint that is down costs nobody time; what is not its fault never counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.breaker import MAX_OPEN_S, OPEN_S, PROBE_LEASE_S
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import TWO, World, now_s, outcome

DEAD = errors.ServerFailed("dead", status=503)
REFUSED = errors.ConnectionFailed("refused", whole_endpoint=True)


def pair(first: FakeProvider, **more: Any) -> World:
    return World(providers={"one": first, "two": FakeProvider()}, **more)


async def opened(world: World, *models: str) -> None:
    """Five failures in a row."""
    for n in range(5):
        await outcome(world.ask(f"open {n}", *(models or ("one/m",)), retries=0))


@pytest.mark.parametrize("fault", [Script(then=DEAD), Script(then=REFUSED, sent=False), Script(first_after_s=0.05, then=DEAD)])
def test_a_dead_primary_under_load(fault: Script) -> None:
    """200 calls from 64 callers: every one is answered, at most 1.2 requests a call and 3 reach the dead one, and once the
    breaker is open calls go straight to the next rung.
    """

    async def run() -> None:
        dead = FakeProvider(default=fault)
        world = pair(dead)
        gate = asyncio.Semaphore(64)

        async def caller(n: int) -> Reply:
            async with gate:
                return await world.ask(f"q{n}", *TWO)

        tasks = [asyncio.create_task(caller(n)) for n in range(200)]
        replies = await asyncio.gather(*tasks)
        assert {reply.rung for reply in replies} == {"two/m"}
        assert dead.calls <= 1.2 * 200 + 3
        hits, began = dead.calls, now_s()
        for n in range(50):
            await world.ask(f"later {n}", *TWO)
        assert dead.calls == hits
        assert now_s() == began, "straight to the next rung"
        await world.close()

    run_virtual(run())


def test_at_most_one_probe_a_window() -> None:
    """Under steady load a dead endpoint gets one request each time its breaker may be tried, with growing pauses."""

    async def run() -> None:
        dead = FakeProvider(default=DEAD)
        world = pair(dead)
        await opened(world)
        began, times = now_s(), []
        while now_s() - began < 400:
            before = dead.calls
            await asyncio.gather(*(world.ask(f"{now_s()} {n}", *TWO, retries=2) for n in range(5)))
            assert dead.calls - before <= 1
            if dead.calls > before:
                times.append(now_s() - began)
            await asyncio.sleep(1)
        gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
        assert gaps == pytest.approx([15, 30, 60, 120, 120], abs=2)
        assert max(gaps) <= MAX_OPEN_S + 1
        await world.close()

    run_virtual(run())


def test_many_callers_at_the_end_of_a_window_send_one_probe() -> None:
    """When the pause is over, one of the callers is the probe; the others go to the next rung while it is out."""

    async def run() -> None:
        coming = Script(pieces=["back"], first_after_s=2)
        one = FakeProvider(*[DEAD] * 5, default=coming)
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        replies = await asyncio.gather(*(world.ask(f"q{n}", *TWO) for n in range(20)))
        assert one.calls == 6
        assert sorted(reply.rung for reply in replies) == ["one/m"] + ["two/m"] * 19
        assert (await world.ask("closed again", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


def test_a_probe_that_never_returns_does_not_wedge_the_breaker() -> None:
    """The probe's lease runs out: then another call is the probe, and a late result of the first one changes nothing."""

    async def run() -> None:
        stuck = Script(first_after_s=PROBE_LEASE_S + 50, then=DEAD)
        one = FakeProvider(*[DEAD] * 5, stuck, default="back")
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        probe = world.start("probe", "one/m", ttft_s=None, deadline_s=1000, retries=0)
        await asyncio.sleep(PROBE_LEASE_S - 1)
        assert (await world.ask("too early", *TWO)).rung == "two/m"
        await asyncio.sleep(1.5)
        assert (await world.ask("second probe", *TWO)).rung == "one/m"
        assert isinstance(await outcome(probe), errors.AllRungsFailed)
        assert (await world.ask("still closed", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("how", ["cancelled", "late", "429"])
def test_a_probe_that_says_nothing_hands_its_lease_back(how: str) -> None:
    """A probe whose caller went away, or that met a 429, neither closes nor reopens; the next call is the probe."""

    async def run() -> None:
        fault: Any = errors.RateLimited("slow down", status=429) if how == "429" else Script(hang=True)
        one = FakeProvider(*[DEAD] * 5, fault, default="back")
        world = pair(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        probe = world.start("probe", "one/m", deadline_s=3 if how == "late" else 300, retries=0)
        await asyncio.sleep(1)
        if how == "cancelled":
            probe.cancel()
        await outcome(probe)
        assert (await world.ask("next", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


NEVER = [
    errors.RateLimited("429", status=429),
    errors.BadParameter("400", status=400),
    errors.ContextTooLong("400", status=400),
    errors.Refused("400", status=400),
    errors.ModelNotFound("404", status=404),
    errors.RedirectRefused("302", status=302),
    errors.AuthenticationFailed("401", status=401),
    errors.PermissionDenied("403", status=403),
]


@pytest.mark.parametrize("error", NEVER, ids=lambda e: type(e).__name__)
def test_what_is_not_its_fault_never_counts(error: errors.AttemptFailed) -> None:
    """429, the caller's own 4xx and refusals do not open a breaker, however many there are."""

    async def run() -> None:
        one = FakeProvider(default=error)
        world = World(one)
        for n in range(30):
            world.road.breakers.settings_changed()  # 401 and 403 are off until settings change: change them
            await outcome(world.ask(f"q{n}", "one/m", retries=0))
        assert one.calls == 30
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
def test_the_deadline_never_counts(watched: bool) -> None:
    """Calls that ran into their own deadline, or were cancelled, say nothing about the endpoint."""

    async def run() -> None:
        one = FakeProvider(*[Script(hang=True)] * 30, default="fine")
        world = World(one)
        calls = [world.start(f"q{n}", deadline_s=0.5, watched=watched) for n in range(20)]
        calls += [world.start(f"c{n}", watched=watched) for n in range(10)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (await world.ask("then")).text == "fine"
        await world.close()

    run_virtual(run())


HURRIED = [
    ({"deadline_s": 1.0}, False),
    ({"deadline_s": 1.0}, True),
    ({"attempt_s": 0.5}, False),
    ({"attempt_s": 0.5}, True),
    ({"ttft_s": 0.5}, True),
]


@pytest.mark.parametrize(("options", "watched"), HURRIED)
def test_a_callers_own_hurry_never_counts(options: dict[str, Any], watched: bool) -> None:
    """Timers that a caller set shorter than the client's settings say nothing about an endpoint that others find well."""

    async def run() -> None:
        one = FakeProvider(default=Script(pieces=["in its own time"], first_after_s=3))
        world = pair(one)
        for n in range(20):
            assert (await world.ask(f"q{n}", *TWO, watched=watched, retries=0, **options)).rung == "two/m"
        assert one.calls == 20
        assert (await world.ask("patient", *TWO)).rung == "one/m"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("settings", "watched"), [({}, False), ({}, True), ({"ttft_s": 2}, True), ({"attempt_s": 2}, False), ({"deadline_s": 6}, False)]
)
def test_a_silent_endpoint_opens_the_breaker(settings: dict[str, Any], watched: bool) -> None:
    """An endpoint that says nothing for as long as the client's settings wait for it is down: five at a time open the breaker."""

    async def run() -> None:
        silent = FakeProvider(default=Script(hang=True))
        world = pair(silent, settings=settings)
        given = {name: value for name, value in world.now.call.items() if name in ("ttft_s", "attempt_s", "deadline_s")}
        for wave in range(2):
            calls = (world.ask(f"{wave} {n}", *TWO, watched=watched, retries=0, **given) for n in range(5))
            assert {reply.rung for reply in await asyncio.gather(*calls)} == {"two/m"}
        assert silent.calls == 5
        await world.close()

    run_virtual(run())


def test_a_stream_that_stalls_opens_the_breaker_unless_the_caller_hurried() -> None:
    """idle_s as the settings have it counts; a shorter one of the caller's own does not."""

    async def run() -> None:
        for options, calls in (({}, 5), ({"idle_s": 0.5}, 10)):
            stalls = FakeProvider(default=Script(pieces=["half"], end_after_s=500))
            world = pair(stalls)
            for wave in range(2):
                await asyncio.gather(*(world.ask(f"{wave} {n}", *TWO, watched=True, retries=0, **options) for n in range(5)))
            assert stalls.calls == calls
            await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- keys and models


def test_a_wrong_key_is_asked_once() -> None:
    """After a 401 no request with that key is sent to any model of the endpoint; the message names the first refusal."""

    async def run() -> None:
        one = FakeProvider(default=errors.AuthenticationFailed("The key was refused.", status=401))
        world = pair(one)
        assert (await world.ask("a", *TWO)).rung == "two/m"
        assert (await world.ask("b", "one/other", "two/m")).rung == "two/m"
        with pytest.raises(errors.AuthenticationFailed, match=r"Nothing was sent.*The key was refused") as caught:
            await world.ask("c", "one/m")
        assert caught.value.hint
        assert one.calls == 1
        await asyncio.sleep(100_000)
        assert isinstance(await outcome(world.ask("d", "one/m")), errors.AuthenticationFailed)
        assert one.calls == 1, "time does not mend a key"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("change", ["key", "settings"])
def test_another_key_or_settings_are_tried(change: str) -> None:
    """What was switched off is tried again as soon as the key or the settings are others."""

    async def run() -> None:
        one = FakeProvider(errors.AuthenticationFailed("no", status=401), default="fine")
        world = World(one)
        await outcome(world.ask("a"))
        if change == "key":
            world.key = "another"
        else:
            world.road.breakers.settings_changed()
        assert (await world.ask("b")).text == "fine"
        assert (await world.ask("c")).text == "fine"
        await world.close()

    run_virtual(run())


def test_a_forbidden_model_is_off_by_itself() -> None:
    """A 403 switches the model off, not its neighbours on the same endpoint."""

    async def run() -> None:
        def say(wire: Any) -> Any:
            return errors.PermissionDenied("Not for you.", status=403) if wire.rung.model == "gold" else "fine"

        one = FakeProvider(default=say)
        world = World(one)
        assert isinstance(await outcome(world.ask("a", "one/gold")), errors.PermissionDenied)
        assert isinstance(await outcome(world.ask("b", "one/gold")), errors.PermissionDenied)
        assert (await world.ask("c", "one/plain")).text == "fine"
        assert one.calls == 2
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- endpoint and model


def test_refused_connections_count_on_the_whole_endpoint() -> None:
    """When nothing listens, all models behind the address rest."""

    async def run() -> None:
        one = FakeProvider(default=Script(then=REFUSED, sent=False))
        world = pair(one)
        for n in range(5):
            await outcome(world.ask(f"q{n}", f"one/model{n}", retries=0))
        assert isinstance(await outcome(world.ask("q", "one/model9")), errors.BreakerOpen)
        assert one.calls == 5
        await world.close()

    run_virtual(run())


def test_server_errors_count_on_the_model_alone() -> None:
    """One broken model does not take its neighbours down."""

    async def run() -> None:
        def say(wire: Any) -> Any:
            return DEAD if wire.rung.model == "broken" else "fine"

        world = World(FakeProvider(default=say))
        await opened(world, "one/broken")
        assert isinstance(await outcome(world.ask("q", "one/broken")), errors.BreakerOpen)
        assert (await world.ask("q", "one/fine")).text == "fine"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    "probe", [errors.BadAnswer("no JSON"), errors.ConnectionFailed("reset"), errors.ServerFailed("500", status=500), "fine"]
)
def test_an_endpoint_that_can_be_reached_again_is_open_to_all_its_models(probe: Any) -> None:
    """A probe that gets through to the endpoint closes the endpoint's breaker, whatever one model makes of the request."""

    async def run() -> None:
        down = Script(then=REFUSED, sent=False)
        one = FakeProvider(*[down] * 5, probe, default=Script(pieces=["fine"], first_after_s=1))
        world = World(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        await outcome(world.ask("probe", "one/m", retries=0))
        replies = await asyncio.gather(*(world.ask(f"q{n}", "one/other") for n in range(5)))
        assert {reply.text for reply in replies} == {"fine"}
        await world.close()

    run_virtual(run())


def test_a_truncated_answer_is_a_sign_of_life() -> None:
    """A probe whose limit on tokens left no text still proves that the model answers."""

    async def run() -> None:
        class Thinks(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Any:
                ending = await super().send(wire, progress)
                return replace(ending, finish_reason="length") if wire.content.messages[0]["content"] == "probe" else ending

        one = Thinks(*[DEAD] * 5, Script(), default=Script(pieces=["fine"], first_after_s=1))
        world = World(one)
        await opened(world)
        await asyncio.sleep(OPEN_S)
        assert isinstance(await outcome(world.ask("probe")), errors.Truncated)
        replies = await asyncio.gather(*(world.ask(f"q{n}") for n in range(5)))
        assert {reply.text for reply in replies} == {"fine"}
        await world.close()

    run_virtual(run())


def test_a_refusal_of_the_models_breaker_gives_the_endpoints_ticket_back() -> None:
    """When the endpoint may be probed but this model still rests, the endpoint's probe is there for another model."""

    async def run() -> None:
        down, late = Script(then=REFUSED, sent=False), Script(first_after_s=10, then=DEAD)

        def say(wire: Any) -> Any:
            return "fine" if wire.rung.model == "x9" else late if wire.rung.model == "m" else down

        world = World(FakeProvider(default=say))
        models = ["one/m"] * 5 + [f"one/x{n}" for n in range(5)]
        await asyncio.gather(*(outcome(world.ask(f"q{n}", model, retries=0)) for n, model in enumerate(models)))
        await asyncio.sleep(OPEN_S - 10 + 0.1)
        with pytest.raises(errors.BreakerOpen):
            await world.road.breakers.ask(world.rung("one/m"))
        assert (await world.ask("another", "one/x9")).text == "fine"
        await world.close()

    run_virtual(run())
