"""What a service without Redis keeps: one SQLite file in its home, `service.db`, for one machine.

Leases have no clock: each process holds an OS lock in the home, and a lease ends with its holder's process.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

WAIT_S = 2.0
"""How long a request waits for a file that another program has locked."""

_JOBS = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    caller TEXT NOT NULL,
    tier TEXT NOT NULL,
    flow TEXT NOT NULL,
    arguments TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    expires_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lapses INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    problem TEXT,
    webhook TEXT,
    fencing INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    webhook_attempts INTEGER NOT NULL DEFAULT 0,
    webhook_at REAL
)
"""
_OUTCOMES = """
CREATE TABLE outcomes (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    fencing INTEGER NOT NULL,
    owner TEXT,
    status INTEGER,
    headers TEXT,
    body BLOB,
    expires_at REAL NOT NULL,
    PRIMARY KEY (caller, key)
) WITHOUT ROWID
"""


def _first(con: sqlite3.Connection) -> None:
    con.execute(_JOBS)
    con.execute("CREATE INDEX jobs_by_status ON jobs(status, priority, lapses, seq)")
    con.execute("CREATE INDEX jobs_by_caller ON jobs(caller, flow, seq)")
    con.execute("CREATE INDEX jobs_by_end ON jobs(expires_at) WHERE expires_at IS NOT NULL")
    con.execute("CREATE INDEX jobs_by_webhook ON jobs(webhook_at) WHERE webhook_at IS NOT NULL")
    con.execute(_OUTCOMES)
    con.execute("CREATE INDEX outcomes_by_end ON outcomes(expires_at)")
    con.execute("CREATE TABLE fencing (last INTEGER NOT NULL)")
    con.execute("INSERT INTO fencing VALUES (0)")


def service_database(home: Home, filename: str = "service.db", *, on_trouble: Callable[[str], object] | None = None) -> Database:
    """Return the file. What is deleted from it is overwritten: it holds what callers sent and got."""
    return Database(home, filename, migrations=(_first, _second), opened=_overwrite_deleted, on_trouble=on_trouble)


def state_file(home: Path, app: str, folder: Path | None) -> str:
    """Return the name of an app's file in a home. In a home that it may share with other apps each has one of its own.

    Jobs must not be taken by an app that does not know their flows, and keys are one app's. folder: the app's, None for none.
    """
    if folder is not None and home.resolve() == folder.resolve() / ".state":
        return "service.db"
    known_by = hashlib.sha256(f"{app}\0{'' if folder is None else folder.resolve()}".encode()).hexdigest()[:10]
    return f"service-{re.sub('[^A-Za-z0-9]+', '-', app)[:30]}-{known_by}.db"


def _second(con: sqlite3.Connection) -> None:
    """How many bytes a job holds, so that what one caller keeps can be bounded."""
    con.execute("ALTER TABLE jobs ADD COLUMN kept_bytes INTEGER NOT NULL DEFAULT 0")
    con.execute("CREATE INDEX jobs_by_size ON jobs(caller, kept_bytes)")


def _overwrite_deleted(con: sqlite3.Connection) -> None:
    con.execute("PRAGMA secure_delete=1").fetchall()


def next_fencing(con: sqlite3.Connection) -> int:
    """Return a number that was never given out before, inside a transaction."""
    (number,) = con.execute("UPDATE fencing SET last = last + 1 RETURNING last").fetchone()
    return int(number)
