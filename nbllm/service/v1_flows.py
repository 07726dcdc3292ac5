"""Flows as models: `flow/<name>` on /v1/chat/completions, for whatever speaks OpenAI's wire and nothing else.

A flow is no conversation: it takes what the last message says, which is the user's. A flow that needs one text gets it as it is,
whatever it holds: who writes it may be a stranger to whoever set the other arguments. Any other flow gets its arguments as a JSON
object. Earlier turns and sampling parameters are not read; instructions (a system prompt, tools, a response format) are refused.
What the flow returns is the answer's content: a text as it is, all else as JSON. It is known when the flow ends, so a stream of it
holds one piece.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.types import Send

from nbllm.core.messages import Delta, Usage
from nbllm.providers.served_answer import DONE, ChunkWriter, completion, encode, error_event
from nbllm.providers.served_body import ChatBody
from nbllm.service.context import exchange_of
from nbllm.service.failures import log_failure
from nbllm.service.flow_events import answer_headers, shown
from nbllm.service.flow_specs import FlowSpec
from nbllm.service.flow_watch import CallsMade, Follower
from nbllm.service.problems import ServiceProblem, openai_body, problem_of
from nbllm.service.strict_json import strict_json
from nbllm.service.v1_endpoint import STREAM_HEADERS, Ask, Whole, json_headers
from nbllm.service.v1_models import FLOW

_INSTRUCT = ("system", "developer", "tool", "function")
_PROMISES = ("tools", "response_format", "logprobs")
PING_S = 15.0
"""A stream is silent for so long at most."""
_PING = b": the flow runs\n\n"


def flow_of(ask: Ask, asked: ChatBody) -> tuple[FlowSpec, BaseModel]:
    """Return the flow that a body names, and its arguments. Raises ServiceProblem (400)."""
    spec: FlowSpec = ask.service.flows[asked.model.removeprefix(FLOW)]
    for name in _PROMISES:
        if name in asked.options:
            raise _bad(f"A flow decides by itself what it asks and returns: leave {name} out.", name)
    return spec, _arguments(spec, _last_text(asked.messages))


def _last_text(messages: list[dict[str, Any]]) -> str:
    if any(message.get("role") in _INSTRUCT for message in messages):
        raise _bad("A flow has its own prompts: leave messages of the system and of tools out.", "messages")
    last = messages[-1]
    content = last.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if last.get("role") != "user" or not isinstance(content, str) or not content.strip():
        raise _bad("The last message must be the user's, and a text: that is what a flow gets.", "messages")
    return content


def _arguments(spec: FlowSpec, text: str) -> BaseModel:
    """Return the arguments that a text holds: the text itself for a flow that needs one, else a JSON object of them."""
    names = {field.alias or name: field for name, field in spec.arguments.model_fields.items()}
    needed = [name for name, field in names.items() if field.is_required()]
    one = needed[0] if len(needed) == 1 else next(iter(names)) if len(names) == 1 else None
    given = {one: text} if one is not None and names[one].annotation is str else _object(text)
    if given is None and names:
        raise _bad(f"{spec.name} takes {', '.join(names)}: send them as one JSON object in the last message.", "messages")
    try:
        return spec.arguments.model_validate(given or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"The arguments of {spec.name} do not fit: {where}: {first['msg']}.", "messages") from None


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None for another text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = strict_json(text.encode("utf-8", "surrogatepass"))
    except ServiceProblem:
        return None
    return value if isinstance(value, dict) else None


def _bad(detail: str, parameter: str) -> ServiceProblem:
    return ServiceProblem(400, "invalid-request", "The request makes no sense:", detail, parameter=parameter)


async def whole_flow(ask: Ask, asked: ChatBody) -> Whole:
    """Run a flow and return its answer."""
    spec, arguments = flow_of(ask, asked)
    service, caller, http = ask
    follower = Follower()
    async with service.gate.enter(caller):
        with service.paying(caller, "flow"):
            result = await service.runner.run(spec, arguments, follower)
    made = follower.made()
    body = completion(
        _head(exchange_of(http).request_id, asked.model),
        {"role": "assistant", "content": _content(result)},
        finish_reason="stop",
        usage=_usage(made),
        more={"nbllm": shown(made)},
    )
    return Whole(encode(body), json_headers() + _pairs(answer_headers(made)))


async def stream_flow(ask: Ask, asked: ChatBody, send: Send) -> None:
    """Run a flow and send its result as a stream of one piece. What fails before anything was sent is raised."""
    spec, arguments = flow_of(ask, asked)
    service, caller, http = ask
    follower = Follower()
    writer = ChunkWriter(_head(exchange_of(http).request_id, asked.model))
    async with service.limiter.stream(caller), service.gate.enter(caller):
        with service.paying(caller, "flow"):
            run = asyncio.create_task(service.runner.run(spec, arguments, follower))
        began = False
        try:
            while not (await asyncio.wait([run], timeout=PING_S))[0]:
                began = await _begun(send, began=began)
                await _sent(send, _PING)
            content = _content(run.result())
        except Exception as error:
            if not began:
                raise
            await _broke(ask, send, error)
            return
        finally:
            if not run.done():
                run.cancel()
                await asyncio.wait([run])
    await _begun(send, began=began)
    made = follower.made()
    pieces = [writer.first(), writer.delta(Delta(text=content)), writer.last("stop", {"nbllm": shown(made)})]
    pieces += [writer.usage(_usage(made))] if asked.counted else []
    await _sent(send, b"".join(pieces) + DONE, more=False)


async def _begun(send: Send, *, began: bool) -> bool:
    if not began:
        await send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
    return True


async def _sent(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _broke(ask: Ask, send: Send, error: Exception) -> None:
    """Say in the stream what went wrong."""
    problem = problem_of(error)
    exchange_of(ask.http).noted["problem"] = problem.type
    log_failure(exchange_of(ask.http).request_id, error, problem, say_why=ask.service.config.log_prompts)
    await _sent(send, error_event(openai_body(problem)), more=False)


def _head(request_id: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": model}


def _content(result: bytes) -> str:
    """Return what a flow returned as a text: a text as it is, all else as JSON."""
    return str(json.loads(result)) if result.startswith(b'"') else result.decode("utf-8")


def _usage(made: CallsMade) -> Usage:
    return Usage(made.input_tokens, made.output_tokens)


def _pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
