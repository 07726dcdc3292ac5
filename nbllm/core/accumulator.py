"""Accumulator: pieces of an answer, gathered into text, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbllm.core.messages import Delta, Partial, ToolCallFragment


@dataclass(slots=True)
class _Call:
    """One tool call as it grows."""

    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def shape(self) -> dict[str, Any]:
        """Return it in OpenAI's shape. A call that came without an id gets one by its place, because its answer must name it."""
        return {
            "id": self.id or f"call_{self.index}",
            "type": "function",
            "function": {"name": self.name, "arguments": _joined(self.arguments)},
        }


class Accumulator:
    """Gathers Deltas. `add` is O(1) a piece; reading joins what came since the last reading.

    Tool calls are put together by index and come out in its order. A fragment that brings a name and another id than its index
    has had starts a new call: Gemini's OpenAI-compatible wire gives every parallel call the index 0, while older vLLM sends a
    fresh id with each fragment of one call, but its name only once.
    """

    __slots__ = ("_calls", "_latest", "_logprobs", "_reasoning", "_text")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._calls: list[_Call] = []
        self._latest: dict[int, _Call] = {}

    def add(self, delta: Delta) -> None:
        """Take one piece."""
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.logprobs:
            self._logprobs.extend(delta.logprobs)
        if delta.tool_call is not None:
            self._add_call(delta.tool_call)

    @property
    def text(self) -> str:
        """The text so far."""
        return _joined(self._text)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return _joined(self._reasoning)

    def partial(self) -> Partial:
        """Return what came so far, as a value of its own; arguments of a tool call may be cut."""
        return Partial(text=self.text, reasoning=self.reasoning, tool_calls=tuple(self._shapes()), logprobs=tuple(self._logprobs))

    def message(self) -> dict[str, Any]:
        """Return the assistant message of what came so far; see message_of."""
        return message_of(self.partial())

    def _add_call(self, piece: ToolCallFragment) -> None:
        call = self._latest.get(piece.index)
        if call is None or (piece.name and piece.id and call.id and piece.id != call.id):
            call = self._latest[piece.index] = _Call(piece.index)
            self._calls.append(call)
        call.id = call.id or piece.id
        if piece.name and piece.name != call.name:  # some providers repeat the whole name with each fragment
            call.name += piece.name
        if piece.arguments:
            call.arguments.append(piece.arguments)

    def _shapes(self) -> list[dict[str, Any]]:
        if not self._calls:
            return []
        # sorted() is stable: calls that share an index stay in the order in which they came.
        return [call.shape() for call in sorted(self._calls, key=lambda call: call.index)]


def message_of(came: Partial) -> dict[str, Any]:
    """Return the assistant message in OpenAI's shape, ready to be appended to a conversation.

    content is None where there are tool calls and no text, as OpenAI's API has it. Reasoning is not in it: providers refuse
    or ignore it on the way back.
    """
    message: dict[str, Any] = {"role": "assistant", "content": came.text or (None if came.tool_calls else "")}
    if came.tool_calls:
        message["tool_calls"] = list(came.tool_calls)
    return message


def fragments_of(calls: Iterable[Mapping[str, Any]]) -> Iterator[ToolCallFragment]:
    """Yield tool calls in OpenAI's shape, each as one fragment."""
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        yield ToolCallFragment(index, call.get("id", ""), function.get("name", ""), function.get("arguments", ""))


def _joined(pieces: list[str]) -> str:
    """Join, and keep the joined text as the only piece, so that the next reading joins only what is new."""
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""
