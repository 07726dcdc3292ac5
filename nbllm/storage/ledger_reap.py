"""Rows of processes that ended without closing them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable

from nbllm.storage.packing import died_attempt, died_call

_NOTED = "SELECT number, token FROM processes WHERE closed_at IS NULL"
_OPEN = "SELECT id, packed FROM {} WHERE id >= ? AND id < ? AND status = 'open'"


def others_are_noted(con: sqlite3.Connection) -> bool:
    """Whether there are processes whose rows may be open."""
    return con.execute(f"{_NOTED} LIMIT 1").fetchone() is not None


def reap(con: sqlite3.Connection, dead: Callable[[Iterable[str]], set[str]], *, own: int) -> None:
    """Close the rows of processes that ended as unknown; what an attempt could have cost at worst is what it cost.

    dead: which of these tokens belong to a process that ended. own: this process's number. A process is searched once: all its
    rows are read, from the first to the last.
    """
    noted = {token: number for number, token in con.execute(_NOTED).fetchall() if number != own}
    for token in dead(noted):
        number = noted[token]
        _close_rows(con, number << 32, number + 1 << 32)
        con.execute("UPDATE processes SET closed_at = ? WHERE number = ?", (time.time(), number))


def all_closed(con: sqlite3.Connection, number: int) -> None:
    """Note that none of a process's rows is open any more, nor will be."""
    con.execute("UPDATE processes SET closed_at = ? WHERE number = ?", (time.time(), number))


def _close_rows(con: sqlite3.Connection, first: int, end: int) -> None:
    for row_id, packed in con.execute(_OPEN.format("calls"), (first, end)).fetchall():
        con.execute("UPDATE calls SET status = 'unknown', packed = ? WHERE id = ?", (died_call(packed), row_id))
    for row_id, packed in con.execute(_OPEN.format("attempts"), (first, end)).fetchall():
        con.execute(
            "UPDATE attempts SET status = 'unknown', cost_picodollars = worst_case_picodollars, "
            "cost_basis = iif(worst_case_picodollars IS NULL, 'unknown', 'estimated'), packed = ? WHERE id = ?",
            (died_attempt(packed), row_id),
        )
