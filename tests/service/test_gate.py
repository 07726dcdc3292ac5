"""Admission: how many run, who waits, who is refused, who goes first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.service.caller import Caller
from nbllm.service.configuration import Tier
from nbllm.service.gate import Gate, GateClosed, GateFull
from nbllm.service.problems import headers_of
from nbllm.testing import run_virtual


def caller(priority: int = 0) -> Caller:
    return Caller("k", Tier(priority=priority))


class Visits:
    """Requests that enter a gate, stay for a second, and note when they were let in."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.entered: list[str] = []
        self.most = 0

    async def one(self, name: str, priority: int = 0, stays_s: float = 1.0) -> str:
        try:
            async with self.gate.enter(caller(priority)):
                self.entered.append(name)
                self.most = max(self.most, self.gate.running)
                await asyncio.sleep(stays_s)
        except GateFull:
            return "full"
        except GateClosed:
            return "closed"
        return "done"

    def begin(self, name: str, priority: int = 0, stays_s: float = 1.0) -> asyncio.Task[str]:
        return asyncio.create_task(self.one(name, priority, stays_s))


def gate(running: int = 1, waiting: int = 2, wait_s: float = 10) -> Gate:
    return Gate(max_running=running, max_waiting=waiting, queue_wait_s=wait_s)


def test_higher_priority_goes_first_and_equals_in_order() -> None:
    """Of those who wait, who has more priority is let in first; among equals who came first."""

    async def main() -> None:
        visits = Visits(gate(waiting=5))
        tasks = [visits.begin(name, priority) for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 0), ("e", 5))]
        assert await asyncio.gather(*tasks) == ["done"] * 5
        assert visits.entered == ["a", "c", "e", "b", "d"]

    run_virtual(main())


def test_when_full_the_lowest_is_refused_first() -> None:
    """A full queue refuses a newcomer at once, unless it has more priority than one who waits: then that one gives way."""

    async def main() -> None:
        visits = Visits(gate())
        first, low, middle = visits.begin("first"), visits.begin("low", 0), visits.begin("middle", 1)
        await asyncio.sleep(0)
        assert await visits.one("another low", 0) == "full"
        high = visits.begin("high", 2)
        await asyncio.sleep(0.1)
        assert low.done()
        assert await asyncio.gather(first, low, middle, high) == ["done", "full", "done", "done"]
        assert visits.entered == ["first", "high", "middle"]
        assert visits.gate.refused == 2
        assert (visits.gate.running, visits.gate.waiting) == (0, 0)

    run_virtual(main())


def test_nobody_waits_longer_than_the_settings_say() -> None:
    """A wait ends with GateFull and a Retry-After; the place in the queue is free again."""

    async def main() -> None:
        visits = Visits(gate(wait_s=3))
        busy = visits.begin("busy", stays_s=60)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(GateFull) as refused:
            async with visits.gate.enter(caller()):
                raise AssertionError
        assert loop.time() - began_s == pytest.approx(3)
        assert headers_of(refused.value.problem)["Retry-After"] == "2"
        assert visits.gate.waiting == 0
        await busy

    run_virtual(main())


def test_a_closed_gate_lets_nobody_in_and_keeps_nobody_waiting() -> None:
    """When the service ends, who waits is told at once, who runs goes on to its end."""

    async def main() -> None:
        visits = Visits(gate())
        runs, waits = visits.begin("runs"), visits.begin("waits")
        await asyncio.sleep(0.1)
        visits.gate.close()
        assert await visits.one("late") == "closed"
        assert await waits == "closed"
        assert await runs == "done"

    run_virtual(main())


Step = tuple[str, int, float]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 3), st.floats(0, 3), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_whatever_happens_places_are_neither_lost_nor_doubled(
    visitors: list[tuple[int, float, float, bool]], running: int, waiting: int
) -> None:
    """For any arrivals, lengths of stay and cancellations: never more run or wait than may, and at the end none does."""

    async def main() -> None:
        visits = Visits(gate(running, waiting, wait_s=2))

        async def visitor(number: int, priority: int, comes_s: float, stays_s: float, leaves: bool) -> None:
            await asyncio.sleep(comes_s)
            task = visits.begin(str(number), priority, stays_s)
            if leaves:
                await asyncio.sleep(stays_s / 2)
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert visits.gate.waiting <= waiting + running

        await asyncio.gather(*(visitor(n, *one) for n, one in enumerate(visitors)))
        assert visits.most <= running
        assert (visits.gate.running, visits.gate.waiting, visits.gate._queue) == (0, 0, [])
        assert await visits.one("after all") == "done"

    run_virtual(main())


def test_who_is_cancelled_as_it_is_let_in_passes_the_place_on() -> None:
    """A client that leaves in the very moment in which its turn comes does not take the place with it."""

    async def main() -> None:
        visits = Visits(gate())
        first, second, third = visits.begin("first"), visits.begin("second"), visits.begin("third")
        await asyncio.sleep(0)

        let_in = visits.gate._let_in

        def let_in_and_leave() -> None:
            let_in()
            second.cancel()

        visits.gate._let_in = let_in_and_leave  # type: ignore[method-assign]
        assert await first == "done"
        with suppress(asyncio.CancelledError):
            await second
        assert await third == "done"
        assert visits.gate.running == 0

    run_virtual(main())
