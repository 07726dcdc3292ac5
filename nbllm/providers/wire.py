"""The JSON that goes out: one Wire, or its content alone, to compact UTF-8 bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from nbllm.core.json_text import encode_text_in_order, only_text
from nbllm.core.messages import Chat, Content, Embed, Message, Rung
from nbllm.core.ports import Wire
from nbllm.errors import InvalidRequest, UnusableText
from nbllm.providers.hosts import provider_of

MEDIA_ALLOWANCE_BYTES = 49_152
"""Counted for each image, sound or file of a message besides its own bytes: its tokens follow its size in pixels or seconds.

No price list that we know charges more for one image than gpt-4o-mini: 2,833 + 8 tiles x 5,667 = 48,169 tokens (OpenAI, "Images and
vision"). A file that is named by its id can hold more; then the bound is an estimate.
"""

SCHEMA_PROMPT = (
    "Answer with one JSON value that is valid under the JSON Schema below. Write the JSON alone: no explanation before or after "
    "it, and no code fence around it.\n\nJSON Schema:\n"
)
"""Stands before a schema that is not sent in response_format. Longer than what would be around it there (see request_bytes)."""
_SCHEMA_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_OWN_FIELDS = {"model": "model=", "messages": "the prompt", "stream": "stream()", "stream_options": "stream()", "input": "embed()"}
NAMED_FIELDS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "tools": "tools",
    "response_format": "response_format",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
}
"""Fields of the body that have a keyword, and which."""


def _plain(value: Any) -> Any:
    """Turn mappings that are no dict into one; json calls this for what it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def request_body(wire: Wire, *, schema_in_prompt: bool = False) -> bytes:
    """Return the body of one request. Raises InvalidRequest for what cannot be sent as asked; nothing was sent then.

    schema_in_prompt: the endpoint is known to refuse response_format json_schema.
    """
    in_prompt = schema_in_prompt or wire.rung.endpoint.json_mode is False
    body = _fields(wire.content, wire.rung, streamed=wire.streamed, schema_in_prompt=in_prompt)
    return _dump(body, simple=_only_text(wire.content))


def request_bytes(content: Content) -> int:
    """Return an upper bound of the input's size, in bytes of JSON, for budgets: no tokenizer makes more tokens than bytes.

    Holds for text: a token has at least one byte, and what a chat template adds to a message is shorter than the JSON around it.
    A schema counts as it stands in the prompt, which takes more bytes than response_format. Media count their own bytes and
    MEDIA_ALLOWANCE_BYTES each. Raises InvalidRequest like request_body.
    """
    media, simple = 0, _only_text(content)
    if isinstance(content, Chat) and not simple:
        for message in content.messages:
            parts = message.get("content")
            if isinstance(parts, (list, tuple)):
                media += sum(1 for part in parts if isinstance(part, Mapping) and part.get("type") not in {"text", "refusal"})
    body = _fields(content, None, streamed=True, schema_in_prompt=True)
    return len(_dump(body, simple=simple)) + media * MEDIA_ALLOWANCE_BYTES


def path_of(content: Content) -> str:
    """Return where the request goes, below base_url."""
    return "/chat/completions" if isinstance(content, Chat) else "/embeddings"


def _only_text(content: Content) -> bool:
    """Whether a request holds texts and our own numbers, and no structure of the user's."""
    if type(content) is not Chat or content.extra or content.tools or content.response_format or content.json_schema:
        return False
    return only_text(content.messages)


def _dump(body: dict[str, Any], *, simple: bool = False) -> bytes:
    try:
        if simple:
            with suppress(UnicodeEncodeError, TypeError):  # what is wrong with it, if anything, is said below
                return encode_text_in_order(body)
        return _encode(body).encode("utf-8")
    except UnicodeEncodeError as exc:
        code = ord(exc.object[exc.start])
        raise UnusableText(
            f"The request holds U+{code:04X}, half of a surrogate pair, which no text may hold. Nothing was sent.",
            hint="Clean the text first: text.encode('utf-8', 'replace').decode().",
        ) from None
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidRequest(
            f"The request cannot be written as JSON: {exc}. Nothing was sent.",
            hint="Messages, tools, response_format and extra may hold text, finite numbers, booleans, None, lists and dicts.",
        ) from exc


def _fields(content: Content, rung: Rung | None, *, streamed: bool, schema_in_prompt: bool) -> dict[str, Any]:
    model = rung.model if rung else ""
    if isinstance(content, Embed):
        body: dict[str, Any] = {"model": model, "input": content.texts}
    else:
        body = _chat_fields(content, model, rung, schema_in_prompt=schema_in_prompt)
        if streamed:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
    if content.extra:
        _merge(body, content)
    return body


def _chat_fields(chat: Chat, model: str, rung: Rung | None, *, schema_in_prompt: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": chat.messages}
    for name in ("temperature", "top_p", "seed", "stop", "tools"):
        value = getattr(chat, name)
        if value is not None:
            body[name] = value
    if chat.max_tokens is not None:
        body[_limit_field(rung.endpoint.base_url) if rung else "max_tokens"] = chat.max_tokens
    if chat.logprobs is not None:
        body["logprobs"] = chat.logprobs is not False
        if not isinstance(chat.logprobs, bool):
            body["top_logprobs"] = chat.logprobs
    if chat.response_format is not None:
        body["response_format"] = chat.response_format
        schema_in_prompt = chat.response_format.get("type") != "json_schema"
    if chat.json_schema is not None and schema_in_prompt:
        body["messages"] = _with_schema(chat.messages, chat.json_schema)
    elif chat.json_schema is not None and chat.response_format is None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": _schema_name(chat.json_schema), "schema": chat.json_schema},
        }
    return body


def _with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """Return the messages with the schema at the end of the system prompt, of a new one where there is none."""
    asked = SCHEMA_PROMPT + _dump(dict(schema)).decode("utf-8")
    first = messages[0] if messages else {}
    if first.get("role") not in {"system", "developer"}:
        return [{"role": "system", "content": asked}, *messages]
    content = first.get("content")
    if isinstance(content, (list, tuple)):
        return [{**first, "content": [*content, {"type": "text", "text": asked}]}, *messages[1:]]
    return [{**first, "content": f"{content}\n\n{asked}" if content else asked}, *messages[1:]]


def _schema_name(schema: Mapping[str, Any]) -> str:
    """Return a name that OpenAI's wire accepts: letters, digits, _ and -, at most 64."""
    title = schema.get("title")
    return _SCHEMA_NAME.sub("_", title)[:64].strip("_") or "answer" if isinstance(title, str) else "answer"


@lru_cache(maxsize=64)
def _limit_field(base_url: str) -> str:
    provider = provider_of(base_url)
    return provider.max_tokens_field if provider else "max_tokens"


def _merge(body: dict[str, Any], content: Content) -> None:
    """Put `extra` into the body, never over what nbllm answers for: model, messages, stream, bound on tokens."""
    chat = content if isinstance(content, Chat) else None
    for key, value in content.extra.items():
        if key in {"n", "best_of"} and value is not None and value != 1:
            raise InvalidRequest(
                f"extra={{{key!r}: {value!r}}}: nbllm asks for one answer a call. Nothing was sent.",
                hint="Call once for each answer, with sample=0, 1, 2 ... so that each has its own cache entry.",
            )
        if key in _OWN_FIELDS:
            raise InvalidRequest(
                f"extra may not hold {key!r}: it is set by {_OWN_FIELDS[key]}. Nothing was sent.",
                hint=f"Leave {key!r} out of extra.",
            )
        named = NAMED_FIELDS.get(key) if chat else None
        if chat and named and getattr(chat, named) is not None:
            raise InvalidRequest(
                f"extra holds {key!r}, but {named}= is given too. Nothing was sent.",
                hint=f"Give only one of {named}= and extra[{key!r}].",
            )
        body[key] = value
