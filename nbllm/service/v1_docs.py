"""/v1 in the app's OpenAPI description: what its thin endpoints take, answer and refuse, in JSON Schema.

The endpoints are plain ASGI, which FastAPI cannot describe by itself. Each schema says as much as the endpoint checks and no more:
thousands of requests made from it, fitting and not, are held against the service (tests/services/test_generated_requests.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.asking import ROLES
from nbllm.providers.served_body import MOST_LOGPROBS, PASSED_ON, UNHEEDED
from nbllm.service.flow_docs import SAID
from nbllm.service.idempotency import HEADER, KEY_PATTERN, REPLAYED_HEADER, RETRY_HEADER
from nbllm.service.v1_models import FLOW, Menu

TAG = "v1"
Schema = dict[str, Any]
_READS = (401, 429, 500, 503)
_ASKS = (400, 401, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_ANYTHING: Schema = {}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": _TEXT,
            },
        }
    },
}
_OURS: Schema = {
    "type": "object",
    "description": "Who answered (rung), where from (source), what it cost (cost_usd: a decimal text).",
}
_MODEL_ROW: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {"id": _TEXT, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": _TEXT},
}
_MODELS: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL_ROW}},
}


def describe(api: dict[str, Any], menu: Menu) -> None:
    """Add /v1 to a description. menu: which models it names."""
    api.setdefault("components", {}).setdefault("schemas", {})["OpenAIError"] = _ERROR
    security = [{"key": list[str]()}]
    common = {"tags": [TAG], "security": security}
    api["paths"] |= {
        "/v1/chat/completions": {"post": common | _chat(menu)},
        "/v1/embeddings": {"post": common | _embeddings(menu)},
        "/v1/models": {
            "get": common
            | {
                "summary": "What can be named as a model",
                "operationId": "list_models",
                "responses": {"200": _answer("The models, routes and flows.", _MODELS), **openai_refusals(*_READS)},
            }
        },
        "/v1/models/{model}": {
            "get": common
            | {
                "summary": "One model",
                "operationId": "get_model",
                "parameters": [{"name": "model", "in": "path", "required": True, "schema": _model(_names(menu, flows=True))}],
                "responses": {"200": _answer("The model.", _MODEL_ROW), **openai_refusals(404, *_READS)},
            }
        },
    }


def _chat(menu: Menu) -> Schema:
    stream: Schema = {"description": "With stream: true: chunks as server-sent events, then [DONE].", **_TEXT}
    said = _answer("The answer.", _completion())
    said["content"]["text/event-stream"] = {"schema": stream}
    first = next(iter(_names(menu, flows=True)), "MODEL")
    return {
        "summary": "An answer of a model or a flow, in OpenAI's shape",
        "operationId": "create_chat_completion",
        "description": "A flow takes the last message: its one text as it is, else its arguments as a JSON object.",
        "parameters": _KEYED,
        "requestBody": _body(
            _chat_body(_names(menu, flows=True)), {"model": first, "messages": [{"role": "user", "content": "Hello"}]}
        ),
        "responses": {"200": said, **openai_refusals(*_ASKS)},
    }


def _embeddings(menu: Menu) -> Schema:
    names = _names(menu, flows=False)
    return {
        "summary": "Embeddings of texts, in OpenAI's shape",
        "operationId": "create_embedding",
        "parameters": _KEYED,
        "requestBody": _body(_embed_body(names), {"model": next(iter(names), "MODEL"), "input": ["Hello"]}),
        "responses": {"200": _answer("The vectors.", _vectors()), **openai_refusals(*_ASKS)},
    }


_KEYED = [
    {
        "name": HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": KEY_PATTERN},
        "description": "The answer to the first request with this key is kept and replayed. Not for streams.",
    },
    {
        "name": RETRY_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": "^true$"},
        "description": "true: run again although the outcome of the first run is unknown.",
    },
]


def _chat_body(names: list[str]) -> Schema:
    count: Schema = {"type": ["integer", "null"], "minimum": 1}
    objects: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
    fields: dict[str, Schema] = {
        "model": _model(names),
        "messages": {"type": "array", "minItems": 1, "items": _message()},
        "max_completion_tokens": count,
        "max_tokens": count,
        "temperature": {"type": ["number", "null"], "minimum": 0},
        "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
        "seed": {"type": ["integer", "null"]},
        "stop": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": _TEXT}]},
        "n": {"enum": [1, None]},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {"type": ["object", "null"], "description": "include_usage: true for the counts in a last chunk."},
        "tools": objects,
        "response_format": {"type": ["object", "null"], "required": ["type"], "properties": {"type": _TEXT}},
        "logprobs": {"type": ["boolean", "null"]},
        "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": MOST_LOGPROBS},
        "store": {"enum": [False, None]},
    }
    fields |= {name: {**_ANYTHING, "description": "Passed on to the model as it is."} for name in sorted(PASSED_ON)}
    fields |= {name: {**_ANYTHING, "description": "Not heeded."} for name in sorted(UNHEEDED - fields.keys())}
    return _object(fields, "model", "messages")


def _embed_body(names: list[str]) -> Schema:
    text: Schema = {"type": "string", "minLength": 1}
    fields: dict[str, Schema] = {
        "model": _model(names),
        "input": {"anyOf": [text, {"type": "array", "minItems": 1, "items": text}]},
        "encoding_format": {"enum": ["float", "base64", None]},
        "dimensions": {"type": ["integer", "null"], "minimum": 1},
        "user": {**_ANYTHING, "description": "Not heeded."},
    }
    return _object(fields, "model", "input")


def _object(fields: Mapping[str, Schema], *required: str) -> Schema:
    """Return the schema of a body: further fields are refused, unless they are null."""
    return {"type": "object", "required": list(required), "properties": dict(fields), "additionalProperties": {"type": "null"}}


def _message() -> Schema:
    content: Schema = {"type": ["string", "array", "null"], "description": "A text, or parts in OpenAI's shape."}
    return {"type": "object", "required": ["role"], "properties": {"role": {"enum": list(ROLES)}, "content": content}}


def _names(menu: Menu, *, flows: bool) -> list[str]:
    """Return which models can be named, none where that is open ("vllm/*")."""
    return [] if menu.is_open else [name for name, _ in menu.rows() if flows or not name.startswith(FLOW)]


def _model(names: list[str]) -> Schema:
    return {"type": "string", "enum": names} if names else {"type": "string", "minLength": 1}


def _completion() -> Schema:
    choice: Schema = {
        "type": "object",
        "required": ["index", "message", "logprobs", "finish_reason"],
        "properties": {
            "index": {"const": 0},
            "message": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}},
            },
            "logprobs": {"type": ["object", "null"]},
            "finish_reason": _TEXT,
        },
    }
    usage: Schema = {
        "type": ["object", "null"],
        "description": "null while input or output is unknown.",
        "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
        "properties": {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
    }
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage", "nbllm"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": _TEXT,
            "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
            "usage": usage,
            "nbllm": _OURS,
        },
    }


def _vectors() -> Schema:
    vector: Schema = {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string", "contentEncoding": "base64"}]}
    row: Schema = {
        "type": "object",
        "required": ["object", "index", "embedding"],
        "properties": {"object": {"const": "embedding"}, "index": _COUNT, "embedding": vector},
    }
    usage: Schema = {
        "type": ["object", "null"],
        "required": ["prompt_tokens", "total_tokens"],
        "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT},
    }
    return {
        "type": "object",
        "required": ["object", "data", "model", "usage", "nbllm"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": row},
            "model": _TEXT,
            "usage": usage,
            "nbllm": _OURS,
        },
    }


def _body(schema: Schema, example: Mapping[str, Any]) -> Schema:
    shown = {"one": {"summary": "The shortest", "value": dict(example)}}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}}


def _answer(description: str, schema: Schema) -> Schema:
    replayed = {"description": "true when this answer was kept from the first request with the key.", "schema": _TEXT}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema}},
        "headers": {REPLAYED_HEADER: replayed},
    }


def openai_refusals(*statuses: int) -> dict[str, Schema]:
    """Return the responses of a route below /v1 that are errors, in OpenAI's shape."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return {str(status): {"description": SAID[status], "content": content} for status in statuses}
