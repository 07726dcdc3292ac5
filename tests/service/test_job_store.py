"""The JobStore of one machine: the conformance suite, and what only a file can do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from nbllm.service.job_store import SqliteJobs
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.service.conformance_idempotency import KEEP_S, Clock
from tests.service.conformance_jobs import MOST_LAPSES, JobsConformance, added, lease, new
from tests.service.job_machine import JobsMachine
from tests.service.sqlite_world import World


def make(home: Home, database: Database, clock: Clock) -> SqliteJobs:
    return SqliteJobs(home, database, keep_s=KEEP_S, most_lapses=MOST_LAPSES, now=clock)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World[SqliteJobs]]:
    made = World(make, tmp_path / "home")
    yield made
    made.close()


class TestSqlite(JobsConformance):
    """The suite on SQLite."""


class _Machine(JobsMachine):
    make_world = staticmethod(lambda: World(make))


TestMachine = _Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_worker_that_is_given_up_while_it_asks(world: World[SqliteJobs]) -> None:
    """A job that nobody took up goes back into the queue."""
    store = world.open()

    async def main() -> None:
        (job,) = await added(store, new())
        world.homes[store].open_calls = {"one", "two"}  # so that the transaction waits for the loop's next turn
        task = asyncio.ensure_future(store.claim())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store._db.flush()
        assert (await lease(store)).job.job_id == job.job_id

    world.run(main())


def test_a_restart_finds_everything(world: World[SqliteJobs]) -> None:
    """What was queued, ran or ended when all processes died is there for the next."""

    async def main() -> None:
        store = world.open()
        done, running, queued = await added(store, new(), new(), new())
        await store.finish(await lease(store), "done", result="1")
        await lease(store)
        world.crash(store)
        again = world.open()
        assert await again.sweep() == [running.job_id]
        assert [(await again.get("a", job.job_id) or done).status for job in (done, running, queued)] == [
            "done",
            "queued",
            "queued",
        ]

    world.run(main())
