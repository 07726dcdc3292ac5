"""A job as its caller sees it: over HTTP and in its webhook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model

from nbllm.service.flow_specs import FlowSpec
from nbllm.service.ports import Job, JobStatus


class JobBody(BaseModel):
    """A job. result: what the flow returned, when it is done; error: a problem (RFC 9457), when it failed."""

    model_config = ConfigDict(title="Job")

    id: str
    flow: str
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(default=None, description="When the job and its result are forgotten.")
    attempts: int = Field(default=0, description="How often it was begun: more than once when a process died or ended over it.")
    cancel_requested: bool = False
    result: Any = None
    error: dict[str, Any] | None = None


def job_model(spec: FlowSpec) -> type[BaseModel]:
    """Return the model of a flow's jobs, with its own type of result, for the documentation."""
    title = spec.arguments.__name__.removesuffix("Arguments")
    return create_model(f"{title}Job", __base__=JobBody, result=(spec.result_type | None, None))


def job_json(job: Job) -> bytes:
    """Return a job as JSON; its result is byte for byte what was kept."""
    return msgspec.json.encode(_shown(job))


def jobs_json(jobs: list[Job], *, more: bool) -> bytes:
    """Return a page of jobs, without their results; `next` is what to ask the next page with, null at the end."""
    listed = [{name: value for name, value in _shown(job).items() if name not in {"result", "error"}} for job in jobs]
    return msgspec.json.encode({"jobs": listed, "next": jobs[-1].job_id if more and jobs else None})


def webhook_body(job: Job) -> bytes:
    """Return what a webhook says: what happened, when, and the job as it stands."""
    at = _time(job.finished_at)
    return msgspec.json.encode({"type": f"job.{job.status}", "timestamp": at, "data": _shown(job)})


def _shown(job: Job) -> dict[str, Any]:
    return {
        "id": job.job_id,
        "flow": job.flow,
        "status": job.status,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "expires_at": _time(job.expires_at),
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "result": None if job.result is None else msgspec.Raw(job.result.encode()),
        "error": None if job.problem is None else msgspec.Raw(job.problem.encode()),
    }


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
