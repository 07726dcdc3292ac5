"""A run of a flow over HTTP while it goes: server-sent events, and WebSocket with a way to cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from nbllm.service.bodies import check_json
from nbllm.service.caller import Caller
from nbllm.service.context import Service
from nbllm.service.failures import log_failure
from nbllm.service.flow_events import encoded, problem_data, run_events
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_watch import Event
from nbllm.service.gate import GateClosed
from nbllm.service.guard_socket import GOES_AWAY
from nbllm.service.problems import ServiceProblem, problem_of, problem_response
from nbllm.service.strict_json import MalformedJson, strict_json

_CLOSE_NORMAL, _CLOSE_POLICY = 1000, 4000


@asynccontextmanager
async def _admitted(service: Service, caller: Caller) -> AsyncIterator[None]:
    """Hold one of the caller's streams and a place among all that runs."""
    async with service.limiter.stream(caller), service.gate.enter(caller):
        yield


class EventStream(Response):
    """A run as server-sent events. Refusals come as their own status, before the stream begins; later ones as the event error."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, spec: FlowSpec, arguments: BaseModel, caller: Caller, request_id: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._of = service, spec, arguments, caller
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the run ends. Who leaves is cancelled by the guard, and with it the run."""
        began: list[Message] = []

        async def watched(message: Message) -> None:
            began.append(message)
            await send(message)

        try:
            await self._stream(watched)
        except Exception as exc:
            if began:
                raise
            problem = problem_of(exc)
            log_failure(self._request_id, exc, problem, say_why=self._of[0].config.log_prompts)
            await problem_response(problem, self._request_id)(scope, receive, send)

    async def _stream(self, send: Callable[[Message], Awaitable[None]]) -> None:
        service, spec, arguments, caller = self._of
        async with _admitted(service, caller):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(run_events(service, spec, arguments, caller, request_id=self._request_id)) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": _sse(event), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _sse(event: Event | None) -> bytes:
    return KEEPALIVE_COMMENT if event is None else format_sse_event(event=event.name, data_str=encoded(event).decode())


class FlowSocket:
    """One run over one WebSocket.

    The client sends {"type": "start", "arguments": {...}}, and may send {"type": "cancel"}. It gets {"event": ..., "data": ...};
    after reply or error the socket is closed: 1000, or 4000 + status after an error, or 1012 when the service ends before it began.
    """

    def __init__(self, service: Service, spec: FlowSpec, caller: Caller, request_id: str, socket: WebSocket) -> None:
        self._service = service
        self._spec = spec
        self._caller = caller
        self._request_id = request_id
        self._socket = socket

    async def run(self) -> None:
        """See it through."""
        await self._socket.accept()
        try:
            await self._serve()
        except WebSocketDisconnect:
            return
        except Exception as exc:
            await self._end_with(exc)

    async def _serve(self) -> None:
        try:
            async with asyncio.timeout(self._service.config.header_timeout_s):
                arguments = self._arguments(await self._first_message())
        except TimeoutError:
            raise ServiceProblem(408, "no-start", "No start message came in time.") from None
        sending = asyncio.create_task(self._send_events(arguments))
        listening = asyncio.create_task(self._cancelled())
        try:
            await asyncio.wait([sending, listening], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                return
            listening.result()
        finally:
            for task in (sending, listening):
                task.cancel()
            await asyncio.wait([sending, listening])
            for task in (sending, listening):
                if not task.cancelled():
                    task.exception()
        raise ServiceProblem(499, "cancelled", "The run was cancelled.")

    async def _send_events(self, arguments: BaseModel) -> None:
        async with _admitted(self._service, self._caller):
            events = run_events(self._service, self._spec, arguments, self._caller, request_id=self._request_id)
            async with aclosing(events):
                async for event in events:
                    if event is not None:  # WebSocket has pings of its own
                        await self._send(event)
                        if event.name == "error":
                            await self._socket.close(_CLOSE_POLICY + int(event.data["status"]))
                            return
        await self._socket.close(_CLOSE_NORMAL)

    async def _send(self, event: Event) -> None:
        await self._socket.send_text(f'{{"event":"{event.name}","data":{encoded(event).decode()}}}')

    async def _end_with(self, error: Exception) -> None:
        problem = problem_of(error)
        log_failure(self._request_id, error, problem, say_why=self._service.config.log_prompts)
        try:
            await self._send(Event("error", problem_data(problem, self._request_id)))
            await self._socket.close(GOES_AWAY if isinstance(error, GateClosed) else _CLOSE_POLICY + problem.status)
        except (WebSocketDisconnect, RuntimeError):  # it is closed already
            return

    async def _first_message(self) -> dict[str, Any]:
        """Return the message that starts the run. Raises GateClosed when the service ends before it came, and as _message does."""
        coming, ending = asyncio.ensure_future(self._message()), asyncio.ensure_future(self._service.ending.wait())
        try:
            await asyncio.wait([coming, ending], return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
            raise GateClosed
        finally:
            for task in (coming, ending):
                task.cancel()
            await asyncio.wait([coming, ending])

    async def _message(self) -> dict[str, Any]:
        """Return the next message. Raises MalformedJson, WebSocketDisconnect."""
        came = await self._socket.receive()
        if came["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(came.get("code", 1005))
        text = came.get("text")
        if text is None:
            raise ServiceProblem(422, "binary-message", "Messages are text.", "Send JSON as a text message, not as a binary one.")
        body = str(text).encode("utf-8", "surrogatepass")
        check_json(body, self._service.config.max_depth)
        message = strict_json(body)
        if not isinstance(message, dict):
            raise MalformedJson('A message is an object such as {"type": "start", "arguments": {...}}.')
        return message

    def _arguments(self, message: dict[str, Any]) -> BaseModel:
        if message.get("type") != "start" or message.keys() - {"type", "arguments"}:
            raise ServiceProblem(
                422, "invalid-fields", "The first message must start the run.", 'Send {"type": "start", "arguments": {...}}.'
            )
        try:
            return self._spec.parse(message.get("arguments"))
        except ValidationError as exc:
            found = [{**error, "loc": ("body", "arguments", *error["loc"])} for error in exc.errors(include_url=False)]
            raise RequestValidationError(found) from None

    async def _cancelled(self) -> None:
        """Return when the client cancels; WebSocketDisconnect when it leaves."""
        while True:
            message = await self._message()
            if message.get("type") == "cancel":
                return
            raise ServiceProblem(
                422, "invalid-fields", "The message is not understood.", 'While a run goes on only {"type": "cancel"} is taken.'
            )
