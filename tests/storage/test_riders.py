"""Statements that are committed together with the next write."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from nbllm.storage.home import Home
from nbllm.storage.sqlite import RIDE_S, Database
from tests.storage.locking import locked


@pytest.fixture
def database(tmp_path):
    home = Home(tmp_path / "home")
    made = Database(home, "t.db", migrations=(lambda con: con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)"),))
    yield made
    made.close()
    home.close()


def count(database: Database) -> int:
    """Rows that another process would see."""
    con = sqlite3.connect(database.path)
    try:
        return con.execute("SELECT count(*) FROM t").fetchone()[0]
    finally:
        con.close()


def test_a_rider_is_committed_with_the_next_write(database):
    """Not before it, and not without it."""

    async def run() -> None:
        database.execute("INSERT INTO t VALUES (1)", ())
        database.ride("INSERT INTO t VALUES (2)", ())
        assert count(database) == 1
        database.execute("INSERT INTO t VALUES (3)", ())
        assert count(database) == 3

    asyncio.run(run())


def test_a_rider_lands_by_itself_soon(database):
    """Without another write it is committed within RIDE_S."""

    async def run() -> None:
        database.execute("INSERT INTO t VALUES (1)", ())
        database.ride("INSERT INTO t VALUES (2)", ())
        await asyncio.sleep(2 * RIDE_S)
        assert count(database) == 2

    asyncio.run(run())


def test_reads_of_this_process_see_riders(database):
    """What was written can be read, committed or not yet."""

    async def run() -> None:
        database.ride("INSERT INTO t VALUES (2)", ())
        assert database.read(lambda con: con.execute("SELECT count(*) FROM t").fetchone()) == (1,)

    asyncio.run(run())


def test_without_a_loop_nothing_rides(database):
    """Nobody would see to the time: it is committed at once."""
    database.ride("INSERT INTO t VALUES (2)", ())
    assert count(database) == 1


def test_riders_keep_their_place_behind_queued_jobs(database):
    """While jobs wait for a locked file, later statements queue behind them."""

    async def run() -> None:
        database.execute("INSERT INTO t VALUES (1)", ())
        with locked(database.path):
            queued = database.execute("INSERT INTO t VALUES (2)", ())
            behind = database.ride("UPDATE t SET a = 20 WHERE a = 2", ())
            assert queued is not None
            assert behind is not None
        await asyncio.wrap_future(behind)
        assert database.read(lambda con: con.execute("SELECT a FROM t ORDER BY a").fetchall()) == [(1,), (20,)]

    asyncio.run(run())


def test_a_refused_rider_does_not_fail_its_coach(database):
    """A duplicate that rides is dropped; the write that it rode with, and other riders, are committed."""

    async def run() -> None:
        database.execute("INSERT INTO t VALUES (1)", ())
        database.ride("INSERT INTO t VALUES (1)", ())
        database.ride("INSERT INTO t VALUES (5)", ())
        assert database.execute("INSERT INTO t VALUES (2)", ()) is None
        assert count(database) == 3

    asyncio.run(run())


def test_a_rider_of_a_failed_write_rides_again(database):
    """When the write itself fails, its riders are not lost."""

    async def run() -> None:
        database.ride("INSERT INTO t VALUES (7)", ())
        with pytest.raises(ValueError, match="no"):
            database.write(_refuse)
        database.execute("INSERT INTO t VALUES (8)", ())
        assert count(database) == 2

    asyncio.run(run())


def _refuse(_: sqlite3.Connection) -> None:
    raise ValueError("no")
