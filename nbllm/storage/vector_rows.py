"""The rows of vectors.db, which are the truth: what was asked, where, and its vector in 16 bits a coordinate.

16 bits round a coordinate to one part in 2,000, which changes a cosine by some 0.00003: less than an embedder's batches do.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbllm.core.embedding import unit_vector
from nbllm.core.ports import Neighbour, VectorRow
from nbllm.storage.texts import storable
from nbllm.storage.vector_codes import Floats, dots

SLICE_ROWS = 256
"""Rows read at a time: other readers wait for about a millisecond."""
DELETED_AT_ONCE = 400
"""Rows deleted in one transaction: overwriting them takes some milliseconds, for which other writers wait."""

_TABLES = (
    "CREATE TABLE file (token TEXT NOT NULL)",
    """CREATE TABLE partitions (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL,
        rows INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE rows (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        partition INTEGER NOT NULL,
        created_at REAL NOT NULL,
        key TEXT NOT NULL,
        vector BLOB NOT NULL,
        embedder TEXT NOT NULL,
        question TEXT NOT NULL
    )""",
    "CREATE INDEX rows_of_partition ON rows(partition)",
    "CREATE INDEX rows_by_age ON rows(created_at)",
    "CREATE UNIQUE INDEX rows_by_key ON rows(key, partition)",
    # To count a million rows takes 30 ms, and somebody asks every second.
    """CREATE TRIGGER row_added AFTER INSERT ON rows BEGIN
        UPDATE partitions SET rows = rows + 1 WHERE number = NEW.partition;
    END""",
    """CREATE TRIGGER row_deleted AFTER DELETE ON rows BEGIN
        UPDATE partitions SET rows = rows - 1 WHERE number = OLD.partition;
    END""",
)
_STATE = (
    "SELECT (SELECT token FROM file), number, dimensions, (SELECT seq FROM sqlite_sequence WHERE name = 'rows') "
    "FROM partitions WHERE name = ?"
)
_ADD = "INSERT INTO rows (partition, created_at, key, vector, embedder, question) VALUES (?, ?, ?, ?, ?, ?)"


def _first(con: sqlite3.Connection) -> None:
    for statement in _TABLES:
        con.execute(statement)
    con.execute("INSERT INTO file VALUES (?)", (secrets.token_hex(8),))


MIGRATIONS = (_first,)


class State(NamedTuple):
    """What a partition is just now. token: of the file, another one when the file was begun anew. last_id: of all rows ever."""

    token: str
    number: int
    dimensions: int
    last_id: int


def opened(con: sqlite3.Connection) -> None:
    """Have forgotten questions overwritten, not only unlinked."""
    con.execute("PRAGMA secure_delete=1").fetchall()


def state(con: sqlite3.Connection, partition: str) -> State | None:
    """Return the state of a partition, None for one without any row so far."""
    found = con.execute(_STATE, (storable(partition),)).fetchone()
    if found is None:
        return None
    token, number, dimensions, last_id = found
    return State(token, number, dimensions, last_id or 0)


def add(con: sqlite3.Connection, row: VectorRow, vector: Floats) -> None:
    """Write a row; vector: that of the row, of unit length. Raises UnusableVector for another dimension than before."""
    name = storable(row.partition)
    found = con.execute("SELECT number, dimensions FROM partitions WHERE name = ?", (name,)).fetchone()
    if found:
        number = found[0]
        unit_vector(vector, dimensions=found[1])
    else:
        number = con.execute("INSERT INTO partitions (name, dimensions) VALUES (?, ?)", (name, len(vector))).lastrowid
    key, texts = storable(row.key), (storable(row.embedder), storable(row.question))
    con.execute("DELETE FROM rows WHERE key = ? AND partition = ?", (key, number))  # OR REPLACE would not tell the trigger
    con.execute(_ADD, (number, row.created_at, key, vector.astype("<f2").tobytes(), *texts))


def vectors(con: sqlite3.Connection, at: State, after_id: int, last_id: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the numbers of the first rows of a partition in (after_id, last_id], and their vectors; SLICE_ROWS, if there are."""
    sql = "SELECT id, vector FROM rows WHERE partition = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
    found = con.execute(sql, (at.number, after_id, last_id, SLICE_ROWS)).fetchall()
    size = 2 * at.dimensions
    blobs = [blob if type(blob) is bytes and len(blob) == size else bytes(size) for _, blob in found]
    return np.fromiter((row_id for row_id, _ in found), np.int64, len(found)), _unit(blobs, at.dimensions)


def _unit(blobs: Iterable[bytes], dimensions: int) -> Floats:
    stored = np.frombuffer(b"".join(blobs), "<f2").reshape(-1, dimensions).astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", stored, stored))
    lengths[lengths == 0] = 1  # of a damaged row: near to nothing
    unit: Floats = np.divide(stored, lengths[:, None], dtype=np.float32)
    return unit


def neighbours(con: sqlite3.Connection, at: State, ids: Sequence[int], query: Floats) -> list[Neighbour]:
    """Return the rows of these numbers that are still there, best first, with their exact scores."""
    marks = ",".join("?" * len(ids))
    sql = f"SELECT id, key, question, created_at, embedder, vector FROM rows WHERE id IN ({marks}) AND partition = ?"  # noqa: S608
    found = [row for row in con.execute(sql, (*ids, at.number)).fetchall() if len(row[5]) == 2 * at.dimensions]
    if not found:
        return []
    near = np.minimum(dots(_unit((row[5] for row in found), at.dimensions), query), 1.0)
    return [
        Neighbour(key=key, question=question, score=float(score), created_at=created_at, row_id=row_id, embedder=embedder)
        for score, (row_id, key, question, created_at, embedder, _) in sorted(
            zip(near, found, strict=True), key=lambda pair: (-pair[0], -pair[1][0])
        )
    ]


def ids(con: sqlite3.Connection, at: State, after_id: int, last_id: int, limit: int) -> list[int]:
    """Return the first numbers of rows of a partition in (after_id, last_id]."""
    sql = "SELECT id FROM rows WHERE partition = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?"
    return [row_id for (row_id,) in con.execute(sql, (at.number, after_id, last_id, limit)).fetchall()]


Dropped = dict[int, list[int]]
"""Numbers of rows that were deleted, by the number of their partition."""


def drop_keys(con: sqlite3.Connection, keys: Sequence[str]) -> Dropped:
    """Delete the rows with these keys, at most DELETED_AT_ONCE."""
    marks = ",".join("?" * len(keys))
    return _deleted(con, f"key IN ({marks})", [storable(key) for key in keys])


def drop_older(con: sqlite3.Connection, created_before: float) -> Dropped:
    """Delete rows that are older, at most DELETED_AT_ONCE."""
    return _deleted(con, "id IN (SELECT id FROM rows WHERE created_at < ? LIMIT ?)", (created_before, DELETED_AT_ONCE))


def drop_first(con: sqlite3.Connection, limit_rows: int) -> Dropped:
    """Delete the rows that came first while there are more than the limit, at most DELETED_AT_ONCE.

    Counted here, in the transaction: of two that look at once only one finds too many.
    """
    over = count(con, None) - limit_rows
    return _deleted(con, "id IN (SELECT id FROM rows ORDER BY id LIMIT ?)", (max(0, min(over, DELETED_AT_ONCE)),))


def lost(con: sqlite3.Connection) -> list[int]:
    """Return the numbers of partitions that were dropped and still have rows."""
    sql = "SELECT partition FROM (SELECT DISTINCT partition FROM rows) WHERE partition NOT IN (SELECT number FROM partitions)"
    return [number for (number,) in con.execute(sql).fetchall()]


def drop_rows_of(con: sqlite3.Connection, number: int) -> Dropped:
    """Delete rows of a partition, at most DELETED_AT_ONCE."""
    return _deleted(con, "id IN (SELECT id FROM rows WHERE partition = ? LIMIT ?)", (number, DELETED_AT_ONCE))


def _deleted(con: sqlite3.Connection, where: str, values: Sequence[Any]) -> Dropped:
    gone: Dropped = {}
    sql = f"DELETE FROM rows WHERE {where} RETURNING partition, id"  # noqa: S608 - ours, values are bound
    for number, row_id in con.execute(sql, values).fetchall():
        gone.setdefault(number, []).append(row_id)
    return gone


def leave(con: sqlite3.Connection, partition: str | None) -> int:
    """Let no row of a partition (None: of any) be found any more, and return how many there were; they are `lost` now."""
    there = count(con, partition)
    where, values = _named(partition)
    con.execute(f"DELETE FROM partitions{where}", values)  # noqa: S608 - ours, values are bound
    return there


def count(con: sqlite3.Connection, partition: str | None) -> int:
    """Return how many rows a partition (None: all partitions) has."""
    where, values = _named(partition)
    return int(con.execute(f"SELECT coalesce(sum(rows), 0) FROM partitions{where}", values).fetchone()[0])  # noqa: S608 - see leave


def _named(partition: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if partition is None else (" WHERE name = ?", (storable(partition),))


def keys_after(con: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str]]:
    """Return numbers and keys of rows, in order."""
    return con.execute("SELECT id, key FROM rows WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()


def numbers(con: sqlite3.Connection) -> list[int]:
    """Return the numbers of all partitions."""
    return [number for (number,) in con.execute("SELECT number FROM partitions").fetchall()]


def sizes(con: sqlite3.Connection) -> tuple[int, int, int]:
    """Return how many rows and partitions there are, and how many bytes of the file are in use."""
    (pages,) = con.execute("PRAGMA page_count").fetchone()
    (free,) = con.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = con.execute("PRAGMA page_size").fetchone()
    return count(con, None), len(numbers(con)), (pages - free) * page_bytes
