"""What the endpoints of /v1 have in common: thin ASGI apps that say who answered in their headers.

What FastAPI would do for a route (signature, validation, response classes) takes longer than a hit of the cache does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from nbllm.core.reply import Reply
from nbllm.providers.served_body import BadBody
from nbllm.service.access import admitted
from nbllm.service.caller import Caller
from nbllm.service.context import Service, exchange_of, service_of
from nbllm.service.idempotency import once
from nbllm.service.problems import ServiceProblem, openai_error

Headers = list[tuple[bytes, bytes]]
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
)
_JSON = (b"content-type", b"application/json")
_MOST_CHARS = 500


class Ask(NamedTuple):
    """One request of a caller who may ask."""

    service: Service
    caller: Caller
    http: HttpRequest


async def body_bytes(http: HttpRequest) -> bytes:
    """Return the body: the guard hands it on in one piece."""
    message = await http.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        return body
    first: bytes = message.get("body", b"")
    return first + b"".join([piece async for piece in http.stream()])


class Whole(NamedTuple):
    """A whole answer, with its headers."""

    body: bytes
    headers: Headers


async def send_whole(ask: Ask, raw: bytes, run: Callable[[], Awaitable[Whole]], send: Send) -> None:
    """Send what `run` answers; for a request with an Idempotency-Key once, as idempotency.once has it. raw: the request's body."""
    http = ask.http
    if not keyed(http):
        answer = await run()
        await send_json(send, answer.body, answer.headers)
        return

    async def replayed() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def response() -> Response:
        answer = await run()
        return Response(answer.body, headers={name.decode(): value.decode("latin-1") for name, value in answer.headers})

    again = HttpRequest(http.scope, replayed)
    kept = await once(ask.service, ask.caller, again, response, as_response=lambda problem, _: openai_error(problem))
    await kept(http.scope, http.receive, send)


def keyed(http: HttpRequest) -> bool:
    """Whether a request says something of idempotency, by which it is to be looked at."""
    return any(name.startswith(b"idempotency-") for name, _ in http.scope["headers"])


class Endpoint:
    """What the endpoints of /v1 share: who asks, within limits, and the body as an object. An ASGI app for a route.

    path: the route's, as log and numbers have it.
    """

    path = ""
    method = "POST"

    @property
    def path_format(self) -> str:
        """The path, as the guard asks a route for it."""
        return self.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route"] = self
        http = HttpRequest(scope, receive)
        service, exchange = service_of(http), exchange_of(http)
        # The guard knows already who sent a body.
        authorization = http.headers.get("authorization") if exchange.caller is None else None
        await self.answer(Ask(service, await admitted(service, exchange, authorization), http), send)

    async def answer(self, ask: Ask, send: Send) -> None:
        """Answer one request."""
        raise NotImplementedError


def bad_request(error: BadBody) -> ServiceProblem:
    """Return the problem of a body that cannot be served, with the field that is wrong."""
    return ServiceProblem(400, "invalid-request", "The request makes no sense:", f"{error}.", parameter=error.field)


def told(reply: Reply) -> dict[str, Any]:
    """Return what an answer says of itself beyond OpenAI's fields. cost_usd is a decimal text, null when unknown."""
    said: dict[str, Any] = {
        "rung": reply.rung,
        "source": reply.source,
        "cost_usd": None if reply.cost_usd is None else f"{reply.cost_usd:f}",
        "call_id": reply.call_id,
    }
    if reply.simulated:
        said["simulated"] = True
    if not reply.accepted:
        said["accepted"] = False
    if reply.notes:
        said["notes"] = reply.notes
    return said


def reply_headers(reply: Reply) -> Headers:
    """Return the headers that say who answered, and what it cost ("unknown" when it is)."""
    cost = "unknown" if reply.cost_usd is None else f"{reply.cost_usd:f}"
    return [
        _JSON,
        (b"x-model", header_text(reply.model)),
        (b"x-rung", header_text(reply.rung)),
        (b"x-source", header_text(reply.source)),
        (b"x-cost-usd", cost.encode("ascii")),
    ]


def json_headers() -> Headers:
    """Return the headers of an answer that no model gave."""
    return [_JSON]


def header_text(text: str) -> bytes:
    """Return text that may stand in a header: names come from servers."""
    if text.isascii() and text.isprintable():
        return text[:_MOST_CHARS].encode("ascii")
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_MOST_CHARS]).encode("ascii")


async def send_json(send: Send, body: bytes, headers: Headers) -> None:
    """Send a whole answer."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
