"""Virtual time of the public fakes: what users' tests stand on must itself hold."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.testing import Deadlock, FakeClock, run_virtual
from tests.starvation import Stopwatch


@given(st.lists(st.integers(0, 10**8).map(lambda ms: ms / 1000), max_size=30))
def test_sleepers_wake_in_order_and_at_their_time(delays):
    """Any sleeps, started together, end in order of length, each at its own virtual time, without real time passing."""

    async def main():
        loop, woke = asyncio.get_running_loop(), []

        async def sleeper(delay):
            start = loop.time()
            await asyncio.sleep(delay)
            woke.append((delay, loop.time() - start))

        await asyncio.gather(*map(sleeper, delays))
        return woke

    watch = Stopwatch()
    woke = run_virtual(main())
    assert [delay for delay, _ in woke] == sorted(delays)
    assert all(took == pytest.approx(delay, abs=1e-6) for delay, took in woke)
    assert watch.s < 5


def test_timeouts_and_timers_run_on_the_clock_that_is_given():
    """asyncio.timeout and call_later go by the FakeClock that the test holds, and its Unix time goes along."""
    clock = FakeClock(now_s=50.0, unix_s=1_000.0)

    async def main():
        rang = []
        asyncio.get_running_loop().call_later(3.0, lambda: rang.append(clock()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.get_running_loop().create_future()
        return rang

    assert run_virtual(main(), clock=clock) == [53.0]
    assert (clock.now_s, clock.unix_s, clock.unix()) == (60.0, 1_010.0, 1_010.0)


def test_a_clock_never_goes_back():
    """A monotonic clock cannot be turned back, nor to NaN."""
    clock = FakeClock()
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="cannot be advanced"):
            clock.advance(seconds)


def test_work_in_threads_is_waited_for_really():
    """A thread's 50 ms pass while virtual time stands still: a shorter virtual timeout around it does not fire."""

    async def main():
        start = asyncio.get_running_loop().time()
        async with asyncio.timeout(0.01):
            await asyncio.to_thread(time.sleep, 0.05)
        return asyncio.get_running_loop().time() - start

    assert run_virtual(main()) == 0


def test_another_thread_s_future_is_waited_for_really():
    """A future that another thread completes, such as a ledger row's, holds virtual time still as executor work does."""
    from concurrent.futures import Future

    async def main():
        future = Future()
        threading.Timer(0.05, future.set_result, [7]).start()
        async with asyncio.timeout(0.01):
            return await asyncio.wrap_future(future)

    assert run_virtual(main()) == 7


def test_a_thread_may_wake_the_loop_when_nothing_else_could():
    """A thread that calls into the loop on its own account is waited for before anything is called a deadlock."""

    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
        await event.wait()
        return "woken"

    assert run_virtual(main()) == "woken"


def test_a_stuck_thread_runs_into_the_deadline():
    """Patience with threads ends: after patience_s real seconds virtual time goes on, so that a deadline can cut the wait."""
    release = threading.Event()

    async def main():
        try:
            async with asyncio.timeout(5.0):
                await asyncio.to_thread(release.wait)
        except TimeoutError:
            release.set()
            return "cut"

    assert run_virtual(main(), patience_s=0.05) == "cut"


def test_a_stuck_thread_is_waited_for_once():
    """A thread that never comes back costs its patience once, not before every timer after it."""
    release = threading.Event()

    async def main():
        stuck = asyncio.ensure_future(asyncio.to_thread(release.wait))
        for _ in range(100):
            await asyncio.sleep(1)
        release.set()
        await stuck

    watch = Stopwatch()
    run_virtual(main(), patience_s=0.1)
    assert watch.s < 5


def test_a_deadlock_is_named_instead_of_hanging():
    """When nothing is left that could wake a task, the error says which tasks wait and where."""

    async def waits_for_ever():
        await asyncio.Event().wait()

    async def main():
        await asyncio.create_task(waits_for_ever(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one at .*test_virtual_time\.py"):
        run_virtual(main(), patience_s=0.02)


def test_nothing_is_left_over():
    """After a run, a deadlock included, no loop stays current, no thread of its pool lives and no socket warns."""
    before = threading.active_count()

    async def main():
        await asyncio.to_thread(int)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run_virtual(main(), patience_s=0.02)
    gc.collect()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
