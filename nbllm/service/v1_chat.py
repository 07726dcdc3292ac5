"""POST /v1/chat/completions: OpenAI's wire in front of the road, whole answers and streams, models and flows.

A thin ASGI endpoint: what FastAPI would do for a route (signature, validation, response classes) takes longer than a hit does.
"""

from __future__ import annotations

import time

from starlette.types import Send

from nbllm.asking import chat_request
from nbllm.core.messages import Request
from nbllm.errors import InvalidRequest
from nbllm.providers.served_answer import completion, encode
from nbllm.providers.served_body import BadBody, ChatBody, body_of, chat_body, refuse_others
from nbllm.service.context import Service
from nbllm.service.idempotency import refuse_key
from nbllm.service.problems import ServiceProblem
from nbllm.service.v1_endpoint import Ask, Endpoint, Whole, bad_request, body_bytes, keyed, reply_headers, send_whole, told
from nbllm.service.v1_flows import stream_flow, whole_flow
from nbllm.service.v1_models import FLOW
from nbllm.service.v1_stream import stream_answer


class ChatCompletions(Endpoint):
    """See the module."""

    path = "/v1/chat/completions"

    async def answer(self, ask: Ask, send: Send) -> None:
        """Answer from a model or a flow, as a whole or as it comes."""
        service, caller, http = ask
        asked = asked_of(raw := await body_bytes(http))
        service.menu.check(asked.model)
        if asked.streamed and keyed(http):
            await refuse_key(http)
        if asked.model.startswith(FLOW):
            if asked.streamed:
                await stream_flow(ask, asked, send)
            else:
                await send_whole(ask, raw, lambda: whole_flow(ask, asked), send)
            return
        with service.paying(caller, "v1"):
            request = request_for(service, asked, from_json=b"\\u0000" not in raw)
            if asked.streamed:
                async with service.limiter.stream(caller), service.gate.enter(caller):
                    await stream_answer(service, http, send, request, counted=asked.counted, model=asked.model)
            else:
                await send_whole(ask, raw, lambda: _whole(ask, request), send)


async def _whole(ask: Ask, request: Request) -> Whole:
    gate = ask.service.gate
    await gate.take(ask.caller)
    try:
        reply = await ask.service.client.asend(request)
    finally:
        gate.leave()
    head = {"id": f"chatcmpl-{reply.call_id}", "created": int(time.time()), "model": reply.rung}
    body = completion(
        head,
        reply.message,
        reasoning=reply.reasoning,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        logprobs=reply.logprobs,
        more={"nbllm": told(reply)},
    )
    return Whole(encode(body), reply_headers(reply))


def asked_of(raw: bytes) -> ChatBody:
    """Return what a body asks for. Raises ServiceProblem (400)."""
    try:
        body = body_of(raw)
        refuse_others(body)
        return chat_body(body)
    except BadBody as error:
        raise bad_request(error) from None


def request_for(service: Service, asked: ChatBody, *, from_json: bool) -> Request:
    """Return the road's request. Fields that are passed on stand beside what the settings send with every request."""
    settings = service.client.settings
    given = asked.options
    given["model"] = (asked.model,)
    if "extra" in given and settings.call["extra"]:
        given["extra"] = {**settings.call["extra"], **given["extra"]}
    streamed = asked.streamed
    try:
        return chat_request(
            asked.messages,
            given,
            settings,
            watched=streamed,
            on_interrupt="raise" if streamed else "restart",
            from_json=from_json,
        )
    except InvalidRequest as error:
        raise ServiceProblem(400, "invalid-request", "The request makes no sense:", error.summary, parameter="messages") from None
