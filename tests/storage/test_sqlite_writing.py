"""Writes to one SQLite file: in place when it is free, by a thread when it is not; nothing is lost and nobody stalls."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import Future

import pytest

from nbllm.errors import StorageError
from nbllm.storage import writer
from nbllm.storage.faults import Fault, fault_of
from tests.starvation import within
from tests.storage.one_table import INSERT, values


def lock(database) -> sqlite3.Connection:
    """Hold the write lock as another program would."""
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_free_database_is_written_in_place(database):
    """None says that it is committed: another connection sees it, and no thread was started."""
    threads = threading.active_count()
    assert database.execute(INSERT, (1,)) is None
    assert database.write(lambda con: con.execute(INSERT, (2,)).rowcount) == 1
    other = sqlite3.connect(database.path)
    assert other.execute("SELECT count(*) FROM t").fetchone() == (2,)
    other.close()
    assert threading.active_count() == threads


def test_a_locked_database_stalls_nobody(database):
    """Writes return at once, are committed in order when the lock is free, and then go in place again."""
    database.execute(INSERT, (0,))
    other = lock(database)
    with within(0.5):
        futures = [database.execute(INSERT, (number,)) for number in range(1, 101)]
    assert all(isinstance(future, Future) for future in futures)
    other.execute("ROLLBACK")
    other.close()
    for future in futures:
        future.result(30)
    assert values(database) == list(range(101))
    assert database.execute(INSERT, (101,)) is None


def test_a_waiter_that_writes_again_writes_in_place(database):
    """When a future is done, nothing is pending any more: one lock does not turn into a queue for ever."""
    database.execute(INSERT, (0,))
    other = lock(database)
    future = database.execute(INSERT, (1,))
    other.execute("ROLLBACK")
    other.close()
    future.result(30)
    assert database.execute(INSERT, (2,)) is None


def test_a_lock_held_too_long_lets_callers_go_on(database, told):
    """The future fails in words for the user, the user is told once, and the row is saved all the same when the lock is free."""
    database.execute(INSERT, (0,))
    other = lock(database)
    kept = database.write(lambda con: con.execute(INSERT, (1,)).rowcount, wait_s=0.05)
    dropped = database.write(lambda con: con.execute(INSERT, (2,)).rowcount, wait_s=0.05, kept=False)
    for future in (kept, dropped):
        with pytest.raises(StorageError, match="locked by another program"):
            future.result(30)
    assert "locked" in database.degraded
    other.execute("ROLLBACK")
    other.close()
    assert values(database) == [0, 1]
    assert database.degraded is None
    assert len(told) == 1


def test_a_cancelled_waiter_does_not_cancel_the_write(database):
    """A row is written even if whoever asked for it has gone."""
    database.execute(INSERT, (0,))
    other = lock(database)
    assert database.execute(INSERT, (1,)).cancel() is False
    other.execute("ROLLBACK")
    other.close()
    assert values(database) == [0, 1]


def test_one_failing_job_does_not_take_its_batch_along(database):
    """Each job of a batch succeeds or fails on its own."""
    database.execute(INSERT, (0,))
    other = lock(database)
    good = database.execute(INSERT, (1,))
    own = database.write(lambda _: 1 / 0)
    bad = database.execute("INSERT INTO nowhere VALUES (1)", ())
    last = database.execute(INSERT, (2,))
    other.execute("ROLLBACK")
    other.close()
    assert good.result(30) is None
    with pytest.raises(ZeroDivisionError):
        own.result(30)
    with pytest.raises(StorageError, match="nowhere"):
        bad.result(30)
    assert last.result(30) is None
    assert values(database) == [0, 1, 2]


def test_what_a_transaction_raises_is_raised_and_nothing_is_written(database):
    """In place: the caller's own error, and a rollback."""

    def run(con):
        con.execute(INSERT, (1,))
        raise KeyError("mine")

    with pytest.raises(KeyError):
        database.write(run)
    assert values(database) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_READONLY, "read-only"),
        (sqlite3.SQLITE_IOERR, "cannot be read or written"),
    ],
)
def test_a_disk_that_fails_never_raises(database, told, code, words):
    """The future holds a StorageError, later writes work again, and the user hears of it once."""
    database.execute(INSERT, (0,))

    class Failing:
        def execute(self, *_):
            exc = sqlite3.OperationalError("simulated")
            exc.sqlite_errorcode = code
            raise exc

    real, database._files.writing = database._files.writing, Failing()
    for _ in range(3):
        with pytest.raises(StorageError, match=words):
            database.execute(INSERT, (1,)).result(30)
        with pytest.raises(StorageError, match=words):
            database.write(lambda con: con.execute(INSERT, (1,))).result(30)
    assert words in database.degraded
    assert len(told) == 1
    database._files.writing = real
    assert database.execute(INSERT, (2,)) is None
    assert database.degraded is None
    assert values(database) == [0, 2]


def test_a_really_full_database_file(database):
    """SQLite's own refusal to grow is a StorageError in the future, and what was there stays readable."""
    database.execute(INSERT, (0,))
    database._files.writing.execute("PRAGMA max_page_count=5")
    with pytest.raises(StorageError, match="full"):
        database.execute(INSERT, ("x" * 100_000,)).result(30)
    assert values(database) == [0]


def test_threads_lose_nothing(database):
    """Eight threads, some in place and some queued: every row is there."""

    def work(name: int) -> None:
        for number in range(200):
            written = database.execute(INSERT, (name * 1000 + number,))
            if written is not None:
                written.result(30)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values(database)) == sorted(name * 1000 + number for name in range(8) for number in range(200))


def test_the_thread_ends_by_itself(database, monkeypatch):
    """At rest there is no thread; the next job starts one again."""
    monkeypatch.setattr(writer, "LINGER_S", 0.02)
    for number in range(2):
        database.defer(lambda con, number=number: con.execute(INSERT, (number,)).rowcount).result(30)
        deadline = time.monotonic() + 30
        while any(thread.name == "nbllm-t.db" for thread in threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not any(thread.name == "nbllm-t.db" for thread in threading.enumerate())
    assert values(database) == [0, 1]


def test_close_commits_what_waits_and_leaves_no_thread(database):
    """What was queued is in the file; what comes later fails in words."""
    futures = [database.defer(lambda con, number=number: con.execute(INSERT, (number,)).rowcount) for number in range(50)]
    database.close()
    assert all(future.result(0) == 1 for future in futures)
    assert not any(thread.name == "nbllm-t.db" for thread in threading.enumerate())
    con = sqlite3.connect(database.path)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (50,)
    con.close()
    with pytest.raises(StorageError, match="closed"):
        database.execute(INSERT, (1,)).result(0)


def test_error_codes():
    """Extended codes count as their primary one; an error without a code is no known fault."""
    exc = sqlite3.OperationalError("x")
    exc.sqlite_errorcode = 10 | (2 << 8)
    assert fault_of(exc) is Fault.IO
    assert fault_of(sqlite3.ProgrammingError("x")) is Fault.OTHER


def test_a_short_question_sees_what_is_committed_whoever_uses_the_writing_connection(database):
    """The first row is that of what is committed: on the free writing connection, within a transaction, beside another thread's."""
    database.execute(INSERT, ("one",))
    ask = "SELECT value FROM t ORDER BY id DESC"
    assert database.first_row(ask, ()) == ("one",)
    seen = []

    def write(con):
        con.execute(INSERT, ("two",))
        seen.append(database.first_row(ask, ()))
        thread = threading.Thread(target=lambda: seen.append(database.first_row(ask, ())))
        thread.start()
        thread.join(5)

    database.write(write)
    assert seen == [("one",), ("one",)]
    assert database.first_row(ask, ()) == ("two",)
    assert database.first_row("SELECT value FROM t WHERE id > 100", ()) is None
    assert database.execute(INSERT, ("three",)) is None, "no statement was left open on the writing connection"
