"""OpenAI's wire as the simulated server speaks it: bodies to requests, pieces and ends to chunks and answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nbllm.core.messages import Chat, Delta, Ending, Usage

_PASSED = ("temperature", "top_p", "seed")


class BadBody(ValueError):
    """A body that asks for nothing that can be done; `field` names the part."""

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.field = field


def body_of(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds. Raises BadBody."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is no JSON: {error!s:.200}") from None
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object")
    return body


def chat_of(body: Mapping[str, Any]) -> Chat:
    """Return the request that a body of /v1/chat/completions holds. Raises BadBody."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and m.get("role") for m in messages):
        raise BadBody("messages must be a list of messages, each with a role", "messages")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BadBody(f"max_tokens must be a whole number above 0, not {limit!r:.40}", "max_tokens")
    for name in _PASSED:
        if body.get(name) is not None and (isinstance(body[name], bool) or not isinstance(body[name], int | float)):
            raise BadBody(f"{name} must be a number, not {body[name]!r:.40}", name)
    if body.get("n", 1) != 1:
        raise BadBody("n must be 1", "n")
    stop = body.get("stop")
    if stop is not None and not isinstance(stop, str) and not (isinstance(stop, list) and all(isinstance(s, str) for s in stop)):
        raise BadBody("stop must be text or a list of texts", "stop")
    for name, kind in (("tools", list), ("response_format", dict)):
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise BadBody(f"{name} must be a {kind.__name__}", name)
    wanted = body.get("response_format")
    described = wanted.get("json_schema") if wanted else None
    schema = described.get("schema") if isinstance(described, dict) else None
    logprobs = body.get("top_logprobs", True) if body.get("logprobs") else None
    return Chat(
        messages=tuple(messages),
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop) if stop else None,
        tools=tuple(body["tools"]) if body.get("tools") else None,
        response_format=wanted if schema is None else None,
        json_schema=schema,
        logprobs=logprobs,
        **{name: body[name] for name in _PASSED if body.get(name) is not None},
    )


def choice(delta: dict[str, Any], came: Delta | None = None) -> dict[str, Any]:
    """Return the one choice of a chunk."""
    logprobs = {"content": [dict(entry) for entry in came.logprobs]} if came is not None and came.logprobs else None
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def delta_of(delta: Delta) -> dict[str, Any]:
    """Return a piece as a chunk's delta."""
    said: dict[str, Any] = {}
    if delta.text:
        said["content"] = delta.text
    if delta.reasoning:
        said["reasoning_content"] = delta.reasoning
    if (call := delta.tool_call) is not None:
        function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
        said["tool_calls"] = [
            {"index": call.index, "function": function} | ({"id": call.id, "type": "function"} if call.id else {})
        ]
    return said


def whole(head: Mapping[str, Any], deltas: list[Delta], ending: Ending) -> dict[str, Any]:
    """Return a whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(delta.text for delta in deltas) or None}
    if reasoning := "".join(delta.reasoning for delta in deltas):
        message["reasoning_content"] = reasoning
    calls = [delta.tool_call for delta in deltas if delta.tool_call is not None]
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    entries = [dict(entry) for delta in deltas for entry in delta.logprobs]
    choice = {"index": 0, "message": message, "finish_reason": ending.finish_reason}
    choice["logprobs"] = {"content": entries} if entries else None
    return {**head, "object": "chat.completion", "choices": [choice], "usage": counts(ending.usage)}


def counts(usage: Usage) -> dict[str, int]:
    """Return the counts; what is unknown is left out of the simulation, so there is none."""
    into, out = usage.input_tokens or 0, usage.output_tokens or 0
    return {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
