"""The routes of a flow's jobs: POST takes one (202 and where to look), GET looks and lists, POST to /cancel cancels.

A job belongs to the key that made it; for every other it does not exist (404).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import BaseModel, create_model
from starlette.responses import Response

from nbllm.service.access import Authenticated, authenticated
from nbllm.service.caller import Caller
from nbllm.service.context import Service, service_of
from nbllm.service.flow_docs import refusals
from nbllm.service.flow_routes import COMMON, keyed, taking
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.gate import GateClosed
from nbllm.service.idempotency import once
from nbllm.service.job_view import job_json, job_model, jobs_json
from nbllm.service.ports import ENDED, Job, JobsFull, NewJob
from nbllm.service.problems import ServiceProblem
from nbllm.service.strict_json import StrictRoute, well_formed
from nbllm.service.webhooks import PATTERN

MOST_QUEUED = 10_000
MOST_OF_CALLER = 1_000
_PAGE = 100
_READS = (401, 404, 422, 429, 500, 503)
_NONE: Any = None
"""The default of what may be left out, and must not be documented as if it might be null (see Key)."""
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
WebhookUrl = Annotated[
    str,
    Header(
        alias="Webhook-Url",
        json_schema_extra={"pattern": PATTERN},  # told here, and checked by Webhooks, which says in words what is wrong
        max_length=2000,
        description="Told, signed, when the job ends. See /webhooks/secret.",
    ),
]


def job_router(spec: FlowSpec) -> APIRouter:
    """Return the routes of one flow's jobs."""
    router = APIRouter(prefix=f"/flows/{spec.name}/jobs", tags=[spec.name], route_class=StrictRoute)
    model = job_model(spec)
    page = create_model(f"{model.__name__}s", jobs=(list[model], ...), next=(str | None, None))  # type: ignore[valid-type]  # made here
    where = {"headers": {"Location": {"description": "Where to look for the job.", "schema": {"type": "string"}}}}

    def add(path: str, endpoint: Callable[..., Any], method: str, shape: type[BaseModel], **values: Any) -> None:
        name = f"{endpoint.__name__}_{spec.name}"
        router.add_api_route(path, endpoint, methods=[method], name=name, response_model=shape, **values)

    checked = [Depends(authenticated), Depends(well_formed)]
    said: dict[int | str, dict[str, Any]] = {202: {"description": "The job is taken.", **where}, **refusals(*COMMON, 409)}
    add("", _taken(spec), "POST", model, status_code=202, dependencies=[*checked, Depends(keyed)], responses=said)
    add("", _listed(spec), "GET", page, responses=refusals(*_READS))
    add("/{job_id}", _looked_at(spec), "GET", model, responses=refusals(*_READS))
    add("/{job_id}/cancel", _cancelled(spec), "POST", model, responses=refusals(400, 408, 413, 415, *_READS))
    return router


def _taken(spec: FlowSpec) -> Callable[..., Any]:
    async def start_job(request: Request, caller: Authenticated, arguments: Any, webhook: WebhookUrl = _NONE) -> Response:
        """Have the flow run without waiting for it. It runs at least once, whatever process dies meanwhile."""
        service = service_of(request)
        del arguments  # they fit; kept is what came, so that nothing is lost on a way through types
        if webhook is not None:
            service.webhooks.check(webhook)

        async def run() -> Response:
            text = json.dumps(json.loads(await request.body()))
            job = await _added(service, NewJob(flow=spec.name, arguments=text, webhook=webhook or None, **_of(caller)))
            service.jobs.taken(job)
            return _answer(job, 202, {"Location": f"/flows/{spec.name}/jobs/{job.job_id}"})

        return await once(service, caller, request, run)

    return taking(spec, start_job)


def _of(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.key_id, "tier": caller.tier.name, "priority": caller.tier.priority}


async def _added(service: Service, job: NewJob) -> Job:
    if service.draining:
        raise GateClosed
    try:
        taken: Job = await service.jobs.store.add(job, most_queued=MOST_QUEUED, most_of_caller=MOST_OF_CALLER)
    except JobsFull as exc:
        raise ServiceProblem(503, "jobs-full", "No more jobs are taken just now.", exc.summary, retry_after_s=10.0) from None
    return taken


def _listed(spec: FlowSpec) -> Callable[..., Any]:
    async def list_jobs(
        request: Request,
        caller: Authenticated,
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = 20,
        before: Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="`next` of the page before.")] = _NONE,
    ) -> Response:
        """List this key's jobs of the flow, newest first, without their results."""
        found = await service_of(request).jobs.store.list(caller.key_id, spec.name, limit=limit + 1, before=before)
        body = jobs_json(list(found[:limit]), more=len(found) > limit)
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return list_jobs


def _looked_at(spec: FlowSpec) -> Callable[..., Any]:
    async def get_job(request: Request, caller: Authenticated, job_id: JobId) -> Response:
        """Look at a job: its status, and its result once it is done. Results are kept for a stated time (expires_at)."""
        return _answer(_known(spec, await service_of(request).jobs.store.get(caller.key_id, job_id)), 200)

    return get_job


def _cancelled(spec: FlowSpec) -> Callable[..., Any]:
    async def cancel_job(request: Request, caller: Authenticated, job_id: JobId) -> Response:
        """Cancel a job: one that waits at once, one that runs within a second. One that ended stays as it is."""
        jobs = service_of(request).jobs
        _known(spec, await jobs.store.get(caller.key_id, job_id))
        job = _known(spec, await jobs.store.cancel(caller.key_id, job_id))
        jobs.cancel_here(job_id)
        return _answer(job, 200)

    return cancel_job


def _known(spec: FlowSpec, job: Job | None) -> Job:
    if job is None or job.flow != spec.name:
        raise ServiceProblem(404, "no-such-job", "There is no such job.", "It may have been another key's, or forgotten by now.")
    return job


def _answer(job: Job, status: int, headers: dict[str, str] | None = None) -> Response:
    soon = {} if job.status in ENDED else {"Retry-After": "1"}
    return Response(
        job_json(job), status, headers={"Cache-Control": "no-store", **soon, **(headers or {})}, media_type="application/json"
    )
