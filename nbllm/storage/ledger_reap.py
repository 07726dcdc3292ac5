"""Rows of processes that ended without closing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from nbllm.storage.packing import died_attempt, died_call


def reap(con: sqlite3.Connection, dead: Callable[[Iterable[str]], set[str]]) -> None:
    """Close the rows of processes that ended as unknown; what an attempt could have cost at worst is what it cost.

    dead: which of these tokens belong to a process that ended.
    """
    open_rows = "SELECT process FROM calls WHERE status = 'open' UNION SELECT process FROM attempts WHERE status = 'open'"
    for token in dead(token for (token,) in con.execute(open_rows).fetchall()):
        select = "SELECT id, packed FROM {} WHERE status = 'open' AND process = ?"
        for row_id, packed in con.execute(select.format("calls"), (token,)).fetchall():
            con.execute("UPDATE calls SET status = 'unknown', packed = ? WHERE id = ?", (died_call(packed), row_id))
        for row_id, packed in con.execute(select.format("attempts"), (token,)).fetchall():
            con.execute(
                "UPDATE attempts SET status = 'unknown', cost_picodollars = worst_case_picodollars, "
                "cost_basis = iif(worst_case_picodollars IS NULL, 'unknown', 'estimated'), packed = ? WHERE id = ?",
                (died_attempt(packed), row_id),
            )
