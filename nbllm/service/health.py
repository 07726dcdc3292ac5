"""/health: the process is there. /ready: it can work. /metrics: numbers for Prometheus, behind a key or on a port of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from nbllm.core.messages import DayScope
from nbllm.errors import NbllmError
from nbllm.service.access import Known
from nbllm.service.configuration import Tier
from nbllm.service.context import Service, service_of
from nbllm.service.flow_docs import refusals
from nbllm.service.metrics import CONTENT_TYPE
from nbllm.service.ports import Standing
from nbllm.service.problems import ServiceProblem

router = APIRouter()
_FRESH_S = 1.0
"""How long an answer of /ready holds: it is open to everybody, and asks the disk."""
_MOST_KEYS = 1000
"""Of so many keys, at most, what is left is looked up for the numbers."""
_STATES = {"closed": 0, "half open": 1, "open": 2, "off": 2}


@router.get("/health", tags=["service"], summary="Whether the process is there")
async def health() -> dict[str, str]:
    """Answer; nothing else is asked."""
    return {"status": "ok"}


@router.get("/ready", tags=["service"], summary="Whether it can work", responses={503: {"description": "Not now."}})
async def ready(request: Request) -> Response:
    """Answer 200 when what the service needs is there and it is not about to end; else 503 with what is missing."""
    service = service_of(request)
    now_s = time.monotonic()
    known = service.readiness
    if known is None or now_s - known[0] > _FRESH_S:
        known = service.readiness = (now_s, await _missing(service))
    missing = (["draining"] if service.draining else []) + known[1]
    body: dict[str, Any] = {"status": "not ready", "missing": missing} if missing else {"status": "ready"}
    return JSONResponse(body, 503 if missing else 200, headers={"Retry-After": "2"} if missing else None)


async def _missing(service: Service) -> list[str]:
    """Return what the service needs and has not, in short words; why is in its log."""
    missing = []
    try:
        await service.client.abudget_lines()
    except NbllmError:
        missing.append("state store")
    if not await service.limiter.works():
        missing.append("limits")
    try:
        known = service.keys.readable
    except NbllmError:
        known = False
    if not known:
        missing.append("keys")
    standing = await service.client.astanding() if "state store" not in missing else {}
    if standing and all(state in {"open", "off"} for state in standing.values()):
        missing.append("a model that can be asked")
    return missing


@router.get("/metrics", tags=["service"], summary="Numbers for Prometheus", response_class=Response, responses=refusals(401, 404))
async def metrics(request: Request, _: Known) -> Response:
    """Answer with the numbers, to who has a key. Not here when they are on a port of their own."""
    service = service_of(request)
    if service.config.metrics_port is not None:
        raise ServiceProblem(404, "not-found", "Not Found.", "The numbers are on a port of their own.")
    return Response(await scrape(service), media_type=CONTENT_TYPE)


async def scrape(service: Service) -> bytes:
    """Return all numbers as Prometheus reads them."""
    numbers = service.metrics
    numbers.running.set(service.gate.running)
    numbers.waiting.set(service.gate.waiting)
    numbers.draining.set(service.draining)
    await _count_jobs(service)
    try:
        for rung, state in (await service.client.astanding()).items():
            numbers.breaker.labels(rung).set(_STATES[state])
        left = await _budgets_left(service)
    except NbllmError:  # what cannot be read is left out; /ready says that it is missing
        left = {}
    numbers.budget_left_usd.clear()
    for scope, usd in left.items():
        numbers.budget_left_usd.labels(scope).set(usd)
    return numbers.text()


async def _count_jobs(service: Service) -> None:
    """Look how many jobs wait and run; what cannot be known is no number."""
    if service.job_store is None or not service.flows:
        return
    numbers = service.metrics
    try:
        found: Standing = await service.job_store.standing()
    except NbllmError:
        numbers.jobs.clear()
        numbers.oldest_job_s.set(math.nan)
        return
    numbers.jobs.labels("queued").set(found.queued)
    numbers.jobs.labels("running").set(found.running)
    numbers.oldest_job_s.set(found.oldest_s(time.time()))


async def _budgets_left(service: Service) -> dict[str, float]:
    """Return what hard budgets leave, in USD: by scope, and for each tier what the key of it has that has least ("tier:NAME")."""
    of_keys = [(f"key:{key.id}", service.config.tier(key.tier)) for key in service.keys.list()]
    limited = [(name, tier) for name, tier in of_keys if tier is not None and tier.day_usd is not None]
    tiers = dict(limited[:_MOST_KEYS])
    left: dict[str, float] = {}
    for line in await service.client.abudget_lines([DayScope(name, tier.day_usd) for name, tier in tiers.items()]):
        if line.hard_usd is not None:
            scope = _scope(line.scope, tiers)
            usd = max(float(line.hard_usd - line.spent_usd - line.reserved_usd), 0.0)
            left[scope] = min(usd, left.get(scope, usd))
    return left


def _scope(name: str, tiers: Mapping[str, Tier]) -> str:
    """Return a scope without what makes a new one each day, run or key: "session", "day", "feature:NAME", "tier:NAME"."""
    kind, _, rest = name.partition(":")
    tier = tiers.get(rest.partition(":")[2]) if kind == "day" else None
    if tier is not None:
        return f"tier:{tier.name}"
    return kind if kind in {"session", "day"} else name
