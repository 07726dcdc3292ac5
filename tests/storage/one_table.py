"""One SQLite file with one table, the simplest that Database can be tested on."""

from __future__ import annotations

from nbllm.storage.sqlite import Database

INSERT = "INSERT INTO t (value) VALUES (?)"


def one_table(con):
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value)")


def values(database: Database) -> list:
    """What is in it, in order, once all that waits is committed."""
    database.flush(5)
    return [value for (value,) in database.read(lambda con: con.execute("SELECT value FROM t ORDER BY id").fetchall())]
