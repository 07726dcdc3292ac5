"""coalesce across processes: two roads on one home's leases and cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.ports import Lease
from nbllm.core.reply import Reply
from nbllm.pipeline.lease import LEASE_S
from nbllm.storage.memory import MemoryFlights, MemoryResponseStore
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import X_SCHEMA, Even, Watcher, clock
from tests.pipeline.world import World, now_s, outcome


class Leases(MemoryFlights):
    """Leases that say when they were asked for what, and that can fail."""

    def __init__(self) -> None:
        super().__init__(now=clock().epoch_s)
        self.log: list[tuple[str, float]] = []
        self.trouble: Exception | None = None
        self.renews = True

    async def _note(self, what: str) -> None:
        self.log.append((what, now_s()))
        if self.trouble is not None:
            raise self.trouble

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        await self._note("lead")
        return await super().lead(key, lease_s=lease_s)

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        await self._note("renew")
        return await super().renew(lease, lease_s=lease_s) if self.renews else lease

    async def release(self, lease: Lease) -> None:
        await self._note("release")
        await super().release(lease)


def two(first: FakeProvider, second: FakeProvider, **more: Any) -> tuple[World, World]:
    """Two processes on one home."""
    store, flights = MemoryResponseStore(), Leases()
    return World(first, store=store, flights=flights, **more), World(second, store=store, flights=flights, **more)


def slow(text: str = "of the first", takes_s: float = 2.0) -> Script:
    return Script(pieces=[text], first_after_s=takes_s)


def test_a_follower_gets_the_stored_answer_as_one_piece() -> None:
    """The second process sends nothing, waits for the answer that the first one stores, and gets it as one delta, free."""

    async def run() -> None:
        a, b = two(FakeProvider(Script(pieces=["of ", "the ", "first"], gap_s=1)), FakeProvider(default="never"))
        watcher = Watcher()
        leading = a.start("q", watched=True)
        await asyncio.sleep(0.1)
        reply = await b.ask("q", watched=True, sink=watcher)
        assert (reply.text, reply.cost_usd, reply.coalesced, reply.attempts) == ("of the first", 0, True, ())
        assert watcher.events == ["of the first"]
        assert (await leading).text == "of the first"
        assert (a.provider.calls, b.provider.calls) == (1, 0)
        (row,) = b.ledger.calls_by_id.values()
        assert row.coalesced
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_follower_is_not_far_behind() -> None:
    """It looks often enough: the answer reaches the follower within 60 ms of being stored."""

    async def run() -> None:
        a, b = two(FakeProvider(slow()), FakeProvider())
        began = now_s()
        await asyncio.gather(a.ask("q"), b.ask("q"))
        assert now_s() - began <= 2.06
        await a.close()
        await b.close()

    run_virtual(run())


def test_followers_of_one_process_wait_together() -> None:
    """Many calls in the second process are one flight that waits; each gets the answer."""

    async def run() -> None:
        a, b = two(FakeProvider(slow()), FakeProvider())
        leading = a.start("q")
        await asyncio.sleep(0.1)
        replies = await asyncio.gather(*(b.ask("q") for _ in range(50)))
        assert {reply.text for reply in replies} == {"of the first"}
        assert b.provider.calls == 0
        await leading
        await a.close()
        await b.close()

    run_virtual(run())


def test_when_the_leader_fails_the_follower_leads() -> None:
    """A leader that fails stores nothing and gives its lease back; the follower asks for itself at once."""

    async def run() -> None:
        failing = Script(first_after_s=1, then=errors.BadParameter)
        a, b = two(FakeProvider(failing), FakeProvider(default="of the second"))
        began = now_s()
        first, second = await asyncio.gather(outcome(a.ask("q")), b.ask("q"))
        assert isinstance(first, errors.BadParameter)
        assert second.text == "of the second"
        assert now_s() - began <= 1.06
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_dead_leaders_lease_is_taken_over() -> None:
    """A process that died neither renews nor releases: its follower leads when the lease runs out."""

    async def run() -> None:
        _, b = two(FakeProvider(), FakeProvider(default="of the second"))
        opened = b.road.open(b.request("q"))
        from nbllm.core.fingerprint import fingerprint

        dead = await b.flights.lead(fingerprint(opened.content, b.rung("one/m")), lease_s=LEASE_S)
        assert dead is not None
        began = now_s()
        assert (await b.ask("q")).text == "of the second"
        assert LEASE_S <= now_s() - began <= LEASE_S + 0.06
        await b.close()

    run_virtual(run())


def test_a_late_leader_delivers_and_stores_nothing() -> None:
    """A leader that lost its lease to another gives its own caller its own answer, and leaves the other's in the cache."""

    async def run() -> None:
        a, b = two(FakeProvider(slow("late", LEASE_S + 5)), FakeProvider(slow("of the taker", 1)))
        a.flights.renews = False
        late = a.start("q")
        await asyncio.sleep(LEASE_S + 0.5)
        taker = b.start("q")
        assert (await taker).text == "of the taker"
        assert (await late).text == "late"
        (entry,) = a.store.entries()
        assert entry.answer["text"] == "of the taker"
        assert (a.provider.calls, b.provider.calls) == (1, 1)
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_lease_is_renewed_each_third_of_its_life() -> None:
    """A long run keeps its lease: renewed each third, given back at the end, nothing after that."""

    async def run() -> None:
        a = World(FakeProvider(slow(takes_s=35)), flights=Leases())
        began = now_s()
        await a.ask("q")
        renewals = [at - began for what, at in a.flights.log if what == "renew"]
        assert renewals == pytest.approx([LEASE_S / 3 * n for n in range(1, 11)])
        ended = len(a.flights.log)
        await asyncio.sleep(60)
        assert len(a.flights.log) == ended
        assert a.flights.log[-1][0] == "release"
        await a.close()

    run_virtual(run())


def test_a_renewal_that_fails_is_tried_again() -> None:
    """A busy disk at one renewal does not lose the lease: the next third tries again, and the answer is stored."""

    async def run() -> None:
        a, b = two(FakeProvider(slow(takes_s=8)), FakeProvider())
        call = a.start("q")
        await asyncio.sleep(3)
        a.flights.trouble = errors.StorageError("busy")
        await asyncio.sleep(1)
        a.flights.trouble = None
        assert (await call).text == "of the first"
        assert [what for what, _ in a.flights.log] == ["lead", "renew", "renew", "release"]
        assert len(list(a.store.entries())) == 1
        assert (await b.ask("q")).source == "cache"
        await a.close()
        await b.close()

    run_virtual(run())


@pytest.mark.parametrize("trouble", [errors.StorageError("The disk is gone."), errors.HomeUnusable("The home is gone.")])
def test_without_leases_every_process_runs_for_itself(trouble: Exception) -> None:
    """Leases that cannot be had are a note; the answer is got and kept all the same."""

    async def run() -> None:
        world = World(flights=Leases())
        world.flights.trouble = trouble
        reply = await world.ask("q")
        assert reply.text == "ok"
        assert any("is gone" in note for note in reply.notes)
        assert (await world.ask("q")).source == "cache"
        await world.close()

    run_virtual(run())


def test_a_lease_that_cannot_be_given_back_holds_nobody_up() -> None:
    """A disk that hangs at the end of a run costs its caller 50 ms at most."""

    async def run() -> None:
        class Hanging(Leases):
            async def release(self, lease: Lease) -> None:
                await asyncio.sleep(1000)

        world = World(flights=Hanging())
        began = now_s()
        await world.ask("q")
        assert now_s() - began <= 0.05
        await world.close()

    run_virtual(run())


def test_a_follower_keeps_its_own_deadline() -> None:
    """Waiting for another process is inside the follower's deadline."""

    async def run() -> None:
        a, b = two(FakeProvider(slow(takes_s=9)), FakeProvider())
        leading = a.start("q")
        await asyncio.sleep(0.1)
        began = now_s()
        assert isinstance(await outcome(b.ask("q", deadline_s=1)), errors.DeadlineExceeded)
        assert now_s() - began <= 1.1
        assert (await leading).text == "of the first"
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_follower_validates_for_itself() -> None:
    """What another process stored passes the follower's own schema, or the follower asks for itself once it may."""

    async def run() -> None:
        a, b = two(FakeProvider(slow('{"x": 1}')), FakeProvider(default='{"x": 2}'))
        first, second = await asyncio.gather(
            a.ask("q", json_schema=X_SCHEMA, schema_type=X_SCHEMA), b.ask("q", json_schema=X_SCHEMA, schema_type=Even)
        )
        assert (first.data, second.data) == ({"x": 1}, Even(2))
        await a.close()
        await b.close()

    run_virtual(run())


def test_calls_with_a_check_do_not_wait_for_another_process() -> None:
    """A function cannot be compared across processes: calls with a check take no lease and wait for none."""

    async def run() -> None:
        a, b = two(FakeProvider(slow(takes_s=5)), FakeProvider(default="of the second"))
        leading = a.start("q")
        await asyncio.sleep(0.1)
        began = now_s()
        assert (await b.ask("q", check=lambda _: True)).text == "of the second"
        assert now_s() == began
        await leading
        await a.close()
        await b.close()

    run_virtual(run())


def test_a_refresh_accepts_only_what_is_newer() -> None:
    """A refresh waits for another process's refresh and takes its answer, never the old entry that it was to replace."""

    async def run() -> None:
        a, b = two(FakeProvider("old", slow("new")), FakeProvider(default="never"))
        await a.ask("q")
        await asyncio.sleep(10)
        first, second = await asyncio.gather(a.ask("q", cache="refresh"), b.ask("q", cache="refresh"))
        assert (first.text, second.text) == ("new", "new")
        assert b.provider.calls == 0
        await a.close()
        await b.close()

    run_virtual(run())


def test_an_answer_stored_between_miss_and_lease_is_found() -> None:
    """Another process may store and be gone between the miss and the lease: then nothing is sent."""

    async def run() -> None:
        a, b = two(FakeProvider(default="of the first"), FakeProvider(default="never"))
        opened = b.road.try_hit(b.request("q"))
        assert not hasattr(opened, "reply")
        await a.ask("q")
        reply = await b.road(opened, Watcher())
        assert isinstance(reply, Reply)
        assert reply.text == "of the first"
        assert b.provider.calls == 0
        await a.close()
        await b.close()

    run_virtual(run())
