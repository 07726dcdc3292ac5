"""Service: what stands behind one app, kept at app.state.service. Caller and Exchange: who asks, and one request of theirs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbllm.core.messages import DayScope
from nbllm.flow_context import CALLER, CallerContext
from nbllm.service.caller import Caller
from nbllm.service.configuration import ServiceSettings
from nbllm.service.heads import new_id

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp

    from nbllm.client import Client
    from nbllm.service.gate import Gate
    from nbllm.service.keys import KeyStore
    from nbllm.service.limiting import Limiter
    from nbllm.service.logs import AccessLog
    from nbllm.service.metrics import Metrics
    from nbllm.service.v1_models import Menu

Face = Literal["flow", "v1"]
EXCHANGE = "nbllm.exchange"
"""Where the guard keeps the Exchange in an ASGI scope."""
_log = logging.getLogger("nbllm.service")


ASKING: ContextVar[Caller | None] = ContextVar("nbllm_asking", default=None)
REQUEST_ID: ContextVar[str] = ContextVar("nbllm_request_id", default="-")
"""The id of the request, or of the job, that the current code works for: lines of the log name it."""
"""Whose calls are made just now; set by Service.paying."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request, or one WebSocket, as the guard sees it. headers: added to the response. noted: added to its line in the log."""

    request_id: str
    started_s: float
    caller: Caller | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class Service:
    """What stands behind one app.

    own_client: whether the app made the client, and closes it. flows: by name. parts: context managers that are entered when the
    app starts, after the client, and left in reverse order when it ends: whoever needs a beginning and an end adds one.
    draining: no new work is taken; what runs may finish. folder: the app's, None when it has none. runner: runs flows; idempotency,
    job_store: what is kept between requests, in the home unless something shared was put there before the app starts; jobs: who
    runs jobs; jobs_elsewhere: workers do, and this process only looks after them.
    """

    name: str
    config: ServiceSettings
    client: Client
    own_client: bool
    keys: KeyStore
    gate: Gate
    limiter: Limiter
    metrics: Metrics
    menu: Menu
    flows: Mapping[str, Any] = field(default_factory=dict)
    access_log: AccessLog | None = None
    folder: Path | None = None
    runner: Any = None
    webhooks: Any = None
    idempotency: Any = None
    job_store: Any = None
    jobs: Any = None
    jobs_elsewhere: bool = False
    endpoints: Mapping[tuple[str, str], ASGIApp] = field(default_factory=dict)
    """Endpoints that need no router, by method and path."""
    routes: list[Any] = field(default_factory=list)
    """All of its own routes. The app's list has routers instead, and only FastAPI knows what is in them."""
    parts: list[Callable[[Service], AbstractAsyncContextManager[Any]]] = field(default_factory=list)
    draining: bool = False
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it begins to drain."""
    metrics_address: str | None = None
    """Where /metrics is, when it has a port of its own."""
    failure: Exception | None = None
    """Why the app did not start."""
    readiness: tuple[float, list[str]] | None = None
    """When /ready last looked, on the monotonic clock, and what was missing."""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _contexts: dict[tuple[str, str, Face], CallerContext] = field(default_factory=dict)

    def include(self, app: FastAPI, router: APIRouter) -> None:
        """Add routes to the app, and remember them."""
        app.include_router(router)
        self.routes += router.routes

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the background; it ends with the app. What it raises is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_is_over)
        return task

    def count_tokens(self, caller: Caller, tokens: int) -> None:
        """Have the tokens of an answer counted: at once where that takes no waiting, else in the background."""
        if not self.limiter.count_tokens_here(caller, tokens):
            self.spawn(self.limiter.count_tokens(caller, tokens), "counting tokens")

    def _spawned_is_over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s ended with an error.", task.get_name(), exc_info=error)

    async def end_spawned(self) -> None:
        """Cancel what runs in the background, and wait for it."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self) -> None:
        """Take nothing new: the service is about to end."""
        self.draining = True
        self.ending.set()
        self.gate.close()

    def caller_context(self, caller: Caller, face: Face) -> CallerContext:
        """Return for whom calls are that one caller makes: its name in the ledger, its part of the cache, its budget of the day."""
        kind = (caller.key_id, caller.tier.name, face)
        known = self._contexts.get(kind)
        if known is None:
            if len(self._contexts) >= _MOST_CONTEXTS:
                self._contexts.clear()
            name = f"key:{caller.key_id}"
            own = self.config.cache_partition == "key"
            partition = self.config.flow_partition if face == "flow" else name if own else ""
            known = CallerContext(user=name, partition=partition, scopes=(DayScope(name, caller.tier.day_usd),))
            self._contexts[kind] = known
        return known

    @contextmanager
    def paying(self, caller: Caller, face: Face) -> Iterator[None]:
        """Have the calls of this context be those of a caller, for a with block."""
        token, asking = CALLER.set(self.caller_context(caller, face)), ASKING.set(caller)
        try:
            yield
        finally:
            CALLER.reset(token)
            ASKING.reset(asking)


_MOST_CONTEXTS = 10_000


def service_of(connection: HTTPConnection) -> Service:
    """Return the service that a request or a WebSocket has come to."""
    service: Service = connection.scope["app"].state.service
    return service


def exchange_of(connection: HTTPConnection) -> Exchange:
    """Return what the guard knows of a request; a new one where no guard stands before the app."""
    scope = connection.scope
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is None:
        exchange = scope[EXCHANGE] = Exchange(request_id=new_id(), started_s=time.monotonic())
    return exchange
