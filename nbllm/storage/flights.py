"""Leases with fencing numbers: who runs a key, for all processes on one home."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from nbllm.core.ports import Lease
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

WAIT_S = 0.5
SURE_S = 1.0
"""A lease of ours that has longer to live than this is not looked up again: clocks of one machine do not differ by so much."""
_LEAD = (
    "INSERT INTO leases (key, fence, process, expires_at) VALUES (?1, ?2, ?3, ?4) "
    "ON CONFLICT (key) DO UPDATE SET fence = max(?2, fence + 1), process = ?3, expires_at = ?4 "
    "WHERE expires_at <= ?5 OR process = ?6 RETURNING fence"
)
_LEAD_FRESH = "INSERT OR IGNORE INTO leases (key, fence, process, expires_at) VALUES (?1, ?2, ?3, ?4)"
_IS_MINE = "SELECT fence FROM leases WHERE key = ? AND fence = ? AND process = ?"


class SqliteFlights:
    """The Flights of one home. A lease that expired, or whose process ended, is free to take. All methods may raise StorageError.

    now: Unix time in seconds, the clock that the processes of one machine share.
    """

    def __init__(self, home: Home, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._home = home
        self._db = database
        self._now = now
        self._mine: dict[str, int] = {}

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another live process, or another caller of this one, holds it."""
        process, now = self._home.token, self._now()
        fence = await self._take(key, process, now, lease_s, "")
        if fence is None:
            # Held. By a process that ended, however it ended? Then it is free; the holder is named so that nobody is robbed twice.
            holder = self._db.read(lambda con: con.execute("SELECT process FROM leases WHERE key = ?", (key,)).fetchone())
            if holder is None or holder[0] == process or not self._home.dead([holder[0]]):
                return None
            fence = await self._take(key, process, now, lease_s, holder[0])
        if fence is None:
            return None
        self._mine[key] = fence
        return Lease(key, fence, now + lease_s)

    async def _take(self, key: str, process: str, now: float, lease_s: float, dead: str) -> int | None:
        """Take a lease that is free or held by the process `dead`; return its fence, None when it is neither."""
        values = (key, time.time_ns(), process, now + lease_s, now, dead)
        try:
            row = await self._db.run(
                lambda con: _first_row(con.execute(_LEAD, values)), wait_s=WAIT_S, many=_take_many, asked=values
            )
        except asyncio.CancelledError:
            # The statement may be on its way on the writer thread: nobody would hold what it takes.
            undo = "DELETE FROM leases WHERE key = ? AND process = ? AND expires_at = ?"
            self._db.defer(lambda con: _nothing(con.execute(undo, (key, process, now + lease_s))))
            raise
        return None if row is None else int(row[0])

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost. One that expired and that nobody took is still this one."""
        expires_at = self._now() + lease_s
        update = "UPDATE leases SET expires_at = ? WHERE key = ? AND fence = ?"

        def run(con: sqlite3.Connection) -> bool:
            return con.execute(update, (expires_at, lease.key, lease.fence)).rowcount == 1

        return Lease(lease.key, lease.fence, expires_at) if await self._db.run(run, wait_s=WAIT_S) else None

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one and has not expired."""
        if self._home.alive and self._mine.get(lease.key) == lease.fence and lease.expires_at > self._now() + SURE_S:
            return True  # nobody takes a lease of a living process before it expires
        select = "SELECT expires_at FROM leases WHERE key = ? AND fence = ?"
        row = self._db.read(lambda con: con.execute(select, (lease.key, lease.fence)).fetchone())
        return row is not None and row[0] > self._now()

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error."""
        if self._mine.get(lease.key) == lease.fence:
            del self._mine[lease.key]
        # Not waited for: what a kill leaves behind is the lease of a process that ended, which is free.
        self._db.ride("DELETE FROM leases WHERE key = ? AND fence = ?", (lease.key, lease.fence))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def _take_many(con: sqlite3.Connection, asked: list[tuple[Any, ...]]) -> list[tuple[int] | None]:
    """Take the leases of one turn: as a rule nobody has any of them, which one statement for all of them finds out."""
    if con.executemany(_LEAD_FRESH, [values[:4] for values in asked]).rowcount == len(asked):
        return [(values[1],) for values in asked]
    rows, taken = [], set[str]()
    for values in asked:
        key = values[0]
        mine = None if key in taken else _first_row(con.execute(_IS_MINE, values[:3]))
        row = mine or _first_row(con.execute(_LEAD, values))
        if row is not None:
            taken.add(key)
        rows.append(row)
    return rows


def _first_row(cursor: sqlite3.Cursor) -> tuple[int] | None:
    rows: list[tuple[int]] = cursor.fetchall()  # to its end: only then is the statement over
    return rows[0] if rows else None


def _nothing(_: object) -> None:
    return None
