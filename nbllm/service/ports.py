"""What a service keeps between requests, as Protocols: idempotency keys and jobs. One conformance suite holds for all backends.

A run and a job are leased: who holds the lease may write the outcome, and when its process dies others see that. Times are Unix
seconds; how a lease is kept alive (an OS lock, a time that is renewed) is the backend's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from nbllm.errors import NbllmError

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[JobStatus, ...] = ("done", "failed", "cancelled")

# ---------------------------------------------------------------------------------------------------- idempotency


@dataclass(frozen=True)
class Stored:
    """A response as it was sent: replayed byte for byte. headers: those that belong to the outcome, not to the connection."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """The right to run for a key and to write its outcome."""

    caller: str
    key: str
    fencing: int


class Blocked(Enum):
    """Why a key does not let a request through."""

    IN_FLIGHT = "in flight"
    UNKNOWN = "outcome unknown"
    """The process that ran it died before the end: it may or may not have done its work."""
    OTHER_REQUEST = "other request"


class IdempotencyStore(Protocol):
    """Outcomes by caller and key. Raises StorageError where it cannot know."""

    renew_every_s: float | None
    """How often `renew` is to be called while a run goes on; None: never, the lease lives as long as the process."""

    async def begin(self, caller: str, key: str, fingerprint: str, *, again: bool = False) -> Claim | Stored | Blocked:
        """Claim a key for a request, or return what came of it. again: run once more although the outcome is unknown."""

    async def renew(self, claim: Claim) -> bool:
        """Keep the lease; False when it is lost."""

    async def finish(self, claim: Claim, outcome: Stored) -> bool:
        """Keep an outcome; False when the claim is no longer the current one, and nothing was kept."""

    async def release(self, claim: Claim) -> None:
        """Free the key, as if it had never been used, if the claim is still the current one."""

    async def aclose(self) -> None:
        """Let go of what is open."""


# ---------------------------------------------------------------------------------------------------- jobs


class JobsFull(NbllmError):
    """No more jobs are taken just now."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to be kept. arguments: JSON text of the flow's arguments by name. priority: higher goes first."""

    caller: str
    tier: str
    flow: str
    arguments: str
    priority: int = 0
    webhook: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it stands. result, problem: JSON texts of a job that ended. expires_at: when it is forgotten.

    arguments: "" once it ended. Lists leave out arguments, result and problem.
    """

    job_id: str
    caller: str
    tier: str
    flow: str
    arguments: str
    status: JobStatus
    priority: int
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    attempts: int = 0
    """How often it was begun."""
    lapses: int = 0
    """How often a process died over it."""
    cancel_requested: bool = False
    result: str | None = None
    problem: str | None = None
    webhook: str | None = None


@dataclass(frozen=True)
class JobLease:
    """The right to run a job and to write its outcome."""

    job: Job
    fencing: int


@dataclass(frozen=True)
class Delivery:
    """A webhook that is due. attempt: from 1."""

    job: Job
    attempt: int


@dataclass(frozen=True)
class Standing:
    """How many jobs wait and run. oldest_at: when the oldest of those that wait was made, None when none waits."""

    queued: int = 0
    running: int = 0
    oldest_at: float | None = None

    def oldest_s(self, now: float) -> float:
        """Return for how many seconds the oldest has waited, 0 when none does. now: Unix time."""
        return 0.0 if self.oldest_at is None else max(0.0, now - self.oldest_at)


LeaseState = Literal["held", "cancel", "lost"]
"""cancel: still held, and the job's caller wants it ended."""


class JobStore(Protocol):
    """Jobs, by caller. Each accepted job runs at least once, whatever dies. Raises StorageError where it cannot know."""

    renew_every_s: float
    """How often `renew` is to be called while a job runs: it says too when the job is to end."""

    async def add(self, job: NewJob, *, most_queued: int, most_of_caller: int) -> Job:
        """Take a job. Raises JobsFull when as many wait already, of all callers or of this one."""

    async def get(self, caller: str, job_id: str) -> Job | None:
        """Return a job of this caller's."""

    async def list(self, caller: str, flow: str, *, limit: int, before: str | None = None) -> Sequence[Job]:
        """Return jobs of this caller's for a flow, newest first; before: only those older than that job."""

    async def claim(self, job_id: str | None = None) -> JobLease | None:
        """Take the next queued job, or this one; None when there is none. Highest priority first, then oldest."""

    async def renew(self, lease: JobLease) -> LeaseState:
        """Keep the lease."""

    async def finish(self, lease: JobLease, status: JobStatus, *, result: str | None = None, problem: str | None = None) -> bool:
        """Write how it ended; False when the lease is lost, and nothing was written."""

    async def give_back(self, lease: JobLease) -> bool:
        """Put it back into the queue, at its place; False when the lease is lost. One that is to be cancelled is cancelled."""

    async def cancel(self, caller: str, job_id: str) -> Job | None:
        """Cancel a queued job, ask for the end of a running one, leave one that ended as it is; return it, None for none."""

    async def sweep(self) -> Sequence[str]:
        """Put jobs of dead processes back into the queue, fail those that keep killing theirs, forget old ones; return the ids
        of those put back.
        """

    async def standing(self) -> Standing:
        """Return how many jobs wait and run, of all callers."""

    async def due_webhooks(self, limit: int) -> Sequence[Delivery]:
        """Return webhooks to be sent now. Each is due again a minute later unless it is settled: sent at least once."""

    async def webhook_settled(self, job_id: str, *, again_at: float | None = None) -> None:
        """A webhook was delivered or given up; again_at: it failed and is due again then."""

    async def aclose(self) -> None:
        """Let go of what is open."""
