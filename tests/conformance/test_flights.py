from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace


def test_one_leader_at_a_time(backend):
    """A lease is refused while it is held, and granted after its release with a higher fence."""

    async def run() -> None:
        first = await backend.flights.lead("k", lease_s=10)
        assert await backend.flights.lead("k", lease_s=10) is None
        assert await backend.flights.holds(first)
        await backend.flights.release(first)
        second = await backend.flights.lead("k", lease_s=10)
        assert second.fence > first.fence
        assert not await backend.flights.holds(first)

    asyncio.run(run())


def test_keys_do_not_wait_for_each_other(backend):
    """Two keys have two leaders."""

    async def run() -> None:
        assert await backend.flights.lead("a", lease_s=10)
        assert await backend.flights.lead("b", lease_s=10)

    asyncio.run(run())


def test_an_expired_lease_is_taken_over_and_its_old_holder_recognised(backend):
    """A late leader neither holds, nor renews, nor releases what is another's now."""

    async def run() -> None:
        late = await backend.flights.lead("k", lease_s=10)
        backend.clock.now += 10.5
        assert not await backend.flights.holds(late)
        mine = await backend.flights.lead("k", lease_s=10)
        assert mine.fence > late.fence
        assert await backend.flights.renew(late, lease_s=10) is None
        await backend.flights.release(late)
        assert await backend.flights.holds(mine)

    asyncio.run(run())


def test_renewing_prolongs(backend):
    """A renewed lease outlives its first term, and keeps its fence."""

    async def run() -> None:
        lease = await backend.flights.lead("k", lease_s=10)
        backend.clock.now += 8
        renewed = await backend.flights.renew(lease, lease_s=10)
        assert renewed == replace(lease, expires_at=backend.clock.now + 10)
        backend.clock.now += 8
        assert await backend.flights.holds(renewed)
        assert await backend.flights.lead("k", lease_s=10) is None

    asyncio.run(run())


@pytest.mark.parametrize("callers", [50])
def test_of_many_callers_one_leads(backend, callers):
    """Any number of callers at once get one lease."""

    async def run() -> None:
        leases = await asyncio.gather(*(backend.flights.lead("k", lease_s=10) for _ in range(callers)))
        assert sum(lease is not None for lease in leases) == 1

    asyncio.run(run())
