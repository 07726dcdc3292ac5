"""throttle: the endpoint's own limits, waited for fairly and in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.ports import RateLimits
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import World, now_s, outcome


class Timed(FakeProvider):
    """Notes when each request was sent, and for which question."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent: list[tuple[str, float]] = []
        self.began = now_s()

    async def send(self, wire: Any, progress: Any) -> Any:
        self.sent.append((wire.content.messages[0]["content"], now_s() - self.began))
        return await super().send(wire, progress)

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.sent]

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.sent]


def limited(fake: FakeProvider | None = None, **endpoint: Any) -> World:
    return World(fake or Timed(), endpoints={"one": endpoint})


def test_requests_a_minute() -> None:
    """Rpm holds in every minute: the fourth of three waits until the first has left the window; waits are stated."""

    async def run() -> None:
        fake = Timed()
        world = limited(fake, rpm=3)
        replies = await asyncio.gather(*(world.ask(f"q{n}") for n in range(7)))
        assert fake.times[:3] == [0, 0, 0]
        for start in range(4):
            assert fake.times[start + 3] - fake.times[start] >= 60
        assert fake.times[6] <= 125
        assert [reply.attempts[0].waited_s for reply in replies] == pytest.approx(fake.times)
        await world.close()

    run_virtual(run())


def test_a_picture_counts_no_tokens_for_its_bytes() -> None:
    """750 KB of picture are not 250,000 tokens of text: only texts are estimated, in content parts too."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 750_000}}
    parts: Any = [{"type": "text", "text": "x" * 400}, picture]

    async def run() -> None:
        fake = Timed()
        world = limited(fake, tpm=1000)
        await asyncio.gather(*(world.ask(parts, cache="off") for _ in range(12)))
        assert fake.times[:10] == [0] * 10
        assert fake.times[10] >= 60
        await world.close()

    run_virtual(run())


def test_tokens_a_minute() -> None:
    """Tpm counts the input and the room asked for the output."""

    async def run() -> None:
        fake = Timed()
        world = limited(fake, tpm=1000)
        await asyncio.gather(*(world.ask(f"q{n}", max_tokens=400) for n in range(4)))
        assert fake.times[:2] == [0, 0]
        assert fake.times[2] >= 60
        await world.close()

    run_virtual(run())


def test_calls_at_once() -> None:
    """max_concurrency is never exceeded, and every slot is used."""

    async def run() -> None:
        fake = Timed(default=Script(pieces=["x"], first_after_s=1))
        world = limited(fake, max_concurrency=3)
        began = now_s()
        await asyncio.gather(*(world.ask(f"q{n}") for n in range(9)))
        assert fake.peak_in_flight == 3
        assert now_s() - began == pytest.approx(3)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("endpoint", [{"rpm": 2}, {"max_concurrency": 1}])
def test_first_come_first_served(endpoint: dict[str, int]) -> None:
    """Waiters are served in the order in which they came."""

    async def run() -> None:
        fake = Timed(default=Script(pieces=["x"], first_after_s=1))
        world = limited(fake, **endpoint)
        calls = []
        for n in range(6):
            calls.append(world.start(f"q{n}"))
            await asyncio.sleep(0.01)
        await asyncio.gather(*calls)
        assert fake.order == [f"q{n}" for n in range(6)]
        await world.close()

    run_virtual(run())


def test_who_leaves_the_line_keeps_nobody_waiting() -> None:
    """A waiter that is cancelled, at the head of the line or in it, makes room at once; no slot and no place is lost."""

    async def run() -> None:
        fake = Timed(default=Script(pieces=["x"], first_after_s=10))
        world = limited(fake, max_concurrency=1)
        calls = [world.start(f"q{n}") for n in range(5)]
        await asyncio.sleep(1)
        for gone in (1, 3):
            calls[gone].cancel()
        results = [await outcome(call) for call in calls]
        assert [isinstance(r, Reply) for r in results] == [True, False, True, False, True]
        assert fake.times == pytest.approx([0, 10, 20])
        await world.close()

    run_virtual(run())


def test_no_room_in_time_means_the_next_rung_at_once() -> None:
    """A limit that leaves no room within the rung's share of the deadline is not waited for."""

    async def run() -> None:
        fake = Timed()
        world = World(fake, endpoints={"one": {"rpm": 1}})
        await world.ask("first", "one/m")
        began = now_s()
        reply = await world.ask("second", "one/m", "two/m", deadline_s=100)
        assert now_s() == began
        assert reply.rung == "two/m"
        with pytest.raises(errors.ThrottleTimeout, match="Nothing was sent to one/m") as caught:
            await world.ask("third", "one/m", deadline_s=5)
        assert now_s() == began
        assert caught.value.hint
        assert caught.value.retry_after_s == pytest.approx(61, abs=1)
        assert isinstance(await world.ask("fourth", "one/m", deadline_s=100), Reply)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("endpoint", [{"max_concurrency": 1}, {"rpm": 1}])
def test_waiting_in_line_is_inside_the_rungs_share(endpoint: dict[str, int]) -> None:
    """Behind a slot, or behind others in line, a call waits for its share of the deadline and then asks the next rung."""

    async def run() -> None:
        world = World(providers={"one": Timed(default=Script(hang=True)), "two": Timed()}, endpoints={"one": endpoint})
        hung = world.start("hung", "one/m")
        await asyncio.sleep(1)
        patient = [world.start(f"p{n}", "one/m", deadline_s=300) for n in range(2)]
        await asyncio.sleep(1)
        began = now_s()
        reply = await world.ask("q", "one/m", "two/m", deadline_s=20)
        assert reply.rung == "two/m"
        assert now_s() - began == pytest.approx(10, abs=0.1)
        for call in (hung, *patient):
            call.cancel()
        await asyncio.gather(hung, *patient, return_exceptions=True)
        await world.close()

    run_virtual(run())


def test_an_opening_breaker_wakes_the_whole_line() -> None:
    """When the breaker opens, everyone in line is told at once, not one after the other as the limits allow."""

    async def run() -> None:
        dead = Timed(default=Script(first_after_s=1, then=errors.ServerFailed("dead", status=503)))
        world = World(providers={"one": dead, "two": Timed()}, endpoints={"one": {"rpm": 5}})
        began = now_s()
        replies = await asyncio.gather(*(world.ask(f"q{n}", "one/m", "two/m", retries=0, deadline_s=300) for n in range(40)))
        assert {reply.rung for reply in replies} == {"two/m"}
        assert dead.calls == 5
        assert now_s() - began <= 1.1
        await world.close()

    run_virtual(run())


def test_a_key_that_is_refused_wakes_the_whole_line() -> None:
    """A 401 switches the key off: whoever waits for its limits need not wait any longer."""

    async def run() -> None:
        wrong = Timed(default=Script(first_after_s=1, then=errors.AuthenticationFailed("wrong key", status=401)))
        world = World(providers={"one": wrong, "two": Timed()}, endpoints={"one": {"rpm": 1}})
        began = now_s()
        replies = await asyncio.gather(*(world.ask(f"q{n}", "one/m", "two/m", deadline_s=300) for n in range(10)))
        assert {reply.rung for reply in replies} == {"two/m"}
        assert wrong.calls == 1
        assert now_s() - began <= 1.1
        await world.close()

    run_virtual(run())


def test_an_open_breaker_is_not_waited_behind() -> None:
    """With the breaker open, a call goes to the next rung without standing in line."""

    async def run() -> None:
        dead = Timed(default=errors.ServerFailed("dead", status=503))
        world = World(providers={"one": dead, "two": Timed()}, endpoints={"one": {"rpm": 5}})
        for n in range(5):
            await world.ask(f"q{n}", "one/m", "two/m", retries=0)
        began = now_s()
        assert (await world.ask("q", "one/m", "two/m")).rung == "two/m"
        assert now_s() == began
        assert dead.calls == 5
        await world.close()

    run_virtual(run())


def test_limits_are_learned_from_headers() -> None:
    """What the provider's headers say is left is held for that model, and waited for, without any setting."""

    async def run() -> None:
        low = RateLimits(requests_limit=10, requests_left=0, requests_reset_s=20)
        fake = Timed(Script(pieces=["x"], limits=low))
        world = World(fake)
        await world.ask("a", "one/m")
        began = now_s()
        await world.ask("b", "one/m")
        assert now_s() - began == pytest.approx(2, abs=0.1), "10 in 20 s: one each 2 s"
        await world.close()

    run_virtual(run())


def test_a_models_own_limit_holds_up_no_other_model() -> None:
    """Providers limit each model apart: who waits for one model's limit does not hold up another of the same endpoint."""

    async def run() -> None:
        low = RateLimits(requests_limit=2, requests_left=0, requests_reset_s=100)
        fake = Timed(Script(pieces=["x"], limits=low))
        world = limited(fake, max_concurrency=50)
        await world.ask("a", "one/big")
        waiting = [world.start(f"w{n}", "one/big") for n in range(3)]
        await asyncio.sleep(1)
        began = now_s()
        assert (await world.ask("b", "one/small")).rung == "one/small"
        assert now_s() == began
        replies = await world.ask("c", "one/big", "one/small", deadline_s=40)
        assert replies.rung == "one/small"
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await world.close()

    run_virtual(run())


def test_calls_at_once_count_for_the_whole_endpoint() -> None:
    """max_concurrency holds over all models of the endpoint, though each has a line of its own."""

    async def run() -> None:
        fake = Timed(default=Script(pieces=["x"], first_after_s=1))
        world = limited(fake, max_concurrency=2)
        await asyncio.gather(*(world.ask(f"q{n}", f"one/m{n % 3}") for n in range(12)))
        assert fake.peak_in_flight == 2
        await world.close()

    run_virtual(run())


def test_a_slot_is_not_taken_twice() -> None:
    """While one model waits for its own limit another may take the last slot: then the first waits for that too."""

    async def run() -> None:
        low = RateLimits(requests_limit=10, requests_left=0, requests_reset_s=20)
        fake = Timed(Script(pieces=["x"], limits=low), default=Script(pieces=["x"], first_after_s=5))
        world = limited(fake, max_concurrency=1)
        await world.ask("a", "one/big")
        began = now_s()
        waits = world.start("b", "one/big")
        await asyncio.sleep(1)
        takes = world.start("c", "one/small")
        await asyncio.gather(waits, takes)
        assert fake.peak_in_flight == 1
        assert now_s() - began == pytest.approx(11, abs=0.1)
        await world.close()

    run_virtual(run())


def test_a_note_from_four_fifths_on() -> None:
    """From 80% of a limit on a reply says so; below it nothing is said."""

    async def run() -> None:
        world = limited(rpm=10)
        notes = [any("rate limit" in note for note in (await world.ask(f"q{n}")).notes) for n in range(10)]
        assert notes == [False] * 7 + [True] * 3
        await world.close()

    run_virtual(run())


EXITS = {
    "done": "x",
    "failed": errors.BadParameter,
    "interrupted": Script(pieces=["x"], then=errors.StreamInterrupted),
    "bug": RuntimeError("bug"),
    "hang": Script(hang=True),
}


@pytest.mark.parametrize("how", EXITS)
def test_a_slot_is_given_back_on_every_exit(how: str) -> None:
    """Whatever ends an attempt, its slot is free again for the next one."""

    async def run() -> None:
        world = limited(Timed(EXITS[how], default="next"), max_concurrency=1)
        await outcome(world.ask("q", watched=True, deadline_s=5, retries=0))
        began = now_s()
        assert (await world.ask("next")).text == "next"
        assert now_s() == began
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.0, 1.5, 30.0, 60.9, 61.0, 61.5])
@pytest.mark.parametrize("endpoint", [{"rpm": 1, "max_concurrency": 1}, {"max_concurrency": 1}, {"rpm": 1}])
def test_a_cancelled_waiter_leaves_nothing_behind(after_s: float, endpoint: dict[str, int]) -> None:
    """Cancelled at any moment, in line, at its head, or under way, a call leaves slots and line as if it had not come."""

    async def run() -> None:
        fake = Timed(default=Script(pieces=["x"], first_after_s=1))
        world = limited(fake, **endpoint)
        first, second = world.start("a"), world.start("b")
        await asyncio.sleep(after_s)
        for call in (first, second):
            call.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        slots = world.road.throttles.slots(world.rung("one/m"))
        assert slots.taken == 0
        assert not world.road.throttles.queue(world.rung("one/m")).locked()
        assert (await world.ask("c")).text == "x"
        await world.close()

    run_virtual(run())
