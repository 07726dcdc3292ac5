"""state.db: what processes on one home share while they run, such as budgets and leases."""

from __future__ import annotations

import sqlite3

from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

_TABLES = (
    """CREATE TABLE scopes (
        name TEXT PRIMARY KEY, spent INTEGER NOT NULL, reserved INTEGER NOT NULL, touched_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE reservations (
        id TEXT PRIMARY KEY, amount INTEGER NOT NULL, scopes TEXT NOT NULL, process TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE settled (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE leases (
        key TEXT PRIMARY KEY, fence INTEGER NOT NULL, process TEXT NOT NULL, expires_at REAL NOT NULL
    ) WITHOUT ROWID""",
)


def _first(con: sqlite3.Connection) -> None:
    for statement in _TABLES:
        con.execute(statement)


def state_database(home: Home, *, on_trouble: OnTrouble | None = None) -> Database:
    """Return state.db of a home, not opened yet. Amounts are picodollars."""
    return Database(home, "state.db", migrations=(_first,), on_trouble=on_trouble)
