"""What a fault server does with one request: values that say it, and the bytes that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

After = Literal["never", "request", "headers", "tokens"]
"""When an answer breaks off: before a byte of it, after the headers, or after `tokens` tokens."""
Break = Literal["stall", "reset", "close"]
"""How: silence until the client goes away, a TCP reset, or a clean end of the bytes."""

WORDS = ("One ", "two ", "three ", "four ", "five.")
ARGUMENTS = ('{"city"', ': "Bern"', "}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One answer, good or bad. Made by the functions below; `with_` changes single fields."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """These bytes instead of an answer."""
    tokens: Sequence[str] = WORDS
    reasoning: Sequence[str] = ()
    tool_calls: bool = False
    logprobs: bool = False
    usage: Mapping[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    )
    finish: str | None = "stop"
    done: bool = True
    """Whether a stream ends with [DONE]."""
    delay_s: float = 0.0
    """Before the first byte."""
    pace_s: float = 0.0
    """Between tokens of a stream; between single bytes of a whole answer."""
    break_after: After = "never"
    break_how: Break = "stall"
    break_tokens: int = 2
    broken_line: bytes | None = None
    """A line of a stream to send after `break_tokens` tokens, as it is."""
    content_type: str | None = None
    echo_key: bool = False
    vectors: Sequence[Sequence[float]] | str | None = None
    """For /embeddings: one vector a text; "base64" sends [i, 1.0] for text i, encoded."""

    def with_(self, **changes: Any) -> Behaviour:
        """Return the same with some fields changed."""
        return replace(self, **changes)


def ok(*tokens: str, **fields: Any) -> Behaviour:
    """A good answer of these tokens (default: "One two three four five."), streamed when the request asks for it."""
    finish_reason = "tool_calls" if fields.get("tool_calls") else "stop"
    return Behaviour(**{"finish": finish_reason, **({"tokens": tokens} if tokens else {}), **fields})


def error(status: int, message: str = "It went wrong.", *, headers: Mapping[str, str] | None = None, **fields: Any) -> Behaviour:
    """An HTTP error with OpenAI's error object; fields: type, code, param."""
    body = {"error": {"message": message, "type": None, "code": None, "param": None, **fields}}
    return Behaviour(status=status, headers=headers or {}, body=json.dumps(body).encode(), content_type="application/json")


def rate_limited(retry_after: str | None = None) -> Behaviour:
    """429, with this Retry-After header as it is, or none."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return error(429, "Rate limit reached.", headers=headers, code="rate_limit_exceeded")


def wrong_key() -> Behaviour:
    """401 whose message repeats the key that it got."""
    return replace(error(401, "Incorrect API key provided: {key}.", code="invalid_api_key"), echo_key=True)


def forbidden() -> Behaviour:
    """403."""
    return error(403, "You may not use this model.")


def not_found() -> Behaviour:
    """404 for an unknown model."""
    return error(404, "The model `m` does not exist.", code="model_not_found")


def bad_parameter(parameter: str = "temperature") -> Behaviour:
    """400 that names a parameter."""
    return error(400, f"Invalid value for '{parameter}'.", type="invalid_request_error", param=parameter)


def context_too_long() -> Behaviour:
    """400 in vLLM's words, without a code."""
    return error(400, "This model's maximum context length is 1024 tokens. However, you requested 2000 tokens.", code=400)


def content_filter() -> Behaviour:
    """400 of a content filter."""
    return error(400, "The prompt was filtered.", code="content_filter")


def redirect(location: str = "http://127.0.0.1:9/elsewhere") -> Behaviour:
    """A redirect that must not be followed."""
    return Behaviour(status=307, headers={"Location": location}, body=b"")


def malformed() -> Behaviour:
    """200 with half a JSON object."""
    return Behaviour(body=b'{"choices": [{"mess', content_type="application/json")


def empty() -> Behaviour:
    """200 with no body."""
    return Behaviour(body=b"", content_type="application/json")


def html() -> Behaviour:
    """200 with a web page."""
    return Behaviour(body=b"<!doctype html><html><body>Welcome</body></html>", content_type="text/html")


def no_choices() -> Behaviour:
    """200 with `choices: []`."""
    return Behaviour(body=b'{"id": "x", "choices": [], "usage": {"prompt_tokens": 3}}', content_type="application/json")


def reset(after: After = "request", tokens: int = 2) -> Behaviour:
    """A TCP reset: before the headers, after them, or after some tokens."""
    return Behaviour(break_after=after, break_how="reset", break_tokens=tokens)


def cut(after: After = "tokens", tokens: int = 2) -> Behaviour:
    """A clean end of the bytes with no finish_reason and no [DONE].

    The server says beforehand that it will close: a connection that is closed unannounced may be taken for the next request.
    """
    return Behaviour(break_after=after, break_how="close", break_tokens=tokens, headers={"Connection": "close"})


def stall(after: After = "request", tokens: int = 2) -> Behaviour:
    """Silence until the client goes away."""
    return Behaviour(break_after=after, break_how="stall", break_tokens=tokens)


def drip(pace_s: float = 0.02, tokens: int = 1000) -> Behaviour:
    """A token now and then, for a long time."""
    return Behaviour(tokens=("drip ",) * tokens, pace_s=pace_s)


def broken_line(tokens: int = 2) -> Behaviour:
    """A line of the stream that is no JSON, after some tokens."""
    return Behaviour(broken_line=b'data: {"choices": [{"delta": {"con\n\n', break_tokens=tokens)


def error_in_band(tokens: int = 2, status: int = 500) -> Behaviour:
    """An error object within a stream that began with 200; within a whole answer instead of choices."""
    body = json.dumps({"error": {"message": "The engine died.", "type": "server_error", "code": status}}).encode()
    return Behaviour(broken_line=b"data: " + body + b"\n\n", break_tokens=tokens, body=None)


def finish(reason: str | None) -> Behaviour:
    """A whole answer with this finish_reason ("length", "content_filter", None ...)."""
    return Behaviour(finish=reason)


def huge(size_bytes: int = 9 * 1024 * 1024) -> Behaviour:
    """An answer of 9 MB; as a stream in lines of 64 kB."""
    return Behaviour(tokens=("x" * 65_536,) * (size_bytes // 65_536))


def huge_line(size_bytes: int = 2 * 1024 * 1024) -> Behaviour:
    """A stream with one line of 2 MB."""
    return Behaviour(tokens=("Hello ", "x" * size_bytes))


def _choice(delta: Mapping[str, Any], part: str, finish_reason: str | None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": 0, part: dict(delta), "finish_reason": finish_reason, "logprobs": logprobs}


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "top_logprobs": [{"token": token, "logprob": -0.5}, {"token": "no", "logprob": -2.0}]}


def stream_lines(behaviour: Behaviour, model: str) -> list[bytes]:
    """Return the events of a stream, tokens first, then finish, usage and [DONE]."""

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": choices, **more}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    deltas: list[tuple[dict[str, Any], Any]] = [({"reasoning_content": text}, None) for text in behaviour.reasoning]
    if behaviour.tool_calls:
        for place, arguments in enumerate(ARGUMENTS):
            start = {"id": "call_1", "type": "function"} if place == 0 else {}
            function = {"name": "weather", "arguments": arguments} if place == 0 else {"arguments": arguments}
            deltas.append(({"tool_calls": [{"index": 0, **start, "function": function}]}, None))
    else:
        deltas += [({"content": text}, {"content": [_logprob(text)]} if behaviour.logprobs else None) for text in behaviour.tokens]
    lines = [event([_choice(delta, "delta", None, logprobs)]) for delta, logprobs in deltas]
    if behaviour.broken_line is not None:
        lines.insert(min(behaviour.break_tokens, len(lines)), behaviour.broken_line)
    if behaviour.finish is not None:
        lines.append(event([_choice({}, "delta", behaviour.finish)]))
    if behaviour.usage is not None:
        lines.append(event([], usage=behaviour.usage))
    if behaviour.done:
        lines.append(b"data: [DONE]\n\n")
    return lines


def whole_body(behaviour: Behaviour, model: str) -> bytes:
    """Return the JSON of a whole answer."""
    if behaviour.broken_line is not None:
        return behaviour.broken_line.removeprefix(b"data: ").strip()
    message: dict[str, Any] = {"role": "assistant", "content": "".join(behaviour.tokens)}
    if behaviour.reasoning:
        message["reasoning_content"] = "".join(behaviour.reasoning)
    if behaviour.tool_calls:
        function = {"name": "weather", "arguments": "".join(ARGUMENTS)}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    logprobs = {"content": [_logprob(token) for token in behaviour.tokens]} if behaviour.logprobs else None
    body = {"id": "chatcmpl-1", "model": model, "choices": [_choice(message, "message", behaviour.finish, logprobs)]}
    if behaviour.usage is not None:
        body["usage"] = dict(behaviour.usage)
    return json.dumps(body).encode()
