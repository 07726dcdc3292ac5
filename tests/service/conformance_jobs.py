"""What every JobStore promises. A backend subclasses JobsConformance and gives a `world` fixture, as for idempotency."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import pytest

from nbllm.service.ports import Job, JobLease, JobsFull, JobStore, NewJob, Standing
from tests.service.conformance_idempotency import KEEP_S, Clock

T = TypeVar("T")
MOST_LAPSES = 3


class JobsWorld(Protocol):
    """One shared place; jobs are kept for KEEP_S seconds after their end, and fail after MOST_LAPSES deaths over them."""

    clock: Clock

    def open(self) -> JobStore: ...

    def crash(self, store: JobStore) -> None: ...

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...

    def close(self) -> None: ...


def new(caller: str = "a", **values: Any) -> NewJob:
    return NewJob(**{"caller": caller, "tier": "default", "flow": "triage", "arguments": '{"n": 1}'} | values)


async def added(store: JobStore, *jobs: NewJob) -> list[Job]:
    return [await store.add(job, most_queued=1000, most_of_caller=1000) for job in jobs]


async def lease(store: JobStore, job_id: str | None = None) -> JobLease:
    got = await store.claim(job_id)
    assert got is not None
    return got


class JobsConformance:
    """Tests of the port."""

    def test_the_life_of_a_job(self, world: JobsWorld) -> None:
        """Queued, running, done: each step is seen by every process, with its time, and what came of it is kept as it was."""

        async def main() -> None:
            first, second = world.open(), world.open()
            (job,) = await added(first, new(webhook="https://example.org/hook"))
            assert (job.status, job.attempts, job.result, job.webhook) == ("queued", 0, None, "https://example.org/hook")
            assert await second.get("a", job.job_id) == job
            held = await lease(second)
            assert held.job == replace(job, status="running", started_at=world.clock.now, attempts=1)
            assert await first.get("a", job.job_id) == held.job
            assert await second.renew(held) == "held"
            world.clock.now += 5
            assert await second.finish(held, "done", result='{"é": "ü"}')
            done = await first.get("a", job.job_id)
            end = {"finished_at": world.clock.now, "expires_at": world.clock.now + KEEP_S, "result": '{"é": "ü"}'}
            assert done is not None
            assert done.arguments == "", "what was asked is dropped at the end"
            assert replace(done, arguments="") == replace(held.job, status="done", arguments="", **end)
            assert await first.claim() is None

        world.run(main())

    def test_callers_do_not_see_each_other(self, world: JobsWorld) -> None:
        """Neither reading, listing nor cancelling reaches another caller's job."""

        async def main() -> None:
            store = world.open()
            (job,) = await added(store, new("a"))
            assert await store.get("b", job.job_id) is None
            assert await store.cancel("b", job.job_id) is None
            assert list(await store.list("b", "triage", limit=10)) == []
            assert await store.list("b", "triage", limit=10, before=job.job_id) == []
            assert (await store.get("a", job.job_id)) == job

        world.run(main())

    def test_lists(self, world: JobsWorld) -> None:
        """Newest first, of one flow, page by page, although a clock that was set back gave them odd times."""

        async def main() -> None:
            store, ids = world.open(), []
            for number in range(7):
                world.clock.now += -50 if number % 2 else 7
                (job,) = await added(store, new())
                ids.append(job.job_id)
            await added(store, new(flow="other"))
            page = [job.job_id for job in await store.list("a", "triage", limit=3)]
            rest = [job.job_id for job in await store.list("a", "triage", limit=10, before=page[-1])]
            assert page + rest == ids[::-1]
            assert await store.list("a", "triage", limit=5, before="no such job") == []

        world.run(main())

    def test_the_order_of_the_queue(self, world: JobsWorld) -> None:
        """Higher priority first, then first come first served; a job may also be taken by its id, once."""

        async def main() -> None:
            store = world.open()
            low, high, later, named = await added(store, new(), new(priority=5), new(priority=5), new())
            assert (await lease(store, named.job_id)).job.job_id == named.job_id
            assert await store.claim(named.job_id) is None
            assert await store.claim("no such job") is None
            assert [(await lease(store)).job.job_id for _ in range(3)] == [high.job_id, later.job_id, low.job_id]
            assert await store.claim() is None

        world.run(main())

    def test_a_job_is_taken_once(self, world: JobsWorld) -> None:
        """Of many workers that ask at once each job goes to one."""

        async def main() -> None:
            stores = [world.open() for _ in range(3)]
            jobs = await added(stores[0], *(new() for _ in range(10)))
            got = await asyncio.gather(*(stores[number % 3].claim() for number in range(30)))
            assert sorted(one.job.job_id for one in got if one) == sorted(job.job_id for job in jobs)

        world.run(main())

    def test_bounded_queues(self, world: JobsWorld) -> None:
        """As many wait as may, of all callers and of one; what runs does not count."""

        async def main() -> None:
            store = world.open()
            for caller in ("a", "a", "b"):
                await store.add(new(caller), most_queued=3, most_of_caller=2)
            with pytest.raises(JobsFull):
                await store.add(new("c"), most_queued=3, most_of_caller=2)
            with pytest.raises(JobsFull):
                await store.add(new("a"), most_queued=9, most_of_caller=2)
            await lease(store)
            await store.add(new("a"), most_queued=3, most_of_caller=2)

        world.run(main())

    def test_a_job_of_a_dead_process_runs_again(self, world: JobsWorld) -> None:
        """A sweep puts it back; the late process, should it still write, is fenced off; jobs of the living stay where they are."""

        async def main() -> None:
            first, second = world.open(), world.open()
            job, other = await added(first, new(), new())
            late, kept = await lease(first), await lease(second)
            assert await second.sweep() == []
            world.crash(first)
            assert await second.sweep() == [job.job_id]
            assert await second.sweep() == []
            again = await lease(second)
            assert (again.job.job_id, again.job.attempts, again.job.lapses) == (job.job_id, 2, 1)
            assert again.fencing > late.fencing
            assert await second.renew(late) == "lost"
            assert not await second.finish(late, "done", result='"late"')
            assert not await second.give_back(late)
            assert await second.renew(kept) == "held"
            assert kept.job.job_id == other.job_id
            assert await second.finish(again, "done", result='"mine"')
            found = await second.get("a", job.job_id)
            assert found is not None
            assert found.result == '"mine"'

        world.run(main())

    def test_a_job_that_kills_its_process(self, world: JobsWorld) -> None:
        """It goes behind the others, and after some deaths it fails, instead of going round for ever; its webhook says so."""

        async def main() -> None:
            (poison,) = await added(world.open(), new(webhook="https://example.org/hook"))
            for death in range(MOST_LAPSES):
                store = world.open()
                assert (await lease(store)).job.job_id == poison.job_id
                world.crash(store)
                back = await world.open().sweep()
                assert back == ([] if death == MOST_LAPSES - 1 else [poison.job_id])
                if back:
                    (fine,) = await added(store := world.open(), new())
                    held = await lease(store)
                    assert held.job.job_id == fine.job_id, "one that never failed goes first"
                    await store.finish(held, "done", result="1")
            store = world.open()
            found = await store.get("a", poison.job_id)
            assert found is not None
            assert (found.status, found.attempts) == ("failed", MOST_LAPSES)
            assert "died" in str(found.problem)
            assert [delivery.job.job_id for delivery in await store.due_webhooks(5)] == [poison.job_id]

        world.run(main())

    def test_given_back(self, world: JobsWorld) -> None:
        """A process that closes puts its jobs back at their place; that is no death."""

        async def main() -> None:
            store = world.open()
            first, second = await added(store, new(), new())
            held = await lease(store)
            assert await store.give_back(held)
            assert not await store.give_back(held)
            assert not await store.finish(held, "done", result="1")
            again = await lease(store)
            assert (again.job.job_id, again.job.lapses, again.job.attempts) == (first.job_id, 0, 2)
            assert (await lease(store)).job.job_id == second.job_id

        world.run(main())

    def test_cancelling(self, world: JobsWorld) -> None:
        """A queued job is cancelled at once; a running one is told, and ends as its process says; one that ended stays so."""

        async def main() -> None:
            first, second = world.open(), world.open()
            queued, running, back, dead = await added(first, *(new(webhook="https://example.org/h") for _ in range(4)))
            assert (await second.cancel("a", queued.job_id) or queued).status == "cancelled"
            assert await first.claim(queued.job_id) is None
            held, given, lost = [await lease(first, job.job_id) for job in (running, back, dead)]
            for job in (running, back, dead):
                told = await second.cancel("a", job.job_id)
                assert told is not None
                assert (told.status, told.cancel_requested) == ("running", True)
            assert await first.renew(held) == "cancel"
            assert await first.finish(held, "cancelled")
            assert await first.give_back(given)
            world.crash(first)
            assert await second.sweep() == []
            for job in (queued, running, back, dead):
                ended = await second.cancel("a", job.job_id)
                assert ended is not None
                assert ended.status == "cancelled"
                assert ended.finished_at == world.clock.now
            assert len(await second.due_webhooks(10)) == 4
            assert await second.claim() is None
            assert lost.job.job_id == dead.job_id

        world.run(main())

    def test_results_are_forgotten_in_time(self, world: JobsWorld) -> None:
        """A stated time after its end a job is gone; before it, and while it runs or waits, it is not."""

        async def main() -> None:
            store = world.open()
            done, running, queued = await added(store, new(), new(), new())
            held, _ = await lease(store), await lease(store)
            world.clock.now += 10 * KEEP_S
            await store.finish(held, "failed", problem='{"status": 500}')
            world.clock.now += KEEP_S - 1
            await store.sweep()
            assert await store.get("a", done.job_id) is not None
            world.clock.now += 2
            await store.sweep()
            assert await store.get("a", done.job_id) is None
            assert [(await store.get("a", job.job_id) or done).status for job in (running, queued)] == ["running", "queued"]
            assert await store.standing() == Standing(1, 1, queued.created_at)

        world.run(main())

    def test_how_they_stand(self, world: JobsWorld) -> None:
        """How many wait and run, of all callers and as every process sees it, and since when the oldest waits."""

        async def main() -> None:
            store, other = world.open(), world.open()
            (began,) = [job.created_at for job in await added(store, new(priority=-5))]
            world.clock.now += 7.5
            await added(store, new("b"), new())
            assert (await other.standing()).oldest_s(world.clock.now) == 7.5
            await other.give_back(await lease(other))
            await store.cancel("a", (await added(store, new()))[0].job_id)
            assert await other.standing() == Standing(3, 0, began)

        world.run(main())

    def test_webhooks(self, world: JobsWorld) -> None:
        """Due when a job ended, once at a time; due again a minute later, or when asked for, until they are settled."""

        async def main() -> None:
            store = world.open()
            await added(store, new(webhook="https://example.org/h"), new())
            for _ in range(2):
                await store.finish(await lease(store), "done", result="1")
            (due,) = await store.due_webhooks(10)
            assert (due.attempt, due.job.status, due.job.webhook) == (1, "done", "https://example.org/h")
            assert await world.open().due_webhooks(10) == []
            world.clock.now += 61
            (due,) = await store.due_webhooks(10)
            assert due.attempt == 2
            await store.webhook_settled(due.job.job_id, again_at=world.clock.now + 600)
            world.clock.now += 599
            assert await store.due_webhooks(10) == []
            world.clock.now += 2
            (due,) = await store.due_webhooks(10)
            assert due.attempt == 3
            await store.webhook_settled(due.job.job_id)
            world.clock.now += 1e6
            assert await store.due_webhooks(10) == []

        world.run(main())
