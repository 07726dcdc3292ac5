"""The SQLite file itself: its mode, version, pages and size, and what becomes of a damaged, a linked and a replaced one."""

from __future__ import annotations

import os
import sqlite3
import stat

import pytest

from nbllm.errors import StorageError
from nbllm.storage.home import Home
from nbllm.storage.opening import Additive
from nbllm.storage.sqlite import Database
from tests.storage.one_table import INSERT, one_table, values


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_files_are_private(database):
    """0600, WAL and shared memory too."""
    database.execute(INSERT, (1,))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.path.parent.iterdir() if path.is_file()}
    assert modes == {"t.db": 0o600, "t.db-wal": 0o600, "t.db-shm": 0o600}


def test_a_newer_version_is_refused(tmp_path, database):
    """By name and number; nothing is changed."""
    database.execute(INSERT, (0,))
    database.close()
    con = sqlite3.connect(tmp_path / "home" / "t.db")
    con.execute("PRAGMA user_version=7")
    con.close()
    again = Database(Home(tmp_path / "home"), "t.db", migrations=(one_table,))
    with pytest.raises(StorageError, match="newer nbllm"):
        again.execute(INSERT, (1,)).result(30)
    with pytest.raises(StorageError, match=r"version is 7.*\n.*Upgrade"):
        again.read(lambda con: con.execute("SELECT 1").fetchone())
    again.close()


def test_a_newer_version_that_only_adds_is_used(tmp_path):
    """Code that lacks nothing but additive migrations reads and writes on, changes no version, and lets go after another kind."""

    def adds(con):
        con.execute("ALTER TABLE t ADD COLUMN more")

    def changes(con):
        con.execute("UPDATE t SET value = -value")

    home, added = Home(tmp_path / "home"), Additive(adds)
    for migrations in ((one_table,), (one_table, added), (one_table,), (one_table, added)):
        database = Database(home, "t.db", migrations=migrations)
        assert database.execute(INSERT, (len(migrations),)) is None
        database.close()
    changed = Database(home, "t.db", migrations=(one_table, added, changes))
    assert values(changed) == [-1, -2, -1, -2]
    changed.close()
    for migrations in ((one_table,), (one_table, added)):
        database = Database(home, "t.db", migrations=migrations)
        with pytest.raises(StorageError, match="newer nbllm"):
            database.execute(INSERT, (9,)).result(30)
        database.close()
    home.close()


def test_migrations_are_done_once_and_together(tmp_path):
    """An old file gets what it lacks; a migration that fails leaves the file as it was."""

    def second(con):
        con.execute("ALTER TABLE t ADD COLUMN more")

    def broken(con):
        con.execute("CREATE TABLE half (x)")
        con.execute("nonsense")

    home = Home(tmp_path / "home")
    for migrations in ((one_table,), (one_table, second), (one_table, second)):
        database = Database(home, "t.db", migrations=migrations)
        assert database.execute(INSERT, (len(migrations),)) is None
        database.close()
    database = Database(home, "t.db", migrations=(one_table, second, broken))
    with pytest.raises(StorageError):
        database.execute(INSERT, (9,)).result(30)
    database.close()
    database = Database(home, "t.db", migrations=(one_table, second))
    assert values(database) == [1, 2, 2]
    assert database.read(lambda con: con.execute("SELECT count(*) FROM sqlite_master WHERE name='half'").fetchone()) == (0,)
    database.close()


@pytest.mark.parametrize("how", ["no database", "truncated", "scribbled"])
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path, told, how):
    """Not deleted: it is renamed, the user is told, and writing goes on."""
    home = Home(tmp_path / "home")
    database = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    for number in range(500):
        database.execute(INSERT, (f"{number} {'x' * 100}",))
    database.close()
    path = tmp_path / "home" / "t.db"
    content = path.read_bytes()
    assert len(content) > 5 * 4096
    path.write_bytes(
        {
            "no database": b"not a database" * 1000,
            "truncated": content[:4096],
            "scribbled": content[:4096] + b"\xff" * (len(content) - 4096),
        }[how]
    )
    database = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    written = database.execute(INSERT, ("new",))
    if written is not None:
        written.result(30)
    assert values(database) == ["new"]
    (aside,) = [path for path in (tmp_path / "home").glob("t.db.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    assert len(aside.read_bytes()) > 0
    assert any(aside.name in text for text in told)
    database.close()
    home.close()


def test_damage_is_found_by_reading_too(tmp_path, told):
    """The reader gets an empty file instead of an error."""
    home = Home(tmp_path / "home")
    home.prepare()
    (tmp_path / "home" / "t.db").write_bytes(b"not a database" * 1000)
    database = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    assert values(database) == []
    assert len(told) == 1
    database.close()


def test_a_new_file_of_another_process_is_taken_up(database):
    """After a checkpoint at the latest, a process notices that its file was set aside by another one."""
    database.execute(INSERT, (1,))
    path = database.path
    for suffix in ("", "-wal", "-shm"):
        path.with_name("t.db" + suffix).rename(path.with_name("aside" + suffix))
    database._checkpoint()
    assert database.execute(INSERT, (2,)) is None
    con = sqlite3.connect(path)
    assert con.execute("SELECT value FROM t").fetchall() == [(2,)]
    con.close()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_is_refused(tmp_path, database):
    """A file that somebody linked elsewhere is not written."""
    home = Home(tmp_path / "home")
    home.prepare()
    (tmp_path / "victim").write_bytes(b"")
    database.path.symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="symbolic link"):
        database.execute(INSERT, (1,)).result(30)
    assert (tmp_path / "victim").read_bytes() == b""


def test_the_log_does_not_grow_for_ever(database):
    """Checkpoints by the thread let it start over, even while somebody writes without a pause."""
    for number in range(20_000):
        written = database.execute(INSERT, (number,))
        if written is not None:
            written.result(30)
    assert database.path.with_name("t.db-wal").stat().st_size < 20_000 * 4096 / 3
    assert len(values(database)) == 20_000


def test_pages_have_their_size_and_what_is_deleted_can_be_given_back(database, monkeypatch):
    """SQLite takes neither option once a file has a page, so the one that is said first must not make it."""
    monkeypatch.setattr("nbllm.storage.connections.PAGE_BYTES", 8192)
    assert database.read(lambda con: con.execute("PRAGMA page_size").fetchone()) == (8192,)
    assert database.read(lambda con: con.execute("PRAGMA auto_vacuum").fetchone()) == (2,)


def test_a_short_question_to_a_damaged_file_is_answered_by_a_new_one(tmp_path, told):
    """Damage that a short question meets is set aside like any other."""
    home = Home(tmp_path / "home")
    database = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    for number in range(2000):
        database.execute(INSERT, (f"{number:0100}",))
    database.close()
    path = database.path
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    again = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    again.write(lambda _: None)  # opens the writing connection, which meets no damage yet
    assert again.first_row("SELECT count(*) FROM t WHERE value < '5'", ()) == (0,)
    assert len(told) == 1
    again.close()
    home.close()
