"""What the replicas of an app share when REDIS_URL names a Redis: the road's state, limits of keys, kept answers, jobs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nbllm.service.configuration import ServiceSettings
from nbllm.service.context import Service
from nbllm.service.limiting import Limiter
from nbllm.settings import Settings
from nbllm.storage.open import shared_at

if TYPE_CHECKING:
    from nbllm.storage.redis_shared import Shared

VARIABLE = "REDIS_URL"


def shared_of(name: str, config: ServiceSettings, settings: Settings, environ: Mapping[str, str] = os.environ) -> Shared | None:
    """Return what REDIS_URL names, None where it is not set. Nothing is opened yet. Raises ConfigurationError.

    All keys begin with the app's name: two apps on one Redis share nothing.
    """
    url = environ.get(VARIABLE, "").strip()
    if not url:
        return None
    return shared_at(
        url,
        namespace=namespace_of(name),
        cache_size_bytes=int(settings.cache_size_mb * 1_000_000),
        on_state_loss=config.on_state_loss,
    )


def namespace_of(name: str) -> str:
    """Return what all keys of an app begin with."""
    return f"nbllm:{name}"


def share(service: Service, shared: Shared, environ: Mapping[str, str] = os.environ) -> None:
    """Have a service keep what replicas share on a Redis, before it begins. Its jobs are for workers."""
    from nbllm.service.celery_app import announcing, celery_app
    from nbllm.service.redis_counters import RedisCounters
    from nbllm.service.redis_idempotency import RedisIdempotency
    from nbllm.service.redis_jobs import RedisJobs
    from nbllm.service.redis_streams import RedisSlots

    config = service.config

    @asynccontextmanager
    async def opened(_: Service) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await shared.aclose()

    service.limiter = Limiter(RedisCounters(shared.link), RedisSlots(shared.link), allow_blind=config.on_state_loss == "allow")
    service.idempotency = RedisIdempotency(shared.link, keep_s=config.idempotency_keep_s)
    announce = announcing(celery_app(environ[VARIABLE].strip(), namespace_of(service.name)))
    service.job_store = RedisJobs(shared.link, keep_s=config.job_keep_s, announce=announce)
    service.jobs_elsewhere = True
    service.parts.insert(0, opened)
