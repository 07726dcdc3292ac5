"""Rows of several calls on one event loop, committed in its next turn as one transaction."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from nbllm.errors import StorageError
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.storage.locking import locked

INSERT = "INSERT INTO t VALUES (?)"


@pytest.fixture
def database(tmp_path):
    home = Home(tmp_path / "home")
    home.open_calls = {"one", "two"}
    made = Database(home, "t.db", migrations=(lambda con: con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)"),))
    yield made
    made.close()
    home.close()


@pytest.fixture
def commits(database):
    """Commits as another connection counts them."""
    database.execute(INSERT, (0,))
    con = sqlite3.connect(database.path)
    con.execute("SELECT count(*) FROM t").fetchone()
    seen = []

    def new() -> tuple[bool, int]:
        version = con.execute("PRAGMA data_version").fetchone()[0]
        changed = bool(seen) and seen[-1] != version
        seen.append(version)
        return changed, con.execute("SELECT count(*) FROM t").fetchone()[0]

    new()
    yield new
    con.close()


def test_rows_of_one_turn_are_one_transaction(database, commits):
    """None is there before the turn is over, all are after it."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        turns = [database.execute_together(INSERT, (number,)) for number in range(2, 50)]
        assert commits() == (True, 2)
        assert await asyncio.gather(*turns) == [None] * 48
        assert commits() == (True, 50)

    asyncio.run(run())


def test_one_call_alone_does_not_wait(database, commits):
    """Its rows are committed in place, one after the other."""

    async def run() -> None:
        database._home.open_calls.discard("two")
        assert database.execute_together(INSERT, (1,)) is None
        assert commits() == (True, 2)

    asyncio.run(run())


def test_a_locked_file_makes_a_row_late_and_loses_none(database):
    """The turn says so, and the writer thread commits the row when the lock is free."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        with locked(database.path):
            late = await asyncio.gather(*(database.execute_together(INSERT, (number,)) for number in (2, 3)))
            assert all(one is not None and not one.done() for one in late)
        for one in late:
            await asyncio.wrap_future(one)

    asyncio.run(run())
    assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (3,)


def test_a_row_that_cannot_be_written_takes_no_other_with_it(database):
    """Each of those that went together is told how its own row did."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        turns = [database.execute_together(INSERT, (number,)) for number in (2, 1, 3)]
        first, twice, third = await asyncio.gather(*turns)
        assert (first, third) == (None, None)
        with pytest.raises(StorageError):
            twice.result(0)

    asyncio.run(run())
    assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (3,)


def test_a_cancelled_caller_loses_no_row(database):
    """Its row is committed all the same, and nobody else's waiting is cancelled."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        turns = [database.execute_together(INSERT, (number,)) for number in (2, 3)]
        turns[0].cancel()
        assert await turns[1] is None

    asyncio.run(run())
    assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (3,)


def test_results_come_back_to_their_own_callers(database):
    """Each of many transactions that go together gets what its own statements returned, or its own error."""

    async def run() -> None:
        database.execute(INSERT, (1,))

        async def one(number: int) -> int:
            insert = "INSERT INTO t VALUES (?) RETURNING a * 10"
            return (await database.run(lambda con: con.execute(insert, (number,)).fetchall(), wait_s=1.0))[0][0]

        results = await asyncio.gather(*(one(number) for number in (2, 3, 1, 4)), return_exceptions=True)
        assert [results[0], results[1], results[3]] == [20, 30, 40]
        assert isinstance(results[2], StorageError)

    asyncio.run(run())


def test_reads_of_this_loop_see_what_waits(database):
    """What was written can be read, committed or not yet."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        database.execute_together(INSERT, (2,))
        assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (2,)

    asyncio.run(run())


def test_closing_commits_what_waits(database):
    """A loop that ended in the middle of a turn takes no row with it."""
    path = database.path

    async def run() -> None:
        database.execute(INSERT, (1,))
        database.execute_together(INSERT, (2,))
        asyncio.get_running_loop().stop()  # before its next turn

    loop = asyncio.new_event_loop()
    task = loop.create_task(run())
    loop.run_forever()
    assert task.done()
    loop.close()
    assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (1,)
    database.close()
    con = sqlite3.connect(path)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (2,)
    con.close()


def test_several_bad_rows_take_no_good_one_with_them(database):
    """Rows that each fail on their own account say nothing about the disk: those behind them are written."""

    async def run() -> None:
        database.execute(INSERT, (1,))
        results = await asyncio.gather(*(database.execute_together(INSERT, (number,)) for number in (1, 1, 1, 2, 3)))
        assert [late is None for late in results] == [False, False, False, True, True]

    asyncio.run(run())
    assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (3,)


def full(database) -> None:
    """Let the file grow no more."""
    con = database._files.writing or database._files.open()
    (pages,) = con.execute("PRAGMA page_count").fetchone()
    con.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_keeps_no_rider_and_tries_few_of_many(database):
    """What cannot be written is given up, not taken along by every later write; the rest of a batch is not tried one by one."""
    tried = 0

    async def run() -> None:
        nonlocal tried
        database.execute(INSERT, (1,))
        full(database)
        database.ride("INSERT INTO t VALUES (zeroblob(?))", (100_000,))

        def huge(con: sqlite3.Connection) -> None:
            nonlocal tried
            tried += 1
            con.execute("CREATE TABLE more (x)")
            con.execute("INSERT INTO more VALUES (zeroblob(100000))")

        results = await asyncio.gather(*(database.run(huge, wait_s=1.0) for _ in range(60)), return_exceptions=True)
        assert all(isinstance(result, StorageError) for result in results)

    asyncio.run(run())
    assert tried <= 4
    assert database.dropped == 1
    assert not database._riders
