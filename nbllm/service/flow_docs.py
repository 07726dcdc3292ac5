"""What the service's documentation says of flows: examples from recorded runs, and how it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel, ConfigDict

from nbllm.service.flow_specs import FlowSpec


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str | None = None
    parameter: str | None = None
    request_id: str | None = None


SAID = {
    400: "The request makes no sense.",
    401: "A key is needed.",
    404: "There is no such thing here.",
    408: "The request came too slowly.",
    409: "The same Idempotency-Key is under way, or its outcome is unknown.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    422: "The request is not of the shape that is needed, or its Idempotency-Key was used for another.",
    429: "Over a limit or a budget of the key. Retry-After says when to come again.",
    500: "The flow failed, or the service did.",
    502: "The model gave no answer.",
    503: "The service is full, ends, or cannot check a limit. Retry-After says when to come again.",
    504: "It took too long.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route that are problems."""
    media = {"application/problem+json": {"schema": ProblemBody.model_json_schema()}}
    return {status: {"description": SAID[status], "content": media} for status in statuses}


def request_examples(spec: FlowSpec) -> dict[str, Any]:
    """Return the recorded arguments, as OpenAPI's examples of a body."""
    return {
        f"recorded {n}": {"summary": f"Recorded run {n}", "value": dict(one.arguments)} for n, one in enumerate(spec.examples, 1)
    }


def result_examples(spec: FlowSpec) -> dict[str, Any]:
    """Return the recorded results, as OpenAPI's examples of a response."""
    return {f"recorded {n}": {"summary": f"Recorded run {n}", "value": one.result} for n, one in enumerate(spec.examples, 1)}


def without_recorded(api: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI description without what is recorded of flows: for those who have shown no key."""
    bare = deepcopy(dict(api))
    for path, methods in bare["paths"].items():
        for operation in methods.values() if path.startswith("/flows/") else ():
            for part in (operation.get("requestBody", {}), *operation.get("responses", {}).values()):
                for media in part.get("content", {}).values():
                    media.pop("examples", None)
    return bare


def answer(spec: FlowSpec, description: str) -> dict[str, Any]:
    """Return what is documented of the response 200 of a flow."""
    examples = result_examples(spec)
    return {
        "description": description,
        "content": {"application/json": {"examples": examples}} if examples else {"application/json": {}},
        "headers": {
            name: {"description": said, "schema": {"type": "string"}}
            for name, said in (
                ("X-Model", "The models that answered."),
                ("X-Rung", "The rungs that answered."),
                ("X-Source", "Where the answers came from: model, cache, stale, static."),
                ("X-Cost-Usd", "What the run cost, in USD; unknown when that of any call is."),
                ("X-Calls", "How many calls the flow made."),
                ("Idempotency-Replayed", "true when this answer was kept from the first request with the key."),
            )
        },
    }


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["started", "delta", "restarted", "reply", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
EVENTS: Mapping[str, Any] = {
    "description": "The run as server-sent events: started, delta and restarted of its calls; then reply or error, and the end.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "array", "items": _EVENT},
            "itemSchema": _EVENT,
            "example": (
                'event: started\ndata: {"call":1,"attempt":1,"model":"sim/small"}\n\n'
                'event: delta\ndata: {"call":1,"text":"Hello"}\n\n'
                'event: reply\ndata: {"result":"Hello","calls":1,"cost_usd":"0.0001"}\n\n'
            ),
        }
    },
}
