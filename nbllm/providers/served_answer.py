"""OpenAI's wire from the side that serves: answers, chunks and vectors as JSON. Pure: values in, bytes out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nbllm.core.messages import Delta, ToolCallFragment, Usage

encode = msgspec.json.Encoder().encode
EVENT_END = b"\n\n"
DONE = b"data: [DONE]\n\n"


def counts(usage: Usage) -> dict[str, Any] | None:
    """Return the counts as OpenAI has them; None while input or output is unknown, because a 0 would say that it was free."""
    into, out = usage.input_tokens, usage.output_tokens
    if into is None or out is None:
        return None
    said: dict[str, Any] = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
    if usage.cached_input_tokens is not None:
        said["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens is not None:
        said["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return said


def completion(
    head: Mapping[str, Any],
    message: Mapping[str, Any],
    *,
    reasoning: str = "",
    finish_reason: str | None,
    usage: Usage,
    logprobs: Iterable[Mapping[str, Any]] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a whole answer. head: id, created, model. message: the assistant's, in OpenAI's shape. more: members of our own."""
    said = {"refusal": None, **message}
    if reasoning:
        said["reasoning_content"] = reasoning
    entries = list(logprobs)
    choice = {
        "index": 0,
        "message": said,
        "logprobs": {"content": entries, "refusal": None} if entries else None,
        "finish_reason": finish_reason or "stop",
    }
    return {**head, "object": "chat.completion", "choices": [choice], "usage": counts(usage), **(more or {})}


class ChunkWriter:
    """Writes one answer as server-sent events, a Delta at a time. head: id, created, model, and what else each chunk is to say.

    Tool calls are numbered anew: a client puts fragments together by their index alone and adds up the texts of a field, so each
    call has an index of its own, and its id and name are said once.
    """

    __slots__ = ("_calls", "_head", "_latest", "_prefix")

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        # The JSON of a chunk of text is the same up to its text; what a dict and an encoder take is most of a chunk's cost.
        self._prefix = b"data: " + encode(self._head)[:-1] + b',"choices":[{"index":0,"delta":{"content":'
        self._calls = 0
        self._latest: dict[int, tuple[int, str]] = {}
        """The wire's index upstream -> the number here, and the id that it began with."""

    def first(self) -> bytes:
        """Return the chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> bytes:
        """Return a piece as a chunk."""
        if not (delta.reasoning or delta.logprobs or delta.tool_call):
            return self._prefix + encode(delta.text) + b'},"logprobs":null,"finish_reason":null}]}\n\n'
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.tool_call is not None:
            said["tool_calls"] = [self._fragment(delta.tool_call)]
        return self._chunk(said, logprobs={"content": delta.logprobs, "refusal": None} if delta.logprobs else None)

    def last(self, finish_reason: str | None, more: Mapping[str, Any] | None = None) -> bytes:
        """Return the chunk that ends the answer."""
        return self._chunk({}, finish_reason=finish_reason or "stop", more=more)

    def usage(self, usage: Usage) -> bytes:
        """Return the chunk of the counts, which has no choices."""
        return b"data: " + encode({**self._head, "choices": [], "usage": counts(usage)}) + EVENT_END

    def _chunk(
        self,
        delta: Mapping[str, Any],
        *,
        logprobs: Any = None,
        finish_reason: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return b"data: " + encode({**self._head, "choices": [choice], **(more or {})}) + EVENT_END

    def _fragment(self, piece: ToolCallFragment) -> dict[str, Any]:
        known = self._latest.get(piece.index)
        if known is None or (piece.name and piece.id and piece.id != known[1]):
            number, self._calls = self._calls, self._calls + 1
            identity = piece.id or f"call_{piece.index}"
            self._latest[piece.index] = number, identity
            function = {"name": piece.name, "arguments": piece.arguments}
            return {"index": number, "id": identity, "type": "function", "function": function}
        return {"index": known[0], "function": {"arguments": piece.arguments}}


def error_event(error: Mapping[str, Any]) -> bytes:
    """Return an error in the middle of a stream, as OpenAI's SDK reads it. Nothing comes after it, [DONE] neither."""
    return b"data: " + encode({"error": error}) + EVENT_END


def model_row(name: str, owner: str) -> dict[str, Any]:
    """Return one model as /v1/models has it. When it was made is not known, so it says 0."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def embeddings(model: str, vectors: Any, usage: Usage, *, packed: bool, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the answer of /v1/embeddings. vectors: float32 array of shape (texts, dimensions)."""
    if packed:
        rows = [base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") for vector in vectors]
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
    into = usage.input_tokens
    said = None if into is None else {"prompt_tokens": into, "total_tokens": into}
    return {"object": "list", "data": data, "model": model, "usage": said, **(more or {})}
