"""What comes back on OpenAI's wire, as deltas and an Ending. Pure: JSON values in, calls on Progress out."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from nbllm.core.messages import Delta, Ending, ToolCallFragment, Usage
from nbllm.core.ports import Progress
from nbllm.core.records import MOST_TOKENS

FINISH_NAMES = {
    "eos": "stop",  # Together
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "function_call": "tool_calls",
}
_ABORTED = {"error", "abort", "cancelled", "insufficient_system_resource"}  # OpenRouter, vLLM, DeepSeek
_MOST_TOOL_CALLS = 1024


class NotAnAnswer(Exception):
    """The JSON is no answer; the text says why."""


class InBandError(Exception):
    """An error object inside a 200. `body` is what held it."""

    def __init__(self, body: Any) -> None:
        super().__init__("an error inside the answer")
        self.body = body


class TooLarge(Exception):
    """The answer holds more than it may."""


class Answer:
    """Reads one answer, whole or in chunks, and tells progress what comes. `began`: a piece was told; `finished`: a finish came."""

    __slots__ = (
        "_last_tool",
        "_limit",
        "_progress",
        "_refusal",
        "_size",
        "_usage",
        "began",
        "finish",
        "has_content",
        "model",
        "name",
    )

    def __init__(self, progress: Progress, limit_bytes: int) -> None:
        self._progress = progress
        self._limit = limit_bytes
        self._size = 0
        self._usage = Usage()
        self._refusal: list[str] = []
        self._last_tool = -1
        self.began = False
        self.has_content = False
        self.finish: str | None = None
        self.model: str | None = None
        self.name: str | None = None

    def take(self, body: Any, *, part: str) -> None:
        """Read a chunk (part "delta") or a whole answer (part "message"). Raises NotAnAnswer, InBandError or TooLarge."""
        if type(body) is not dict:
            raise NotAnAnswer("the JSON is no object")
        if body.get("error"):
            raise InBandError(body)
        usage = body.get("usage")
        if usage:
            self._count(usage)
        choices = body.get("choices")
        if self.model is None:
            model, name = body.get("model"), body.get("id")
            self.model = model if isinstance(model, str) and model else None
            self.name = name if isinstance(name, str) and name else None
        if not choices:
            if part == "message":
                raise NotAnAnswer("it has no choices")
            return
        choice = choices[0] if isinstance(choices, list) else None
        if type(choice) is not dict:
            raise NotAnAnswer("its choices are no list of objects")
        if choice.get("index"):
            return
        piece = choice.get(part)
        if type(piece) is dict:
            self._piece(piece, choice.get("logprobs"))
        elif piece is not None or part == "message":
            raise NotAnAnswer(f"its {part} is no object")
        finish = choice.get("finish_reason")
        if finish:
            if not isinstance(finish, str):
                raise NotAnAnswer("its finish_reason is no text")
            if finish in _ABORTED:
                raise InBandError({"error": {"message": f"the server ended the answer with finish_reason {finish!r}"}})
            self.finish = FINISH_NAMES.get(finish, finish)

    def ending(self, request_id: str | None) -> Ending:
        """Return how it ended, as far as it came."""
        usage = self._usage
        if usage.output_tokens == 0 and self.has_content:
            # A server that counts nothing sends 0; that is unknown, not free.
            usage = Usage(usage.input_tokens, None, usage.reasoning_tokens, usage.cached_input_tokens)
        return Ending(finish_reason=self.finish, usage=usage, model=self.model, request_id=request_id or self.name)

    @property
    def refusal(self) -> str:
        """What the model said instead of an answer, "" without a refusal."""
        return "".join(self._refusal)

    def _piece(self, piece: Mapping[str, Any], logprobs: Any) -> None:
        get = piece.get
        text, reasoning = get("content") or "", get("reasoning_content") or get("reasoning") or ""
        if type(text) is not str:
            text, thought = _joined(text)
            reasoning = reasoning or thought
        if type(reasoning) is not str:
            raise NotAnAnswer("its reasoning is no text")
        calls = get("tool_calls")
        refusal = get("refusal")
        if refusal and isinstance(refusal, str):
            self._refusal.append(refusal)
        fragments = list(self._fragments(calls)) if calls else ()
        if not (text or reasoning or fragments):
            return
        self._size += len(text) + len(reasoning) + sum(len(fragment.arguments) for fragment in fragments)
        if self._size > self._limit:
            raise TooLarge
        self.began = True
        self.has_content = self.has_content or bool(text or fragments)
        tell = self._progress.delta
        tell(Delta(text, reasoning, fragments[0] if fragments else None, _logprobs(logprobs) if logprobs else ()))
        for fragment in fragments[1:]:
            tell(Delta(tool_call=fragment))

    def _fragments(self, calls: Any) -> Iterator[ToolCallFragment]:
        if not isinstance(calls, list):
            raise NotAnAnswer("its tool_calls are no list")
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            if function is None and isinstance(call, dict):
                function = {}
            if not isinstance(function, dict):
                raise NotAnAnswer("a tool call is no object")
            index, identity = call.get("index"), call.get("id")
            if type(index) is not int or not 0 <= index < _MOST_TOOL_CALLS:
                # Some servers number nothing: a new id begins a new call, no id goes on with the last one.
                index = self._last_tool + 1 if identity or self._last_tool < 0 else self._last_tool
            self._last_tool = index
            name, arguments = function.get("name"), function.get("arguments")
            if isinstance(arguments, (dict, list)):
                arguments = json.dumps(arguments, ensure_ascii=False)
            yield ToolCallFragment(index, _text(identity), _text(name), _text(arguments))

    def _count(self, raw: Any) -> None:
        usage = usage_of(raw)
        if usage != self._usage:
            self._usage = usage
            self._progress.usage(usage)


def usage_of(raw: Any) -> Usage:
    """Return OpenAI's usage object as counts; None for what is missing, negative or no number.

    Prompts have at least one token, so 0 input tokens is unknown. Where total = prompt + completion + reasoning (xAI), reasoning is
    not within completion_tokens and is added: output_tokens is always all that is billed as output.
    """
    if not isinstance(raw, Mapping):
        return Usage()
    output_details, input_details = raw.get("completion_tokens_details"), raw.get("prompt_tokens_details")
    input_tokens, output_tokens = _count_of(raw.get("prompt_tokens")), _count_of(raw.get("completion_tokens"))
    reasoning = _count_of(output_details.get("reasoning_tokens")) if isinstance(output_details, Mapping) else None
    cached = _count_of(input_details.get("cached_tokens")) if isinstance(input_details, Mapping) else None
    if cached is None:
        cached = _count_of(raw.get("prompt_cache_hit_tokens"))  # DeepSeek
    total = _count_of(raw.get("total_tokens"))
    if reasoning and output_tokens is not None and total == (input_tokens or 0) + output_tokens + reasoning:
        output_tokens += reasoning
    return Usage(input_tokens or None, output_tokens, reasoning, cached)


def vectors_of(body: Any, texts: int) -> tuple[tuple[float, ...], ...]:
    """Return the embeddings in the order of the texts; lists of numbers, or base64 of little-endian float32. Raises NotAnAnswer."""
    if not isinstance(body, dict):
        raise NotAnAnswer("the JSON is no object")
    if body.get("error"):
        raise InBandError(body)
    data = body.get("data")
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise NotAnAnswer("it has no list of embeddings")
    if len(data) != texts:
        raise NotAnAnswer(f"it has {len(data)} embeddings for {texts} texts")
    places = [item.get("index", place) for place, item in enumerate(data)]
    if sorted(place for place in places if type(place) is int) != list(range(texts)):
        raise NotAnAnswer("its embeddings are not numbered from 0")
    vectors = [_vector(item.get("embedding")) for _, item in sorted(zip(places, data, strict=True), key=lambda pair: pair[0])]
    if len({len(vector) for vector in vectors}) > 1:
        raise NotAnAnswer("its embeddings differ in length")
    return tuple(vectors)


def _vector(raw: Any) -> tuple[float, ...]:
    if isinstance(raw, str):
        try:
            numbers = array("f")
            numbers.frombytes(base64.b64decode(raw, validate=True))
        except (binascii.Error, ValueError) as exc:
            raise NotAnAnswer("an embedding is no base64 of float32 numbers") from exc
        if sys.byteorder == "big":
            numbers.byteswap()
        vector = tuple(numbers)
    elif isinstance(raw, list) and all(type(number) in {float, int} for number in raw):
        try:
            vector = tuple(map(float, raw))
        except OverflowError as exc:
            raise NotAnAnswer("an embedding holds a number that is no float") from exc
    else:
        raise NotAnAnswer("an embedding is no list of numbers")
    if not vector:
        raise NotAnAnswer("an embedding is empty")
    return vector


def _joined(parts: Any) -> tuple[str, str]:
    """Return text and thinking of content that is a list of parts, as Mistral's reasoning models send it."""
    if not isinstance(parts, list):
        raise NotAnAnswer("its content is no text")
    text: list[str] = []
    thinking: list[str] = []
    for part in parts:
        if not isinstance(part, dict):
            raise NotAnAnswer("its content is no text")
        thought = part.get("thinking")
        if isinstance(thought, list):
            thinking.append(_joined(thought)[0])
        elif thought:
            thinking.append(_text(thought))
        text.append(_text(part.get("text")))
    return "".join(text), "".join(thinking)


def _logprobs(raw: Any) -> tuple[Mapping[str, Any], ...]:
    tokens = raw.get("content") if isinstance(raw, dict) else None
    return tuple(token for token in tokens if isinstance(token, dict)) if isinstance(tokens, list) else ()


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else ""


def _count_of(raw: Any) -> int | None:
    if type(raw) is int or (type(raw) is float and raw.is_integer()):
        return int(raw) if 0 <= raw <= MOST_TOKENS else None
    return None
