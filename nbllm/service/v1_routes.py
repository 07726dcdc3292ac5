"""The routes of /v1: /chat/completions, /models and /embeddings."""

from __future__ import annotations

from starlette.routing import Route
from starlette.types import Send

from nbllm.asking import embed_request
from nbllm.core.messages import Request
from nbllm.errors import InvalidRequest
from nbllm.providers.served_answer import embeddings, encode, model_row
from nbllm.providers.served_body import BadBody, EmbedBody, body_of, embed_body, refuse_others
from nbllm.service.problems import ServiceProblem
from nbllm.service.v1_chat import ChatCompletions
from nbllm.service.v1_endpoint import (
    Ask,
    Endpoint,
    Whole,
    bad_request,
    body_bytes,
    json_headers,
    reply_headers,
    send_json,
    send_whole,
    told,
)
from nbllm.service.v1_models import FLOW, ModelNotServed


class Models(Endpoint):
    """GET /v1/models: what can be named."""

    path = "/v1/models"
    method = "GET"

    async def answer(self, ask: Ask, send: Send) -> None:
        """List them."""
        rows = [model_row(name, owner) for name, owner in ask.service.menu.rows()]
        await send_json(send, encode({"object": "list", "data": rows}), json_headers())


class Model(Endpoint):
    """GET /v1/models/<name>: one of them."""

    path = "/v1/models/{name:path}"
    method = "GET"

    async def answer(self, ask: Ask, send: Send) -> None:
        """Say whose it is, or that there is none."""
        name = ask.http.path_params["name"]
        ask.service.menu.check(name)
        owner = dict(ask.service.menu.rows()).get(name, name.partition("/")[0])
        await send_json(send, encode(model_row(name, owner)), json_headers())


class Embeddings(Endpoint):
    """POST /v1/embeddings."""

    path = "/v1/embeddings"

    async def answer(self, ask: Ask, send: Send) -> None:
        """Embed texts."""
        service, caller, http = ask
        raw = await body_bytes(http)
        asked = _asked(raw)
        service.menu.check(asked.model)
        if asked.model.startswith(FLOW):
            raise ModelNotServed(asked.model, hint="A flow embeds nothing.")
        with service.paying(caller, "v1"):
            try:
                request = embed_request(asked.texts, {"model": (asked.model,), **asked.options}, service.client.settings)
            except InvalidRequest as error:
                problem = ServiceProblem(400, "invalid-request", "The request makes no sense:", error.summary, parameter="input")
                raise problem from None
            await send_whole(ask, raw, lambda: _embedded(ask, request, packed=asked.packed), send)


async def _embedded(ask: Ask, request: Request, *, packed: bool) -> Whole:
    async with ask.service.gate.enter(ask.caller):
        reply = await ask.service.client.asend(request)
    body = embeddings(reply.rung, reply.vectors, reply.usage, packed=packed, more={"nbllm": told(reply)})
    return Whole(encode(body), reply_headers(reply))


def _asked(raw: bytes) -> EmbedBody:
    try:
        body = body_of(raw)
        refuse_others(body, embeds=True)
        return embed_body(body)
    except BadBody as error:
        raise bad_request(error) from None


_ENDPOINTS: tuple[Endpoint, ...] = (ChatCompletions(), Embeddings(), Models(), Model())


def v1_routes() -> list[Route]:
    """Return the routes, the most used first."""
    return [Route(one.path, one, methods=[one.method]) for one in _ENDPOINTS]


def direct() -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints that need no router, by method and path."""
    return {(one.method, one.path): one for one in _ENDPOINTS if "{" not in one.path}
