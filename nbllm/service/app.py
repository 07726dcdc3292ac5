"""create_app: one FastAPI app for the flows and models of one client."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from nbllm import current
from nbllm.client import Client
from nbllm.core.messages import CallRecord
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.service import docs_page, feedback, flow_app, health
from nbllm.service.caller import Caller
from nbllm.service.configuration import ServiceSettings, load_service
from nbllm.service.context import ASKING, Service, exchange_of, service_of
from nbllm.service.failures import log_failure
from nbllm.service.flow_events import ANSWER_HEADERS
from nbllm.service.flow_prints import flows_print_into_the_log
from nbllm.service.flow_specs import Example, describe_all
from nbllm.service.gate import Gate
from nbllm.service.guard import Guard
from nbllm.service.idempotency import HEADER, REPLAYED_HEADER, RETRY_HEADER
from nbllm.service.keys import open_keys
from nbllm.service.limiting import Limiter
from nbllm.service.logs import access_log, logging_to, stdout_writer
from nbllm.service.metrics import Metrics
from nbllm.service.metrics_port import metrics_port
from nbllm.service.problems import problem_answer, problem_of
from nbllm.service.sharing import share, shared_of
from nbllm.service.v1_docs import describe
from nbllm.service.v1_models import Menu
from nbllm.service.v1_routes import direct, v1_routes
from nbllm.settings.strategies import models_of

_log = logging.getLogger("nbllm.service")


def create_app(
    flows: Iterable[Callable[..., Any]] = (),
    settings: Path | str | ServiceSettings | None = None,
    *,
    client: Client | None = None,
    name: str | None = None,
    examples: Path | str | None = None,
) -> FastAPI:
    """Return the app: each flow at /flows/<name>, the settings' models at /v1, /health, /ready and /metrics.

    settings: the app's settings.toml (nbllm's settings and a table [service]), or ServiceSettings beside a client. client: one of
    yours, which is neither made the process's own nor closed; without it the app has its own, on its own loop. name: shown in
    its documentation; by default the folder's. examples: a file of recorded runs, for the documentation.

    Raises ConfigurationError: settings that cannot work (file and line), flows that cannot be served (all reasons at once).
    """
    path = Path(settings) if isinstance(settings, Path | str) else None
    if path is None and client is None:
        raise ConfigurationError("create_app() got neither settings nor a client.", hint="Give settings=Path(...)/'settings.toml'.")
    specs = describe_all(flows, _examples(Path(examples)) if examples is not None else None)
    config = settings if isinstance(settings, ServiceSettings) else ServiceSettings()
    own, shared = client is None, None
    name = name or (path.absolute().parent.name if path else "nbllm")
    if path is not None:
        its_settings, config = load_service(path)
        shared = shared_of(name, config, its_settings) if own else None
        client = client or Client(settings=its_settings, shared=shared)
    assert client is not None  # noqa: S101 - one of the two was given
    service = _service(name, config, client, own_client=own, flows=specs, folder=None if path is None else path.absolute().parent)
    if shared is not None:
        share(service, shared)
    return _app(service)


def _app(service: Service) -> FastAPI:
    """Return the app around a service: its routes, the guard before them, how errors are answered."""
    config = service.config
    app = _App(title=service.name, lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.guard = Guard(app, service)
    _include(app, service)
    app.add_middleware(Guard, service=service)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", HEADER, RETRY_HEADER, "Webhook-Url"],
            expose_headers=[
                "X-Request-Id",
                "Retry-After",
                "Location",
                "RateLimit",
                "RateLimit-Policy",
                REPLAYED_HEADER,
                *ANSWER_HEADERS,
            ],
        )
    for kind in (NbllmError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _failed)
    return app


class _App(FastAPI):
    """FastAPI, which describes what it has no routes of its own for as well, and has the guard take those requests at once."""

    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. What is asked most needs no more than the guard, as long as nobody put other middleware before it."""
        guard = self.guard
        if scope["type"] == "http" and (scope["method"], scope["path"]) in guard.endpoints and len(self.user_middleware) == 1:
            scope["app"] = self
            await guard(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, made once."""
        if self.openapi_schema is None:
            describe(super().openapi(), self.state.service.menu)
        return super().openapi()


def _service(
    name: str, config: ServiceSettings, client: Client, *, own_client: bool, flows: Mapping[str, Any], folder: Path | None
) -> Service:
    settings = client.settings
    rungs = {
        *settings.ladder,
        *((settings.model,) if settings.model else ()),
        *(m for name in settings.routes for m in models_of(name, settings.routes)),
    }
    return Service(
        name=name,
        config=config,
        client=client,
        own_client=own_client,
        folder=folder,
        keys=open_keys(settings.home, config.keys_file, folder=folder),
        gate=Gate(max_running=config.max_running, max_waiting=config.max_waiting, queue_wait_s=config.queue_wait_s),
        limiter=Limiter(allow_blind=config.on_state_loss == "allow"),
        metrics=Metrics(rungs),
        flows=flows,
        menu=Menu(client, flows, config.models),
        endpoints=direct(),
        parts=[metrics_port],
    )


def _include(app: FastAPI, service: Service) -> None:
    """Add all routes."""
    app.router.routes[:0] = v1_routes()  # first, because a router compares paths in order
    for router in (health.router, feedback.router, docs_page.router):
        service.include(app, router)
    flow_app.install(app, service)


def _examples(path: Path) -> dict[str, Sequence[Example]]:
    """Return the examples of a file by flow. Raises ConfigurationError."""
    found: dict[str, list[Example]] = defaultdict(list)
    try:
        for row in json.loads(path.read_text(encoding="utf-8")):
            found[row["flow"]].append(Example(row["arguments"], row["result"], tuple(row.get("calls", ()))))
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigurationError(f"{path} holds no examples.", hint="Leave examples= out, or export the app anew.") from None
    return dict(found)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the service needs, in order; close it in reverse. Raises HomeUnusable and others before anything is served."""
    service: Service = app.state.service
    async with AsyncExitStack() as stack:
        try:
            await _open(service, stack)
        except NbllmError as error:
            service.failure = error
            raise
        yield
        service.drain()


async def _open(service: Service, stack: AsyncExitStack) -> None:
    """Enter everything that the service needs."""
    if service.own_client:
        stack.enter_context(flows_print_into_the_log(say_what=service.config.log_prompts))
        if service.access_log is None:
            writer = stdout_writer()
            stack.callback(writer.close)
            stack.enter_context(logging_to(writer, "nbllm", say_why=service.config.log_prompts))
            service.access_log = access_log(writer)
        service.client.adopt_loop()
        stack.push_async_callback(service.client.aclose)
        current.set_process_client(service.client)
        stack.callback(current.set_process_client, None)
    counted = _counting(service, asyncio.get_running_loop())
    service.client.on_call(counted, at_once=True)
    stack.callback(service.client.off_call, counted)
    service.client.models()  # opens the home: one that cannot be used is said now
    service.keys.list()
    stack.push_async_callback(service.end_spawned)
    for part in service.parts:
        await stack.enter_async_context(part(service))


def _counting(service: Service, loop: asyncio.AbstractEventLoop) -> Callable[[CallRecord], None]:
    """Return what counts each call of a model: in the metrics, and in the tokens of who asked."""

    def count(record: CallRecord, caller: Caller | None) -> None:
        service.metrics.call(record)
        if caller is None or caller.tier.tokens_per_minute is None:
            return
        tokens = sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in (a.usage for a in record.attempts))
        service.count_tokens(caller, tokens)

    def counted(record: CallRecord) -> None:
        if not record.attempts:  # a hit, maybe on a flow's own thread: no tokens
            service.metrics.call(record)
        elif asyncio._get_running_loop() is loop:  # noqa: SLF001 - public but for its name; the public one raises
            count(record, ASKING.get())
        else:
            loop.call_soon_threadsafe(count, record, ASKING.get())

    return counted


async def _failed(connection: HTTPConnection, error: Exception) -> Response:
    """Answer with the problem of an error, in the shape of the path."""
    if connection.scope["type"] == "websocket":
        raise error  # the guard knows how to refuse one
    problem = problem_of(error)
    if problem.status == 405:
        problem = replace(problem, headers={"Allow": ", ".join(_allowed(connection))})
    exchange = exchange_of(connection)
    exchange.noted["problem"] = problem.type
    log_failure(exchange.request_id, error, problem, say_why=service_of(connection).config.log_prompts)
    return problem_answer(connection.scope["path"], problem, exchange.request_id)


def _allowed(connection: HTTPConnection) -> list[str]:
    """Return the methods that a path takes: each may be a route of its own, and the router names only those of the first."""
    routes = connection.scope["app"].routes
    tries = ((method, {**connection.scope, "method": method}) for method in _METHODS)
    return [method for method, scope in tries if any(route.matches(scope)[0] is Match.FULL for route in routes)]


_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
