"""The JobStore of one machine: the conformance suite, and what only a file can do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nbllm.service.embedded import state_file
from nbllm.service.job_store import SqliteJobs
from nbllm.service.ports import JobsFull
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.service.conformance_idempotency import KEEP_S, Clock
from tests.service.conformance_jobs import MOST_LAPSES, JobsConformance, added, lease, new
from tests.service.job_machine import JobsMachine
from tests.service.sqlite_world import World, machine_on_sqlite, sqlite_world
from tests.starvation import Stopwatch


def make(home: Home, database: Database, clock: Clock) -> SqliteJobs:
    return SqliteJobs(home, database, keep_s=KEEP_S, most_lapses=MOST_LAPSES, now=clock)


world = sqlite_world(make)


class TestSqlite(JobsConformance):
    """The suite on SQLite."""


TestMachine = machine_on_sqlite(JobsMachine, make)


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


def test_what_was_asked_is_dropped_at_the_end(world: World[SqliteJobs]) -> None:
    """An ended job holds its result; what was asked is neither in the row nor in the file any more, and no list reads either."""

    async def main() -> None:
        store = world.open()
        done, cancelled, waits = await added(store, *(new(arguments=f'"a private question {number}"') for number in range(3)))
        await store.finish(await lease(store), "done", result='"an answer"')
        await store.cancel("a", cancelled.job_id)
        assert [(await store.get("a", job.job_id) or done).arguments for job in (done, cancelled)] == ["", ""]
        assert (await store.get("a", waits.job_id) or done).arguments == '"a private question 2"'
        listed = await store.list("a", "triage", limit=5)
        assert {(job.arguments, job.result, job.problem) for job in listed} == {("", None, None)}
        store._db.close()
        held = (world.folder / "service.db").read_bytes()
        assert b"a private question 0" not in held
        assert b"a private question 1" not in held

    world.run(main())


def test_what_one_caller_may_keep(tmp_path: Path) -> None:
    """Jobs that ended count until they are forgotten; another caller is not touched by it."""

    def small(home: Home, database: Database, clock: Clock) -> SqliteJobs:
        return SqliteJobs(home, database, keep_s=KEEP_S, most_kept_bytes=10_000, now=clock)

    world = World(small, tmp_path / "home")

    async def main() -> None:
        store = world.open()
        for _ in range(3):
            await added(store, new(arguments='"' + "x" * 2000 + '"'))
            await store.finish(await lease(store), "done", result='"' + "y" * 2000 + '"')
        await added(store, new())
        with pytest.raises(JobsFull, match="may be kept"):
            await added(store, new(arguments='"' + "x" * 2000 + '"'))
        await added(store, new("b", arguments='"' + "x" * 2000 + '"'))
        world.clock.now += KEEP_S + 1
        await store.sweep()
        await added(store, new(arguments='"' + "x" * 2000 + '"'))

    world.run(main())
    world.close()


def test_a_page_of_large_jobs_is_cheap(world: World[SqliteJobs]) -> None:
    """A list does not read what it does not show: its time does not grow with what the jobs hold."""

    async def main() -> None:
        store = world.open()
        await added(store, *(new(arguments='"' + "x" * 900_000 + '"') for _ in range(60)))
        read = world.homes[store]
        took_s: list[float] = []
        for _ in range(5):  # the machine's other work may come between
            watch = Stopwatch()
            assert len(await store.list("a", "triage", limit=100)) == 60
            took_s.append(watch.s)
        assert min(took_s) < 0.1
        assert read.alive

    world.run(main())


def test_each_app_has_a_file_of_its_own_in_a_shared_home(tmp_path: Path) -> None:
    """No app takes the jobs of another, whatever they share; an app that moves with its own home keeps its file."""
    home = tmp_path / "home"
    names = {state_file(home, app, folder) for app in ("a", "b") for folder in (tmp_path / "x", tmp_path / "y", None)}
    assert len(names) == 6
    assert state_file(tmp_path / "x" / ".state", "a", tmp_path / "x") == "service.db"
    assert state_file(home, "../x y", None).startswith("service--x-y-")
    assert state_file(home, "a", tmp_path / "x") == state_file(home, "a", tmp_path / "x" / ".." / "x")
