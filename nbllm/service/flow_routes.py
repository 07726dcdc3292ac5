"""The routes of each flow: POST /flows/<name> for the whole answer, /stream for events, /ws for a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Request
from pydantic import WrapValidator
from starlette.responses import Response
from starlette.websockets import WebSocket

from nbllm.service.access import Authenticated, authenticated
from nbllm.service.context import exchange_of, service_of
from nbllm.service.flow_docs import EVENTS, answer, refusals, request_examples
from nbllm.service.flow_events import answer_headers
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_stream import EventStream, FlowSocket
from nbllm.service.flow_watch import Follower
from nbllm.service.idempotency import HEADER, KEY_PATTERN, RETRY_HEADER, once, refuse_key
from nbllm.service.strict_json import StrictRoute, well_formed

# Not `str | None`: a header is text or is not there, and documentation must not say that it may be null.
_NONE: Any = None
Key = Annotated[
    str,
    Header(alias=HEADER, pattern=KEY_PATTERN, description="The answer to the first request with this key is kept and replayed."),
]
Retry = Annotated[
    str,
    Header(alias=RETRY_HEADER, pattern="^true$", description="true: run again although the outcome of the first run is unknown."),
]
COMMON = (400, 401, 408, 413, 415, 422, 429, 500, 502, 503, 504)


async def keyed(key: Key = _NONE, retry: Retry = _NONE) -> None:
    """Document and check the headers that `once` reads: a dependency."""
    del key, retry


def flow_router(spec: FlowSpec) -> APIRouter:
    """Return the routes of one flow, without its jobs."""
    router = APIRouter(prefix=f"/flows/{spec.name}", tags=[spec.name], route_class=StrictRoute)
    named: dict[str, Any] = {"summary": spec.summary or spec.name, "description": spec.description}
    checked = [Depends(authenticated), Depends(well_formed)]
    router.add_api_route(
        "",
        _whole(spec),
        methods=["POST"],
        dependencies=[*checked, Depends(keyed)],
        name=f"run_{spec.name}",
        response_model=spec.result_type,
        responses={200: answer(spec, "What the flow returns."), **refusals(*COMMON, 409)},
        **named,
    )
    router.add_api_route(
        "/stream",
        _streamed(spec),
        methods=["POST"],
        dependencies=[*checked, Depends(refuse_key)],
        name=f"stream_{spec.name}",
        response_class=EventStream,
        status_code=200,
        responses={200: dict(EVENTS), **refusals(*COMMON)},
        **named,
    )
    by_socket = [Depends(authenticated), Depends(refuse_key)]
    router.add_api_websocket_route("/ws", _socket(spec), name=f"socket_{spec.name}", dependencies=by_socket)
    return router


def taking(spec: FlowSpec, endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return an endpoint whose parameter `arguments` is the flow's own: FastAPI reads it from the annotation."""
    body = Body(openapi_examples=request_examples(spec)) if spec.examples else Body()
    endpoint.__annotations__["arguments"] = Annotated[spec.arguments, WrapValidator(lambda value, _: spec.parse(value)), body]
    return endpoint


def _whole(spec: FlowSpec) -> Callable[..., Any]:
    async def run_flow(request: Request, caller: Authenticated, arguments: Any) -> Response:
        service = service_of(request)

        async def run() -> Response:
            follower = Follower()
            async with service.gate.enter(caller):
                with service.paying(caller, "flow"):
                    body = await service.runner.run(spec, arguments, follower)
            return Response(body, headers=answer_headers(follower.made()), media_type="application/json")

        return await once(service, caller, request, run)

    return taking(spec, run_flow)


def _streamed(spec: FlowSpec) -> Callable[..., Any]:
    async def stream_flow(request: Request, caller: Authenticated, arguments: Any) -> Response:
        return EventStream(service_of(request), spec, arguments, caller, exchange_of(request).request_id)

    return taking(spec, stream_flow)


def _socket(spec: FlowSpec) -> Callable[..., Any]:
    async def socket_flow(websocket: WebSocket, caller: Authenticated) -> None:
        await FlowSocket(service_of(websocket), spec, caller, exchange_of(websocket).request_id, websocket).run()

    return socket_flow
