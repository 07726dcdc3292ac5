"""The JobStore of all replicas and workers, on Redis. A lease is a time on Redis's clock, renewed while its job runs.

The row is the truth. Workers are told by `announce` that there is something to do; what they are told may be lost or come twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from hashlib import sha256
from typing import Any, cast
from uuid import uuid4

from nbllm.errors import StorageError
from nbllm.service import redis_jobs_lua as lua
from nbllm.service.job_store import DIED, MOST_KEPT_BYTES, MOST_LAPSES, WEBHOOK_RETRY_S, full, too_much
from nbllm.service.ports import Delivery, Job, JobLease, JobStatus, LeaseState, NewJob, Standing
from nbllm.storage.redis_link import Link, Script

LEASE_S = 10.0
TELL_AGAIN_S = 15.0
MESSAGES = "celery:jobs"
"""The list in which what workers are told waits for them. Never more is put there than there are jobs that wait."""
_FLOATS = frozenset({"created_at", "started_at", "finished_at", "expires_at"})
_COUNTS = frozenset({"priority", "attempts", "lapses"})
_NAMES = frozenset(field.name for field in fields(Job))


class RedisJobs:
    """Jobs, kept for keep_s seconds after their end. now: Unix time of the rows, Redis's own unless it is given.

    lease_s: a worker that gives no sign of life for so long counts as dead. announce: tells workers of a queued job; what it
    raises is no error, since a job that nobody takes is announced again.
    """

    def __init__(
        self,
        link: Link,
        *,
        keep_s: float = 86400.0,
        most_lapses: int = MOST_LAPSES,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        lease_s: float = LEASE_S,
        now: Callable[[], float] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._link = link
        self._prefix = link.key("jobs:")
        self._messages = link.key(MESSAGES)
        self._keep_s = keep_s
        self._most_lapses = most_lapses
        self._most_kept_bytes = most_kept_bytes
        self._lease_s = lease_s
        self._given_now = now
        self._announce = announce
        self.renew_every_s = min(1.0, lease_s / 4)

    async def add(self, job: NewJob, *, most_queued: int, most_of_caller: int) -> Job:
        """See JobStore."""
        values: dict[str, Any] = {
            "tier": job.tier,
            "flow": job.flow,
            "arguments": job.arguments,
            "priority": job.priority,
        }
        if job.webhook is not None:
            values["webhook"] = job.webhook
        flat = [part for pair in values.items() for part in pair]
        where = _list(job.caller, job.flow)
        limits = (most_queued, most_of_caller, self._most_kept_bytes, len(job.arguments.encode()), self._now())
        got = await self._run(lua.ADD, uuid4().hex, job.caller, where, *limits, *flat, keys=[self._messages])
        if got == b"kept":
            raise too_much(self._most_kept_bytes)
        if got in (b"full", b"mine"):
            raise full(most_queued) if got == b"full" else full(most_of_caller, of_caller=True)
        row, missing = got
        added = _job(row)
        if missing > 0:
            await self._tell([added.job_id])
        return added

    async def get(self, caller: str, job_id: str) -> Job | None:
        """See JobStore."""
        row = await self._link.call("HGETALL", f"{self._prefix}job:{job_id}")
        if not row:
            return None
        job = _job([part for pair in row.items() for part in pair])
        return job if job.caller == caller else None

    async def list(self, caller: str, flow: str, *, limit: int, before: str | None = None) -> Sequence[Job]:
        """See JobStore."""
        rows = await self._run(lua.LIST, caller, _list(caller, flow), before or "", limit)
        return [_job([b"arguments", b"", *row]) for row in rows]

    async def claim(self, job_id: str | None = None) -> JobLease | None:
        """See JobStore."""
        args = [uuid4().hex, job_id or "", self._lease_s, self._now()]
        asking = asyncio.ensure_future(self._run(lua.CLAIM, *args, keys=[self._link.key("fence")]))
        try:
            row = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._return)
            raise
        return _lease(row)

    def _return(self, done: asyncio.Future[Any]) -> None:
        """Put back what nobody will run."""
        if not done.cancelled() and done.exception() is None and (lease := _lease(done.result())) is not None:
            with suppress(StorageError):
                self._link.submit("EVAL", lua.BACK.text, 1, self._messages, self._prefix, *self._back(lease))

    async def renew(self, lease: JobLease) -> LeaseState:
        """See JobStore. A lease that lapsed, but that nobody swept, is held again."""
        state = await self._run(lua.RENEW, lease.job.job_id, lease.fencing, self._lease_s)
        return cast("LeaseState", state.decode())

    async def finish(self, lease: JobLease, status: JobStatus, *, result: str | None = None, problem: str | None = None) -> bool:
        """See JobStore."""
        how = [self._now(), self._keep_s, _maybe(result), _maybe(problem), uuid4().hex]
        return bool(await self._run(lua.FINISH, lease.job.job_id, lease.fencing, status, *how))

    async def give_back(self, lease: JobLease) -> bool:
        """See JobStore."""
        given, missing = await self._run(lua.BACK, *self._back(lease), keys=[self._messages])
        if given and missing > 0:
            await self._tell([lease.job.job_id])
        return bool(given)

    def _back(self, lease: JobLease) -> Sequence[Any]:
        return lease.job.job_id, lease.fencing, self._now(), self._keep_s, uuid4().hex

    async def cancel(self, caller: str, job_id: str) -> Job | None:
        """See JobStore."""
        row = await self._run(lua.CANCEL, job_id, caller, self._now(), self._keep_s)
        return None if row is None else _job(row)

    async def sweep(self) -> Sequence[str]:
        """See JobStore. Workers are told of what was put back, and again of what has been waiting."""
        args = [self._now(), self._keep_s, self._most_lapses, "=" + DIED, TELL_AGAIN_S, self._lease_s]
        back, tell = await self._run(lua.SWEEP, *args, keys=[self._messages])
        await self._tell(job_id.decode() for job_id in tell)
        return [job_id.decode() for job_id in back]

    async def standing(self) -> Standing:
        """See JobStore."""
        queued, running, oldest_at = await self._run(lua.STANDING)
        return Standing(int(queued), int(running), None if oldest_at is None else float(oldest_at))

    async def due_webhooks(self, limit: int) -> Sequence[Delivery]:
        """See JobStore."""
        due = await self._run(lua.DUE, self._now(), WEBHOOK_RETRY_S, limit)
        return [Delivery(_job(row), int(attempt)) for attempt, row in due]

    async def webhook_settled(self, job_id: str, *, again_at: float | None = None) -> None:
        """See JobStore."""
        here = time.time() if self._given_now is None else self._given_now()
        await self._run(lua.HOOK, job_id, "" if again_at is None else again_at - here, self._now())

    async def aclose(self) -> None:
        """See JobStore. The link is closed by whoever opened it."""

    async def _tell(self, job_ids: Iterable[str]) -> None:
        """Announce jobs, in a thread: the broker may be slow to take it."""
        announce, ids = self._announce, tuple(job_ids)
        if announce is None or not ids:
            return

        def tell() -> None:
            for job_id in ids:
                announce(job_id)

        with suppress(Exception):  # whatever a broker raises: the sweeper announces it again
            await asyncio.to_thread(tell)

    def _now(self) -> float | str:
        """Return what scripts are given: nothing, and they go by Redis's clock, which is one for all replicas."""
        return "" if self._given_now is None else self._given_now()

    async def _run(self, script: Script, *args: Any, keys: Sequence[str] = ()) -> Any:
        return await self._link.script(script, keys, [self._prefix, *args])


def _list(caller: str, flow: str) -> str:
    return sha256(json.dumps([caller, flow]).encode()).hexdigest()


def _maybe(text: str | None) -> str:
    return "" if text is None else "=" + text


def _pairs(row: Sequence[bytes]) -> dict[str, str]:
    return {row[index].decode(): row[index + 1].decode() for index in range(0, len(row), 2)}


def _job(row: Sequence[bytes]) -> Job:
    values: dict[str, Any] = {}
    for name, text in _pairs(row).items():
        if name in _FLOATS:
            values[name] = float(text)
        elif name in _COUNTS:
            values[name] = int(text)
        elif name in _NAMES:
            values[name] = text == "1" if name == "cancel_requested" else text
    return Job(**values)


def _lease(row: Sequence[bytes] | None) -> JobLease | None:
    return None if row is None else JobLease(_job(row), int(_pairs(row)["fencing"]))
