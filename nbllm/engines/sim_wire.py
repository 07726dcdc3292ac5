"""What the simulated server does with OpenAI's wire: a body to its provider's request, deltas and an ending to a whole answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Chat, Delta, Ending
from nbllm.providers.served_answer import completion
from nbllm.providers.served_body import ChatBody


def chat_of(body: ChatBody) -> Chat:
    """Return the request that a body holds. A schema in response_format is what the simulated model reads as one."""
    options = dict(body.options)
    wanted = options.pop("response_format", None)
    described = wanted.get("json_schema") if wanted else None
    schema = described.get("schema") if isinstance(described, dict) else None
    for name in ("stop", "tools"):
        if name in options:
            options[name] = tuple(options[name])
    return Chat(messages=tuple(body.messages), response_format=wanted if schema is None else None, json_schema=schema, **options)


def whole(head: Mapping[str, Any], deltas: Iterable[Delta], ending: Ending) -> dict[str, Any]:
    """Return a whole answer."""
    gathered = Accumulator()
    for delta in deltas:
        gathered.add(delta)
    return completion(
        head,
        gathered.message(),
        reasoning=gathered.reasoning,
        finish_reason=ending.finish_reason,
        usage=ending.usage,
        logprobs=gathered.partial().logprobs,
    )
