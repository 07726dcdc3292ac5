"""From the arguments of a door to a Request: everything that makes no sense is refused here, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from nbllm.core.messages import Chat, Embed, Message, Options, Request
from nbllm.errors import InvalidRequest, UnusableText
from nbllm.flow_context import CallerContext, caller_now, partition_of, payers
from nbllm.plain_values import check_text, checked, plain
from nbllm.settings import Settings

Prompt = str | Sequence[Message]
_SAMPLES = "Ask several times with sample=0, 1, 2 ...: each is cached by itself."
_OPTIONS = (
    "check", "repairs", "retries", "cache", "ttl_s", "stale_ok_s", "static", "deadline_s", "ttft_s", "idle_s", "attempt_s",
    "feature", "user", "budget_usd", "tags", "semantic",
)  # fmt: skip
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_NOT_EXTRA = {
    "model": "Name the model with model=.",
    "messages": "Pass messages as the prompt.",
    "stream": "Use client.stream(...) or %%llm for a stream.",
    "stream_options": "Usage is always asked for.",
}
_CHAT_ONLY = (
    "system", "temperature", "max_tokens", "top_p", "seed", "stop", "tools", "response_format", "logprobs",
    "schema", "check", "repairs", "static", "semantic",
)  # fmt: skip
_usual: dict[tuple[int, bool, str, CallerContext | None], tuple[Mapping[str, Any], Options]] = {}
"""Options by the settings' own values, how the call is made, and for whom."""
_MOST_USUAL = 64
_schemas: WeakKeyDictionary[Any, Mapping[str, Any]] = WeakKeyDictionary()


def chat_request(
    prompt: Prompt,
    given: Mapping[str, Any],
    settings: Settings,
    more: Sequence[object] = (),
    *,
    watched: bool,
    on_interrupt: Literal["restart", "raise"],
    from_json: bool = False,
) -> Request:
    """Return the request for a prompt and the keywords of the call. Raises InvalidRequest or SchemaError; nothing was sent.

    more: what came by position besides the prompt, which is a mistake. from_json: the messages come from JSON that nobody else
    holds and that has no escaped NUL in it: they need no copy, and their texts can be sent.
    """
    if more:
        raise _misplaced(more[0])
    values = _values(given, settings)
    schema, check, tools = values["schema"], values["check"], values["tools"]
    wanted, stop = values["response_format"], values["stop"]
    content = Chat(
        messages=_messages(prompt, values["system"], insists="system" in given, from_json=from_json),
        temperature=values["temperature"],
        max_tokens=values["max_tokens"],
        top_p=values["top_p"],
        seed=values["seed"],
        logprobs=values["logprobs"],
        sample=values["sample"],
        partition=partition_of(values["partition"]),
        stop=checked(stop, "stop=") if stop is not None else None,
        tools=tuple(plain(tools, "tools=")) if tools is not None else None,
        response_format=plain(wanted, "response_format=") if wanted is not None else None,
        json_schema=_schema_json(schema) if schema is not None else None,
        extra=_extra(values["extra"]) if values["extra"] else {},
    )
    if check is not None:
        _refuse_async(check)
    options = _options(values, given, settings, watched=watched, on_interrupt=on_interrupt)
    return Request(content=content, options=options, models=values["model"] or ())


def _options(
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    settings: Settings,
    *,
    watched: bool,
    on_interrupt: Literal["restart", "raise"],
) -> Options:
    """Return the options of a call: the usual ones, with what it gives of its own."""
    caller = caller_now()
    usual = _usual_options(settings.call, caller, watched=watched, on_interrupt=on_interrupt)
    own = {name: values[name] for name in given if name in _OPTIONS}
    if "schema" in given:
        own["schema_type"] = values["schema"]
    if "on_interrupt" in given:
        own["on_interrupt"] = values["on_interrupt"] or on_interrupt
    if not own:
        return usual
    return replace(usual, **(own | payers(values["user"], caller) if "user" in own else own))


def _usual_options(
    values: Mapping[str, Any], caller: CallerContext | None, *, watched: bool, on_interrupt: Literal["restart", "raise"]
) -> Options:
    """Return the options of a call that gives none of its own; made once."""
    kind = (id(values), watched, on_interrupt, caller)
    of, options = _usual.get(kind, (None, None))
    if options is None or of is not values:
        options = Options(
            schema_type=values["schema"],
            on_interrupt=values["on_interrupt"] or on_interrupt,
            watched=watched,
            **{name: values[name] for name in _OPTIONS} | payers(values["user"], caller),
        )
        if len(_usual) >= _MOST_USUAL:
            _usual.clear()
        _usual[kind] = values, options
    return options


def embed_request(texts: Sequence[str], given: Mapping[str, Any], settings: Settings, more: Sequence[object] = ()) -> Request:
    """Return the request to embed texts. Raises InvalidRequest. more: what came by position besides the texts: a mistake."""
    if more:
        raise _misplaced(more[0])
    import numpy as np  # noqa: F401 - of the reply; here, because on the loop its import would stall other calls

    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Iterable):
        one = "one text" if isinstance(texts, str) else f"a {type(texts).__name__}"
        raise InvalidRequest(f"embed() got {one}.", hint="Give a list of texts: embed([text], model=...).")
    texts = tuple(texts)
    if not texts:
        raise InvalidRequest("embed() got no texts. Nothing was sent.", hint="Give at least one.")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            kind = UnusableText if text == "" else InvalidRequest
            raise kind(f"Text {number} is {text!r:.40}; every text to embed must be a non-empty string.")
        check_text(text, f"text {number}")
    values = _values(given, settings)
    for name in _CHAT_ONLY:
        if given.get(name) is not None:
            raise InvalidRequest(f"{name}= makes no sense for embeddings. Nothing was sent.", hint="Leave it out.")
    content = Embed(
        texts=texts,
        extra=_extra(values["extra"]) if values["extra"] else {},
        sample=values["sample"],
        partition=partition_of(values["partition"]),
    )
    named = {name: values[name] for name in _OPTIONS if name not in _CHAT_ONLY} | payers(values["user"], caller_now())
    options = Options(on_interrupt="restart", **named)
    return Request(content=content, options=options, models=values["model"] or ())


def _misplaced(value: object) -> InvalidRequest:
    """Return the error for an option that came by position: most often the model."""
    named = f"model={value!r:.60}" if isinstance(value, str) and "/" in value else "model=..., system=..., max_tokens=..."
    return InvalidRequest(
        f"{value!r:.60} was given by position, and only what to ask may be. Nothing was sent.",
        hint=f"Give options by name: {named}.",
    )


def _values(given: Mapping[str, Any], settings: Settings) -> Mapping[str, Any]:
    """Return every option of the call. Raises InvalidRequest, for `n` with the way to several answers."""
    if not given:
        return settings.call
    if "n" in given:
        raise InvalidRequest(f"n={given['n']!r}: nbllm keeps one answer a request. Nothing was sent.", hint=_SAMPLES)
    values = settings.call_options(given)
    if values["model"] == ():
        raise InvalidRequest("model= is an empty list. Nothing was sent.", hint="Name a model, or leave model= out.")
    return values


def _refuse_async(check: Any) -> None:
    if inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(type(check).__call__):
        name = getattr(check, "__name__", type(check).__name__)
        raise InvalidRequest(
            f"check={name} is an async function; a check is called in a thread. Nothing was sent.", hint="Give a plain function."
        )


def _messages(prompt: Prompt, system: str | None, *, insists: bool, from_json: bool) -> tuple[Message, ...]:
    """Return the messages. insists: the system prompt is the call's own; one of the settings gives way to one in the messages."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UnusableText("The prompt is empty. Nothing was sent.", hint="Write what the model is to do.")
        check_text(prompt, "prompt")
        messages: tuple[Message, ...] = ({"role": "user", "content": prompt},)
    else:
        messages = _listed(prompt, from_json=from_json)
    if system is None:
        return messages
    check_text(system, "system prompt")
    if messages[0].get("role") in ("system", "developer"):
        if not insists:
            return messages
        raise InvalidRequest("There is a system prompt in system= and in the messages.", hint="Keep one of them.")
    return ({"role": "system", "content": system}, *messages)


def _listed(prompt: object, *, from_json: bool) -> tuple[Message, ...]:
    if not isinstance(prompt, (list, tuple)):
        raise InvalidRequest(
            f"The prompt is a {type(prompt).__name__}.", hint="Give a string, or a list of messages in OpenAI's shape."
        )
    if not prompt:
        raise InvalidRequest("The list of messages is empty. Nothing was sent.", hint="Give at least one message.")
    for number, message in enumerate(prompt):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise InvalidRequest(
                f"Message {number} is {message!r:.80}; it must be a mapping with a role ({', '.join(ROLES[:5])}).",
                hint='For example {"role": "user", "content": "Hello"}.',
            )
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list, tuple)):
            raise InvalidRequest(
                f"The content of message {number} ({message['role']}) is {content!r:.60}. Nothing was sent.",
                hint="Give a string, or a list of content parts in OpenAI's shape.",
            )
        if not content and message["role"] != "tool" and not any(message.get(name) for name in ("tool_calls", "function_call")):
            raise UnusableText(
                f"Message {number} ({message['role']}) has no content. Nothing was sent.",
                hint="Write what it says, or leave it out.",
            )
    if from_json:
        return tuple(prompt)
    # A copy: the request must not change when the caller appends to the conversation.
    return tuple(plain(list(prompt), "messages", "message {}"))


def _extra(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    _refuse_bypasses(extra)
    if isinstance(extra.get("extra_body"), Mapping):  # LiteLLM puts it into the body, over what is there
        _refuse_bypasses(extra["extra_body"])
    sent: Mapping[str, Any] = plain(extra, "extra=")
    return sent


def _refuse_bypasses(fields: Mapping[str, Any]) -> None:
    """Refuse what nbllm answers for: what has a keyword is reserved for, kept and sent as the keyword says, and in no other way."""
    from nbllm.providers.wire import NAMED_FIELDS

    for name in fields:
        if name in _NOT_EXTRA:
            raise InvalidRequest(f"extra={{{name!r}: ...}} would override the request's own {name}.", hint=_NOT_EXTRA[name])
        if name in NAMED_FIELDS:
            raise InvalidRequest(
                f"extra holds {name!r}, which has a keyword of its own. Nothing was sent.",
                hint=f"Give it as {NAMED_FIELDS[name]}=.",
            )
        if name in {"n", "best_of"} and fields[name] != 1:
            raise InvalidRequest(
                f"extra={{{name!r}: {fields[name]!r:.40}}} asks for several answers; nbllm keeps one answer a request.",
                hint=_SAMPLES,
            )


def _schema_json(schema: Any) -> Mapping[str, Any]:
    """Return the schema's JSON; made once a class, because making it takes longer than a cache hit."""
    from nbllm.core.schema import schema_json

    try:
        known = _schemas.get(schema)
    except TypeError:  # dicts and other values that cannot be keys
        return schema_json(schema)
    if known is None:
        known = schema_json(schema)
        try:
            _schemas[schema] = known
        except TypeError:
            return known
    return known
