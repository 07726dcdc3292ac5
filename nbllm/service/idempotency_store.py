"""The IdempotencyStore of one machine, in `service.db`."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable

from nbllm.service.embedded import WAIT_S, next_fencing
from nbllm.service.ports import Blocked, Claim, Stored
from nbllm.service.problems import ServiceProblem
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

DAY_S = 86400.0
MOST_KEPT_BYTES = 256_000_000
"""What the answers of one caller may hold until they are forgotten."""
ROW_BYTES = 300
"""What an outcome holds besides its body, roughly."""
_COUNT_EVERY_S = 60.0
_INSERT = "INSERT OR REPLACE INTO outcomes (caller, key, fingerprint, fencing, owner, expires_at) VALUES (?, ?, ?, ?, ?, ?)"
_MINE = "caller = ? AND key = ? AND fencing = ? AND owner = ?"


class OutcomesFull(ServiceProblem):
    """A caller's kept answers hold as much as they may."""

    def __init__(self, kept_bytes: float) -> None:
        detail = f"{kept_bytes / 1e6:.0f} MB of answers are kept for this key. Leave Idempotency-Key out, or wait."
        super().__init__(503, "idempotency-full", "No more answers can be kept.", detail, retry_after_s=600.0)


class SqliteIdempotency:
    """Outcomes by caller and key for `keep_s` seconds. now: Unix time.

    A claim is alive while the process that made it is, and this object knows it: one that could be neither kept nor freed, on a
    full disk, say, counts as lost, so that its key says "outcome unknown" instead of "in flight" for ever.
    """

    renew_every_s: float | None = None

    def __init__(
        self,
        home: Home,
        database: Database,
        *,
        keep_s: float = DAY_S,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._db = database
        self._keep_s = keep_s
        self._most_kept_bytes = most_kept_bytes
        self._now = now
        self._running: set[int] = set()
        self._kept: dict[str, tuple[float, float]] = {}
        """Caller -> bytes that its outcomes hold, and when that was counted."""

    async def begin(self, caller: str, key: str, fingerprint: str, *, again: bool = False) -> Claim | Stored | Blocked:
        """See IdempotencyStore. The first transaction that asks gets the claim."""
        me = self._home.token
        made: list[Claim] = []

        def run(con: sqlite3.Connection) -> Claim | Stored | Blocked:
            now = self._now()
            con.execute("DELETE FROM outcomes WHERE expires_at < ? AND (owner IS NULL OR owner <> ?)", (now, me))
            sql = "SELECT fingerprint, fencing, owner, status, headers, body FROM outcomes WHERE caller = ? AND key = ?"
            row = con.execute(sql, (caller, key)).fetchone()
            if row is not None:
                if row[0] != fingerprint:
                    return Blocked.OTHER_REQUEST
                if row[3] is not None:
                    return Stored(row[3], tuple((n, v) for n, v in json.loads(row[4])), row[5])
                if self._is_running(row[2], row[1]):
                    return Blocked.IN_FLIGHT
                if not again:
                    return Blocked.UNKNOWN
            self._refuse_hoarder(con, caller, now)
            fencing = next_fencing(con)
            con.execute(_INSERT, (caller, key, fingerprint, fencing, me, now + self._keep_s))
            self._running.add(fencing)  # at once: others may ask before this transaction's caller goes on
            made.append(Claim(caller, key, fencing))
            return made[-1]

        try:
            return await self._db.run(run, wait_s=WAIT_S)
        except BaseException:
            # The transaction may be on its way on the writer thread, and nobody will run for its claim.
            self._db.defer(lambda con: self._drop(con, *made))
            raise

    def _drop(self, con: sqlite3.Connection, *claims: Claim) -> None:
        for claim in claims:
            con.execute(f"DELETE FROM outcomes WHERE {_MINE}", self._of(claim))  # noqa: S608 - our own
            self._running.discard(claim.fencing)

    def _refuse_hoarder(self, con: sqlite3.Connection, caller: str, now: float) -> None:
        """Raise OutcomesFull when a caller's answers hold too much. They are counted once a minute, for that takes long."""
        kept, counted_at = self._kept.get(caller, (0, float("-inf")))
        if not counted_at <= now < counted_at + _COUNT_EVERY_S:
            sql = "SELECT total(length(body)) + count(*) * ? FROM outcomes WHERE caller = ?"
            ((kept,),) = con.execute(sql, (ROW_BYTES, caller)).fetchall()
            self._kept[caller] = kept, now
        if kept > self._most_kept_bytes:
            raise OutcomesFull(kept)

    def _is_running(self, owner: str, fencing: int) -> bool:
        return fencing in self._running if owner == self._home.token else not self._home.dead([owner])

    async def renew(self, claim: Claim) -> bool:
        """See IdempotencyStore. The lease lives as long as the process."""
        return claim.fencing in self._running

    async def finish(self, claim: Claim, outcome: Stored) -> bool:
        """See IdempotencyStore. It is kept for keep_s seconds from here."""

        def run(con: sqlite3.Connection) -> bool:
            values = (outcome.status, json.dumps(outcome.headers), outcome.body, self._now() + self._keep_s, *self._of(claim))
            sql = f"UPDATE outcomes SET status = ?, headers = ?, body = ?, owner = NULL, expires_at = ? WHERE {_MINE}"  # noqa: S608 - our own
            return con.execute(sql, values).rowcount == 1

        kept, counted_at = self._kept.get(claim.caller, (0, float("-inf")))
        self._kept[claim.caller] = kept + len(outcome.body) + ROW_BYTES, counted_at
        try:
            return await self._db.run(run, wait_s=WAIT_S, kept=True, pages=1 + len(outcome.body) // 4096)
        finally:
            self._running.discard(claim.fencing)

    async def release(self, claim: Claim) -> None:
        """See IdempotencyStore."""
        try:
            await self._db.run(lambda con: self._drop(con, claim), wait_s=WAIT_S, kept=True)
        finally:
            self._running.discard(claim.fencing)

    def _of(self, claim: Claim) -> tuple[str, str, int, str]:
        return claim.caller, claim.key, claim.fencing, self._home.token

    async def aclose(self) -> None:
        """See IdempotencyStore. The file is closed by whoever opened it."""
        self._running.clear()
