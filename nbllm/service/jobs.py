"""Jobs: flows that run without anybody waiting. The row in the store is the truth; here are the hands that do the work."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from pydantic import ValidationError

from nbllm.errors import NbllmError, StorageError
from nbllm.service.access import caller_of
from nbllm.service.caller import Caller
from nbllm.service.context import REQUEST_ID, Service
from nbllm.service.failures import log_failure
from nbllm.service.flow_events import problem_data
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_watch import Follower
from nbllm.service.job_view import webhook_body
from nbllm.service.ports import Delivery, Job, JobLease, JobStatus, JobStore
from nbllm.service.problems import ServiceProblem, problem_of
from nbllm.service.webhooks import RETRY_AFTER_S, Webhooks

T = TypeVar("T")
AT_ONCE = 8
"""Jobs that run at once in one process."""
LOOK_EVERY_S = 1.0
"""How often the queue is looked at, besides when a job comes here."""
SWEEP_EVERY_S = 10.0
_LAST_MOMENT_S = 1.0
_Ending = tuple[JobStatus, str | None, str | None]
"""Status, result, problem."""
_BY_CALLER = "by its caller"
_RETRY_S = (0.1, 0.5, 2.0, 5.0)
_log = logging.getLogger("nbllm.service")


class JobHands:
    """Takes jobs from the store while the service runs, and sends their webhooks.

    `stop` puts what still runs back into the queue. A process that is killed leaves its jobs to whoever sweeps next.
    """

    def __init__(self, service: Service, store: JobStore, webhooks: Webhooks, *, at_once: int = AT_ONCE) -> None:
        self._service = service
        self.store = store
        self._webhooks = webhooks
        self._at_once = at_once
        self._works: dict[str, asyncio.Task[_Ending]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to take jobs."""
        self._loops = [asyncio.create_task(self._take()), asyncio.create_task(self._look_after())]

    def taken(self, job: Job) -> None:
        """A job has come: look now."""
        del job
        self._bell.set()

    def cancel_here(self, job_id: str) -> None:
        """End a job at once if it runs here; its row says already that it is to end."""
        work = self._works.get(job_id)
        if work is not None:
            work.cancel(_BY_CALLER)

    async def stop(self) -> None:
        """Take nothing more, give jobs that are about to end a moment, and put the others back."""
        self._stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running, timeout=_LAST_MOMENT_S)
        for work in (*self._works.values(), *self._deliveries):
            work.cancel()
        await asyncio.gather(*self._running, *self._deliveries, return_exceptions=True)

    # ------------------------------------------------------------------ loops

    async def _take(self) -> None:
        while True:
            self._bell.clear()
            try:
                while len(self._running) < self._at_once and not self._service.draining:
                    lease = await self.store.claim()
                    if lease is None:
                        break
                    task = asyncio.create_task(self._run(lease))
                    self._running.add(task)
                    task.add_done_callback(self._ended)
            except NbllmError as exc:
                _log.warning("Jobs cannot be taken just now: %s", exc.summary)
            except Exception:  # a loop that ended would leave all jobs lying until the next start
                _log.exception("Jobs could not be taken.")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._bell.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A job could not be seen through.", exc_info=error)
        self._bell.set()

    async def _look_after(self) -> None:
        """Sweep, now and then, and send webhooks that are due."""
        swept_s = -SWEEP_EVERY_S
        while True:
            try:
                if time.monotonic() - swept_s >= SWEEP_EVERY_S:
                    swept_s = time.monotonic()
                    if await self.store.sweep():
                        self._bell.set()
                    await self._swept()
                for due in await self.store.due_webhooks(self._at_once):
                    task = asyncio.create_task(self._deliver(due))
                    self._deliveries.add(task)
                    task.add_done_callback(self._deliveries.discard)
            except NbllmError as exc:
                _log.warning("Jobs cannot be looked after just now: %s", exc.summary)
            except Exception:
                _log.exception("Jobs could not be looked after.")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _swept(self) -> None:
        """Do what is to be done now and then besides."""

    # ------------------------------------------------------------------ one job

    async def _run(self, lease: JobLease) -> None:
        job_id, store = lease.job.job_id, self.store
        work = self._works[job_id] = asyncio.create_task(self._work(lease.job))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=store.renew_every_s)
                if not work.done() and not await self._still_wanted(lease):
                    work.cancel(_BY_CALLER)
                    await asyncio.wait([work])
        finally:
            del self._works[job_id]
        if not work.cancelled():
            status, result, problem = work.result()
            await self._kept(lambda: store.finish(lease, status, result=result, problem=problem))
            _log.info("Job %s of %s: %s.", job_id, lease.job.flow, status)
        elif await _why(work) == _BY_CALLER:
            await self._kept(lambda: store.finish(lease, "cancelled"))
        else:
            with suppress(NbllmError):  # the sweep of another process finds it
                await store.give_back(lease)

    async def _still_wanted(self, lease: JobLease) -> bool:
        """Renew; False when the job is to end here. One that was lost to another process ends too, and writes nothing."""
        try:
            return await self.store.renew(lease) == "held"
        except NbllmError as exc:
            _log.warning("The lease of job %s could not be renewed: %s", lease.job.job_id, exc.summary)
        except Exception:
            _log.exception("The lease of job %s could not be renewed.", lease.job.job_id)
        return True

    async def _work(self, job: Job) -> _Ending:
        """Run the flow; return how it ended."""
        REQUEST_ID.set(job.job_id)
        try:
            caller, spec = self._caller(job), self._spec(job)
            arguments = spec.parse(json.loads(job.arguments))
            with self._service.paying(caller, "flow"):
                body = await self._service.runner.run(spec, arguments, Follower())
        except ValidationError:
            problem = ServiceProblem(422, "invalid-fields", "The flow takes other arguments now.").problem
        except Exception as exc:
            problem = problem_of(exc)
            log_failure(job.job_id, exc, problem, say_why=self._service.config.log_prompts)
        else:
            return "done", body.decode(), None
        return "failed", None, json.dumps(problem_data(problem, job.job_id))

    def _caller(self, job: Job) -> Caller:
        """Return whose job it is. A key that was revoked meanwhile pays for nothing any more."""
        if not self._service.keys.knows(job.caller):
            raise ServiceProblem(401, "unauthenticated", "The key of this job was revoked.")
        return caller_of(self._service, job.caller, job.tier)

    def _spec(self, job: Job) -> FlowSpec:
        spec: FlowSpec | None = self._service.flows.get(job.flow)
        if spec is None:
            raise ServiceProblem(404, "no-such-flow", "The flow is not served any more.")
        return spec

    async def _kept(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """Write an outcome, again and again while the disk refuses: it is paid for. None when the service stops before that."""
        for number in count():
            try:
                return await write()
            except StorageError as exc:
                _log.warning("The end of a job could not be written: %s", exc.summary)
                if self._stopping:
                    break
                await asyncio.sleep(_RETRY_S[min(number, len(_RETRY_S) - 1)])
        return None

    # ------------------------------------------------------------------ webhooks

    async def _deliver(self, due: Delivery) -> None:
        job = due.job
        assert job.webhook is not None  # noqa: S101 - only those that have one are due
        over, said = await self._webhooks.send(job.webhook, job.caller, f"job_{job.job_id}", webhook_body(job))
        again_at = None
        if not over and due.attempt <= len(RETRY_AFTER_S):
            again_at = time.time() + RETRY_AFTER_S[due.attempt - 1]
        _log.info("Webhook of job %s, try %d: %s.", job.job_id, due.attempt, said)
        with suppress(NbllmError):  # it is due again in a minute
            await self.store.webhook_settled(job.job_id, again_at=again_at)


async def _why(work: asyncio.Task[Any]) -> object:
    """Return what a task was cancelled with."""
    try:
        await work
    except asyncio.CancelledError as exc:
        return exc.args[0] if exc.args else None
    return None
