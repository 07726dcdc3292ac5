"""Flows as part of an app: what runs them and what is kept between requests, opened with the app and closed with it."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, Field

from nbllm.errors import ConfigurationError
from nbllm.service.access import Authenticated
from nbllm.service.context import Service, service_of
from nbllm.service.embedded import service_database, state_file
from nbllm.service.flow_docs import refusals
from nbllm.service.flow_routes import flow_router
from nbllm.service.flow_run import FlowRunner
from nbllm.service.idempotency_store import SqliteIdempotency
from nbllm.service.job_routes import job_router
from nbllm.service.job_store import SqliteJobs
from nbllm.service.jobs import AT_ONCE, JobHands
from nbllm.service.remote_hands import RemoteHands
from nbllm.service.webhooks import Webhooks
from nbllm.storage.home import Home

SECRET_VARIABLE = "NBLLM_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_SECRET_FILE = "webhook-secret"  # noqa: S105 - the name of a file
_LEAST_BYTES = 32


def install(app: FastAPI, service: Service) -> None:
    """Add the routes of the service's flows, and what they need, to an app that has not begun."""
    for spec in service.flows.values():
        service.include(app, flow_router(spec))
        service.include(app, job_router(spec))
    if service.flows:
        service.include(app, _secrets)
    service.parts.append(_kept_between_requests)
    service.parts.append(_at_work)


@asynccontextmanager
async def _kept_between_requests(service: Service) -> AsyncIterator[None]:
    """Keep answers by Idempotency-Key, and jobs, in the home of the app, unless something shared is there already."""
    home = Home(service.client.settings.home)
    database = service_database(home, state_file(home.path, service.name, service.folder))
    config = service.config
    try:
        service.idempotency = service.idempotency or SqliteIdempotency(home, database, keep_s=config.idempotency_keep_s)
        service.job_store = service.job_store or SqliteJobs(home, database, keep_s=config.job_keep_s)
        yield
    finally:
        await asyncio.to_thread(database.close)
        home.close()


@asynccontextmanager
async def _at_work(service: Service) -> AsyncIterator[None]:
    """Run flows and jobs while the app runs."""
    config = service.config
    async with AsyncExitStack() as stack:
        running = config.max_running + AT_ONCE
        runner = FlowRunner(service.client, running=running, timeout_s=config.flow_timeout_s, say_why=config.log_prompts)
        service.runner = runner
        stack.push_async_callback(runner.aclose)
        service.webhooks = Webhooks(config.webhook_hosts, webhook_secret(service.client.settings.home, os.environ))
        stack.push_async_callback(service.webhooks.aclose)
        if service.flows and service.jobs is None:
            kind = RemoteHands if service.jobs_elsewhere else JobHands
            hands = service.jobs = kind(service, service.job_store, service.webhooks)
            hands.start()
            stack.push_async_callback(hands.stop)
        yield


def webhook_secret(home: Path, environ: Mapping[str, str]) -> bytes:
    """Return the app's secret for webhooks: NBLLM_WEBHOOK_SECRET, which several replicas share, else a file of its own in the home.

    Raises ConfigurationError for one that is too short.
    """
    given = environ.get(SECRET_VARIABLE, "")
    if given:
        if len(given) < _LEAST_BYTES:
            raise ConfigurationError(
                f"{SECRET_VARIABLE} has {len(given)} characters; it needs {_LEAST_BYTES}.", hint="openssl rand -hex 32"
            )
        return given.encode()
    own = Home(home)
    path = own.prepare() / _SECRET_FILE
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(fd, "wb") as file:
        made = secrets.token_bytes(_LEAST_BYTES)
        file.write(made)
    return made


def _read(path: Path) -> bytes:
    found = path.read_bytes()
    if path.is_symlink() or len(found) < _LEAST_BYTES:
        raise ConfigurationError(f"{path} holds no secret for webhooks.", hint="Delete it; a new one is made at the next start.")
    return found


_secrets = APIRouter(tags=["webhooks"])


class WebhookSecret(BaseModel):
    """With what a receiver checks webhooks of this key's jobs."""

    secret: Annotated[str, Field(description="For a library of standardwebhooks.com: whsec_ and base64.")]


@_secrets.get("/webhooks/secret", responses=refusals(401, 429, 503))
async def webhook_secret_of_key(request: Request, caller: Authenticated) -> WebhookSecret:
    """Return the secret that signs webhooks of this key's jobs. Every key has its own."""
    return WebhookSecret(secret=service_of(request).webhooks.secret_of(caller.key_id))
