"""Leases with fencing numbers: who runs a key, for all processes on one home."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from nbllm.core.ports import Lease
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

WAIT_S = 0.5


class SqliteFlights:
    """The Flights of one home. A lease that expired, or whose process ended, is free to take. All methods may raise StorageError.

    now: Unix time in seconds, the clock that the processes of one machine share.
    """

    def __init__(self, home: Home, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._home = home
        self._db = database
        self._now = now

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another live process, or another caller of this one, holds it."""
        process = self._home.token

        def run(con: sqlite3.Connection) -> Lease | None:
            now = self._now()
            row = con.execute("SELECT process, expires_at FROM leases WHERE key = ?", (key,)).fetchone()
            if row and row[1] > now and not (row[0] != process and self._home.dead([row[0]])):
                return None
            (fence,) = con.execute("UPDATE fences SET last = last + 1 RETURNING last").fetchone()
            lease = Lease(key, fence, now + lease_s)
            con.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (key, fence, process, lease.expires_at))
            return lease

        return await self._db.run(run, wait_s=WAIT_S)

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost. One that expired and that nobody took is still this one."""
        expires_at = self._now() + lease_s
        update = "UPDATE leases SET expires_at = ? WHERE key = ? AND fence = ?"

        def run(con: sqlite3.Connection) -> bool:
            return con.execute(update, (expires_at, lease.key, lease.fence)).rowcount == 1

        return Lease(lease.key, lease.fence, expires_at) if await self._db.run(run, wait_s=WAIT_S) else None

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one and has not expired."""
        select = "SELECT expires_at FROM leases WHERE key = ? AND fence = ?"
        row = self._db.read(lambda con: con.execute(select, (lease.key, lease.fence)).fetchone())
        return row is not None and row[0] > self._now()

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error."""

        def run(con: sqlite3.Connection) -> None:
            con.execute("DELETE FROM leases WHERE key = ? AND fence = ?", (lease.key, lease.fence))

        await self._db.run(run, wait_s=WAIT_S, kept=True)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
