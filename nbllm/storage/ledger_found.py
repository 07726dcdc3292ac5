"""Rows of the ledger whose ids are not at hand: looked for by the names that others know them by, in a transaction."""

from __future__ import annotations

import sqlite3

from nbllm.core.records import Attempt
from nbllm.storage import ledger_rows as rows
from nbllm.storage.ledger_schema import CLOSE_ATTEMPT


def open_call(con: sqlite3.Connection, call_id: str) -> int | None:
    """Return the id of an open call's row, None when there is none."""
    found = con.execute("SELECT id FROM calls WHERE call_id = ? AND status = 'open'", (call_id,)).fetchone()
    return None if found is None else int(found[0])


def close_attempt(con: sqlite3.Connection, attempt: Attempt) -> None:
    """Close an attempt that is open; another is left as it is."""
    found = con.execute("SELECT id, call FROM attempts WHERE attempt_id = ? AND status = 'open'", (attempt.attempt_id,)).fetchone()
    if found:
        row_id, call = found
        con.execute(CLOSE_ATTEMPT, rows.close_attempt(row_id, call, attempt))
