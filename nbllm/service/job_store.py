"""The JobStore of one machine, in `service.db`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar
from uuid import uuid4

from nbllm.service.embedded import WAIT_S, next_fencing
from nbllm.service.ports import Delivery, Job, JobLease, JobsFull, JobStatus, LeaseState, NewJob, Standing
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database

T = TypeVar("T")
MOST_LAPSES = 20
"""A job over which this many processes died has most likely killed them."""
WEBHOOK_RETRY_S = 60.0
MOST_KEPT_BYTES = 256_000_000
"""What the jobs of one caller may hold, ended ones included, until they are forgotten."""
ROW_BYTES = 500
"""What a job holds besides its texts, roughly."""
UNSHOWN = {"arguments": "''", "result": "NULL", "problem": "NULL"}
"""What lists leave out: reading it would cost more than all that they show."""
_NAMES = tuple(field.name for field in fields(Job))
_COLUMNS = ", ".join(_NAMES)
_LISTED = ", ".join(UNSHOWN.get(name, name) for name in _NAMES)
_MINE = "job_id = ? AND fencing = ? AND owner = ? AND status = 'running'"
_ADD = (
    "INSERT INTO jobs (job_id, caller, tier, flow, arguments, status, priority, created_at, webhook, kept_bytes) "
    "VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)"
)
_BEGIN = "UPDATE jobs SET status = 'running', owner = ?, fencing = ?, attempts = attempts + 1, started_at = ? WHERE job_id = ?"
_SEND = "UPDATE jobs SET webhook_attempts = webhook_attempts + 1, webhook_at = ? WHERE job_id = ? RETURNING webhook_attempts"
_END = (
    "UPDATE jobs SET status = ?, arguments = '', kept_bytes = ?, result = ?, problem = ?, finished_at = ?, expires_at = ?, "
    "owner = NULL, "
    "webhook_at = CASE WHEN webhook IS NULL THEN NULL ELSE ? END WHERE "
)
DIED = (
    '{"status": 500, "title": "Worker died", "detail": "Processes died over this job again and again; it is not tried any more."}'
)


def full(most: int, *, of_caller: bool = False) -> JobsFull:
    """Return the error that says that as many jobs wait as may."""
    whose = "jobs of this key" if of_caller else "jobs"
    return JobsFull(f"{most} {whose} are waiting; no more are taken just now.", hint="Try again later.")


def too_much(most_bytes: int) -> JobsFull:
    """Return the error that says that a caller's jobs hold as much as they may."""
    said = f"The jobs of this key hold as much as may be kept, {most_bytes / 1e6:.0f} MB."
    return JobsFull(said, hint="Jobs that ended are forgotten after a time.")


class SqliteJobs:
    """Jobs, kept for `keep_s` seconds after their end. now: Unix time.

    What a job was asked is dropped at its end. A lease ends with its holder's process, by its OS lock. A job whose process died
    goes behind those of its priority that never failed, so that one that kills its process does not keep the others from running.
    """

    renew_every_s = 0.5

    def __init__(
        self,
        home: Home,
        database: Database,
        *,
        keep_s: float = 86400.0,
        most_lapses: int = MOST_LAPSES,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._db = database
        self._keep_s = keep_s
        self._most_lapses = most_lapses
        self._most_kept_bytes = most_kept_bytes
        self._now = now

    async def add(self, job: NewJob, *, most_queued: int, most_of_caller: int) -> Job:
        """See JobStore."""
        job_id = uuid4().hex

        def run(con: sqlite3.Connection) -> Job:
            queued = "SELECT count(*) FROM jobs WHERE status = 'queued'"
            if con.execute(queued).fetchone()[0] >= most_queued:
                raise full(most_queued)
            if con.execute(f"{queued} AND caller = ?", (job.caller,)).fetchone()[0] >= most_of_caller:
                raise full(most_of_caller, of_caller=True)
            size = ROW_BYTES + len(job.arguments)
            (kept,) = con.execute("SELECT total(kept_bytes) FROM jobs WHERE caller = ?", (job.caller,)).fetchone()
            if kept + size > self._most_kept_bytes:
                raise too_much(self._most_kept_bytes)
            values = (job_id, job.caller, job.tier, job.flow, job.arguments, job.priority, self._now(), job.webhook, size)
            con.execute(_ADD, values)
            return _must(con, job_id)

        return await self._run(run, pages=1 + len(job.arguments) // 4096)

    async def get(self, caller: str, job_id: str) -> Job | None:
        """See JobStore."""
        return self._db.read(lambda con: _one(con, "job_id = ? AND caller = ?", (job_id, caller)))

    async def list(self, caller: str, flow: str, *, limit: int, before: str | None = None) -> Sequence[Job]:
        """See JobStore."""
        where, values = "caller = ? AND flow = ?", [caller, flow]
        if before is not None:
            where += " AND seq < (SELECT seq FROM jobs WHERE job_id = ? AND caller = ?)"
            values += [before, caller]
        return self._db.read(lambda con: _some(con, f"{where} ORDER BY seq DESC LIMIT ?", (*values, limit), _LISTED))

    async def claim(self, job_id: str | None = None) -> JobLease | None:
        """See JobStore."""
        me = self._home.token
        which = "job_id = ?" if job_id is not None else "1 ORDER BY priority DESC, lapses, seq LIMIT 1"
        made: list[JobLease] = []

        def run(con: sqlite3.Connection) -> JobLease | None:
            sql = f"SELECT job_id FROM jobs WHERE status = 'queued' AND {which}"  # noqa: S608 - our own
            row = con.execute(sql, () if job_id is None else (job_id,)).fetchone()
            if row is None:
                return None
            fencing = next_fencing(con)
            con.execute(_BEGIN, (me, fencing, self._now(), row[0]))
            made.append(JobLease(_must(con, row[0]), fencing))
            return made[-1]

        try:
            return await self._run(run)
        except BaseException:
            # The transaction may be on its way on the writer thread, and nobody will run what it took.
            self._db.defer(lambda con: [self._back(con, lease) for lease in made])
            raise

    async def renew(self, lease: JobLease) -> LeaseState:
        """See JobStore. The lease lives as long as the process; this asks how things stand."""
        sql = f"SELECT cancel_requested FROM jobs WHERE {_MINE}"  # noqa: S608 - our own
        row = self._db.read(lambda con: con.execute(sql, self._of(lease)).fetchone())
        return "lost" if row is None else "cancel" if row[0] else "held"

    async def finish(self, lease: JobLease, status: JobStatus, *, result: str | None = None, problem: str | None = None) -> bool:
        """See JobStore."""

        def run(con: sqlite3.Connection) -> bool:
            return _end(con, _MINE, self._of(lease), status, self._now(), self._keep_s, result=result, problem=problem) == 1

        return await self._run(run, pages=1 + len(result or "") // 4096)

    async def give_back(self, lease: JobLease) -> bool:
        """See JobStore."""
        return await self._run(lambda con: self._back(con, lease))

    def _back(self, con: sqlite3.Connection, lease: JobLease) -> bool:
        cancelled = _end(con, f"{_MINE} AND cancel_requested", self._of(lease), "cancelled", self._now(), self._keep_s)
        sql = f"UPDATE jobs SET status = 'queued', owner = NULL, started_at = NULL WHERE {_MINE}"  # noqa: S608 - our own
        return cancelled == 1 or con.execute(sql, self._of(lease)).rowcount == 1

    async def cancel(self, caller: str, job_id: str) -> Job | None:
        """See JobStore."""

        def run(con: sqlite3.Connection) -> Job | None:
            mine = "job_id = ? AND caller = ?"
            _end(con, f"{mine} AND status = 'queued'", (job_id, caller), "cancelled", self._now(), self._keep_s)
            con.execute(f"UPDATE jobs SET cancel_requested = 1 WHERE {mine} AND status = 'running'", (job_id, caller))  # noqa: S608
            return _one(con, mine, (job_id, caller))

        return await self._run(run)

    async def sweep(self) -> Sequence[str]:
        """See JobStore."""

        def run(con: sqlite3.Connection) -> Sequence[str]:
            now = self._now()
            con.execute("DELETE FROM jobs WHERE expires_at < ?", (now,))
            owners = [owner for (owner,) in con.execute("SELECT DISTINCT owner FROM jobs WHERE status = 'running'")]
            back: list[str] = []
            for owner in self._home.dead(owners):
                lapsed = "status = 'running' AND owner = ?"
                _end(con, f"{lapsed} AND cancel_requested", (owner,), "cancelled", now, self._keep_s)
                poison = (owner, self._most_lapses - 1)
                _end(con, f"{lapsed} AND lapses >= ?", poison, "failed", now, self._keep_s, problem=DIED)
                sql = "UPDATE jobs SET status = 'queued', owner = NULL, started_at = NULL, lapses = lapses + 1"
                back += [row[0] for row in con.execute(f"{sql} WHERE {lapsed} RETURNING job_id", (owner,)).fetchall()]
            return back

        return await self._run(run)

    async def standing(self) -> Standing:
        """See JobStore."""
        sql = "SELECT status, count(*), min(created_at) FROM jobs WHERE status IN ('queued', 'running') GROUP BY status"
        found = {status: rest for status, *rest in self._db.read(lambda con: con.execute(sql).fetchall())}
        queued, oldest_at = found.get("queued", (0, None))
        return Standing(queued, found.get("running", (0,))[0], oldest_at)

    async def due_webhooks(self, limit: int) -> Sequence[Delivery]:
        """See JobStore."""

        def run(con: sqlite3.Connection) -> Sequence[Delivery]:
            now = self._now()
            due = con.execute("SELECT job_id FROM jobs WHERE webhook_at <= ? ORDER BY webhook_at LIMIT ?", (now, limit)).fetchall()
            found: list[Delivery] = []
            for (job_id,) in due:
                (attempt,) = con.execute(_SEND, (now + WEBHOOK_RETRY_S, job_id)).fetchone()
                found.append(Delivery(_must(con, job_id), attempt))
            return found

        return await self._run(run)

    async def webhook_settled(self, job_id: str, *, again_at: float | None = None) -> None:
        """See JobStore."""
        await self._run(lambda con: con.execute("UPDATE jobs SET webhook_at = ? WHERE job_id = ?", (again_at, job_id)).rowcount)

    async def aclose(self) -> None:
        """See JobStore. The file is closed by whoever opened it."""

    async def _run(self, run: Callable[[sqlite3.Connection], T], *, pages: int = 1) -> T:
        return await self._db.run(run, wait_s=WAIT_S, pages=pages)

    def _of(self, lease: JobLease) -> tuple[str, int, str]:
        return lease.job.job_id, lease.fencing, self._home.token


def _end(
    con: sqlite3.Connection,
    where: str,
    values: tuple[Any, ...],
    status: JobStatus,
    now: float,
    keep_s: float,
    *,
    result: str | None = None,
    problem: str | None = None,
) -> int:
    """Write how the jobs that `where` names ended; their webhooks are due. Return how many there were."""
    kept_bytes = ROW_BYTES + len(result or "") + len(problem or "")
    return con.execute(_END + where, (status, kept_bytes, result, problem, now, now + keep_s, now, *values)).rowcount


def _some(con: sqlite3.Connection, where: str, values: Sequence[Any], columns: str = _COLUMNS) -> list[Job]:
    found = []
    for row in con.execute(f"SELECT {columns} FROM jobs WHERE {where}", values).fetchall():  # noqa: S608 - our own
        named = dict(zip(_NAMES, row, strict=True))
        found.append(Job(**named | {"cancel_requested": bool(named["cancel_requested"])}))
    return found


def _one(con: sqlite3.Connection, where: str, values: Sequence[Any]) -> Job | None:
    found = _some(con, where, values)
    return found[0] if found else None


def _must(con: sqlite3.Connection, job_id: str) -> Job:
    (job,) = _some(con, "job_id = ?", (job_id,))
    return job
