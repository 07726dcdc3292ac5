"""OpenAI's wire from the side that serves: what a body of /v1/chat/completions or /v1/embeddings asks for, as the doors take it.

Pure: bytes in, values out. What a body may not ask for at all is the server's to say (`refuse_others`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

_NUMBERS = ("temperature", "top_p")
_LISTED = "a list of objects"
MOST_LOGPROBS = 20
PASSED_ON = frozenset(
    {
        "frequency_penalty", "logit_bias", "min_p", "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort",
        "repetition_penalty", "tool_choice", "top_k", "verbosity",
    }
)  # fmt: skip
"""Fields that only shape the answer: they go to the model as they are, and into the cache key."""
UNHEEDED = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "stream_options", "user"})
"""Fields that say who asks, or how to keep the books; a server has its own ways for both."""
_READ = frozenset(
    {
        "logprobs", "max_completion_tokens", "max_tokens", "messages", "model", "n", "response_format", "seed", "stop", "store",
        "stream", "temperature", "tools", "top_logprobs", "top_p",
    }
)  # fmt: skip
CHAT_FIELDS = PASSED_ON | UNHEEDED | _READ
EMBED_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
_decode = msgspec.json.Decoder().decode


class BadBody(ValueError):
    """A body that asks for nothing that can be done; `field` names the part."""

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.field = field


class ChatBody(Struct, frozen=True, kw_only=True):
    """What a body of /v1/chat/completions asks for. options: by the doors' names, only what was given.

    counted: whether a stream is to end with its usage.
    """

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    streamed: bool
    counted: bool


class EmbedBody(Struct, frozen=True, kw_only=True):
    """What a body of /v1/embeddings asks for. packed: vectors as base64 of little-endian float32."""

    model: str
    texts: list[str]
    options: dict[str, Any]
    packed: bool


def body_of(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds. Raises BadBody: no JSON, NaN, half a surrogate pair, nested too deeply."""
    try:
        body = _decode(raw)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadBody(f"the body is no JSON: {error!s:.200}") from None
    except RecursionError:
        raise BadBody("the body is nested too deeply") from None
    if type(body) is not dict:
        raise BadBody("the body must be a JSON object")
    return body


def refuse_others(body: Mapping[str, Any], *, embeds: bool = False) -> None:
    """Refuse what is not served: fields that lead elsewhere (base_url, headers, keys, extra) and unknown ones. Raises BadBody."""
    for name in body.keys() - (EMBED_FIELDS if embeds else CHAT_FIELDS):
        if body[name] is not None:
            raise BadBody(f"there is no field {name!r:.80} here", name[:80])
    if body.get("store") is not None and body["store"] is not False:
        raise BadBody("nothing is stored here for later; leave store out", "store")


def chat_body(body: Mapping[str, Any]) -> ChatBody:
    """Return what a body asks for. Raises BadBody, which names the field."""
    get = body.get
    messages = get("messages")
    if messages == []:
        raise BadBody("messages is empty; it needs at least one message", "messages")
    if type(messages) is not list or not all(type(m) is dict and m.get("role") for m in messages):
        raise BadBody("messages must be a list of messages, each with a role", "messages")
    streamed, counted = _streams(body)
    options = _options(body)
    return ChatBody(model=_model(body), messages=messages, options=options, streamed=streamed, counted=counted)


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    get = body.get
    options: dict[str, Any] = {}
    limit = _limit(body)
    if limit is not None:
        options["max_tokens"] = limit
    for name in _NUMBERS:
        number = get(name)
        if number is not None:
            if type(number) not in (int, float):
                raise BadBody(f"{name} must be a number, not {number!r:.40}", name)
            options[name] = number
    seed = get("seed")
    if seed is not None:
        if type(seed) is not int:
            raise BadBody(f"seed must be a whole number, not {seed!r:.40}", "seed")
        options["seed"] = seed
    if get("n") not in (None, 1) or get("n") is True:
        raise BadBody("n must be 1: there is one answer to a request", "n")
    stop = get("stop")
    if stop is not None and stop != []:
        if type(stop) is not str and not (type(stop) is list and all(type(s) is str for s in stop)):
            raise BadBody("stop must be text or a list of texts", "stop")
        options["stop"] = [stop] if type(stop) is str else stop
    tools = get("tools")
    if tools is not None and tools != []:
        if type(tools) is not list or not all(type(tool) is dict for tool in tools):
            raise BadBody(f"tools must be {_LISTED}", "tools")
        options["tools"] = tools
    _add_format_and_logprobs(body, options)
    extra = {name: body[name] for name in PASSED_ON & body.keys() if body[name] is not None}
    if extra:
        options["extra"] = extra
    return options


def _add_format_and_logprobs(body: Mapping[str, Any], options: dict[str, Any]) -> None:
    wanted = body.get("response_format")
    if wanted is not None:
        if type(wanted) is not dict or type(wanted.get("type")) is not str:
            raise BadBody("response_format must be an object with a type", "response_format")
        if wanted["type"] != "text":
            options["response_format"] = wanted
    logprobs, top = body.get("logprobs"), body.get("top_logprobs")
    if logprobs is not None and type(logprobs) is not bool:
        raise BadBody(f"logprobs must be true or false, not {logprobs!r:.40}", "logprobs")
    if top is not None:
        if type(top) is not int or not 0 <= top <= MOST_LOGPROBS:
            raise BadBody(f"top_logprobs must be a whole number from 0 to {MOST_LOGPROBS}, not {top!r:.40}", "top_logprobs")
        if not logprobs:
            raise BadBody("top_logprobs needs logprobs: true", "top_logprobs")
    if logprobs:
        options["logprobs"] = True if top is None else top


def _limit(body: Mapping[str, Any]) -> int | None:
    """Return the limit on output tokens, by its name of today or the older one."""
    new, old = body.get("max_completion_tokens"), body.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise BadBody("max_tokens and max_completion_tokens say different things", "max_tokens")
    limit, name = (old, "max_tokens") if new is None else (new, "max_completion_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadBody(f"{name} must be a whole number above 0, not {limit!r:.40}", name)
    return limit


def _streams(body: Mapping[str, Any]) -> tuple[bool, bool]:
    streamed, options = body.get("stream"), body.get("stream_options")
    if streamed is not None and type(streamed) is not bool:
        raise BadBody(f"stream must be true or false, not {streamed!r:.40}", "stream")
    if options is None:
        return bool(streamed), False
    if type(options) is not dict:
        raise BadBody("stream_options must be an object", "stream_options")
    if not streamed:
        raise BadBody("stream_options need stream: true", "stream_options")
    return True, options.get("include_usage") is True


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if type(model) is not str or not model:
        raise BadBody("model must name a model", "model")
    return model


def embed_body(body: Mapping[str, Any]) -> EmbedBody:
    """Return what a body of /v1/embeddings asks for. Raises BadBody."""
    texts, packing, size = body.get("input"), body.get("encoding_format"), body.get("dimensions")
    texts = [texts] if type(texts) is str else texts
    if type(texts) is not list or not texts or not all(type(text) is str and text for text in texts):
        raise BadBody("input must be a text, or a list of texts, none of them empty; tokens are not taken", "input")
    if packing not in (None, "float", "base64"):
        raise BadBody('encoding_format must be "float" or "base64"', "encoding_format")
    if size is not None and (type(size) is not int or size < 1):
        raise BadBody(f"dimensions must be a whole number above 0, not {size!r:.40}", "dimensions")
    options: dict[str, Any] = {} if size is None else {"extra": {"dimensions": size}}
    return EmbedBody(model=_model(body), texts=texts, options=options, packed=packing == "base64")
