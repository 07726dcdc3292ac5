"""The part of a request that is compared, and the partition that it is compared within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Chat, Content, Message, Options, Rung
from nbllm.core.semantic.about_now import about_now

MAX_QUESTION_CHARS = 2_000
"""Longer questions are asked: embedders cut them, and what they leave out may be what matters."""


class Question(Struct, frozen=True, gc=False):
    """What is asked. text: the last message of the user, as it is embedded and compared.

    partition: everything else that can change the answer, hashed with the embedder that compares: model, endpoint, all messages
    before, parameters, schema, sample, the caller's partition. Nothing is ever compared across partitions. scope: the same without
    the conversation so far and without the embedder: what a plan was calibrated for (model, system prompt, parameters).
    """

    text: str
    partition: str
    scope: str


class NotAsked(Struct, frozen=True, gc=False):
    """Why a request takes no part in the semantic cache, in words."""

    reason: str


def question_of(content: Content, options: Options, rung: Rung, *, embedder: str) -> Question | NotAsked:
    """Return the question of a request on a rung, or why it has none. embedder: its name and version."""
    if not isinstance(content, Chat):
        return NotAsked("embeddings are not answers")
    if options.semantic is False:
        return NotAsked("switched off for this call")
    if options.cache == "off":
        return NotAsked('cache="off"')
    if content.tools or any(_used_tools(message) for message in content.messages):
        return NotAsked("calls with tools act on the world")
    *before, last = content.messages
    text = _text(last) if last.get("role") == "user" else None
    if text is None:
        return NotAsked("the last message is not a user's text")
    if not text.strip():
        return NotAsked("the question is empty")
    if len(text) > MAX_QUESTION_CHARS:
        return NotAsked(f"the question is longer than {MAX_QUESTION_CHARS:,} characters")
    now = about_now(text) or next(filter(None, (about_now(_text(m) or "") for m in before if m.get("role") == "user")), None)
    if now is not None:
        return NotAsked(f"a question about now ({now!r})")
    return Question(text, _hashed(content, (*before, _without_text(last)), rung, embedder), _scope(content, last, rung))


def _used_tools(message: Message) -> bool:
    return message.get("role") in ("tool", "function") or bool(message.get("tool_calls") or message.get("function_call"))


def _text(message: Message) -> str | None:
    """Return the text of a message that has nothing else."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or not all(_is_text(part) for part in content):
        return None
    return "\n".join(part["text"] for part in content)


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _without_text(message: Message) -> Message:
    return {**message, "content": ""}


def _hashed(content: Chat, messages: tuple[Message, ...], rung: Rung, *more: str) -> str:
    key = fingerprint(replace(content, messages=messages), rung)
    return sha256("\n".join((key, *more)).encode("utf-8", "surrogatepass")).hexdigest()


def _scope(content: Chat, last: Message, rung: Rung) -> str:
    systems = tuple(m for m in content.messages[:-1] if m.get("role") in ("system", "developer"))
    return _hashed(replace(content, sample=0, partition=""), (*systems, _without_text(last)), rung)
