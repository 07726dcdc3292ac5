"""Which requests take part in the semantic cache, and what is compared with what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbllm.core.messages import Chat, Embed, Options, Rung
from nbllm.core.semantic import MAX_QUESTION_CHARS, NotAsked, Question, question_of
from nbllm.core.semantic.about_now import about_now
from nbllm.settings import Endpoint

RUNG = Rung(
    id="lab/m", model="m", endpoint_name="lab", endpoint=Endpoint(base_url="http://127.0.0.1:1/v1"), provider="openai_compatible",
    identity="http://127.0.0.1:1/v1", price=None,
)  # fmt: skip
ASKED = {"role": "user", "content": "How do I reset my password?"}
CHAT = Chat(messages=({"role": "system", "content": "Be brief."}, ASKED))


def question(content: Any = CHAT, *, options: Options | None = None, rung: Rung = RUNG, embedder: str = "lexical/1") -> Question:
    found = question_of(content, options or Options(), rung, embedder=embedder)
    assert isinstance(found, Question), found
    return found


OTHERS: dict[str, Any] = {
    "system prompt": {"content": replace(CHAT, messages=({"role": "system", "content": "Be long."}, ASKED))},
    "a turn before": {"content": replace(CHAT, messages=(CHAT.messages[0], {"role": "assistant", "content": "Hi"}, ASKED))},
    "name": {"content": replace(CHAT, messages=(CHAT.messages[0], {**ASKED, "name": "Ann"}))},
    "temperature": {"content": replace(CHAT, temperature=0.5)},
    "max_tokens": {"content": replace(CHAT, max_tokens=5)},
    "schema": {"content": replace(CHAT, json_schema={"type": "object"})},
    "response_format": {"content": replace(CHAT, response_format={"type": "json_object"})},
    "sample": {"content": replace(CHAT, sample=1)},
    "partition": {"content": replace(CHAT, partition="tenant-2")},
    "extra": {"content": replace(CHAT, extra={"top_k": 1})},
    "model": {"rung": replace(RUNG, model="m2")},
    "endpoint": {"rung": replace(RUNG, identity="http://127.0.0.1:2/v1")},
    "embedder": {"embedder": "lexical/2"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_nothing_is_compared_across(what: str) -> None:
    """Whatever else can change an answer, or its vector, makes another partition."""
    assert question(**OTHERS[what]).partition != question().partition


def test_the_last_question_alone_is_compared() -> None:
    """Two requests that differ in the last message's text alone are in one partition, however the text is written."""
    other = {"role": "user", "content": "Password reset: how?"}
    parts = {"role": "user", "content": [{"type": "text", "text": "Password"}, {"type": "text", "text": "reset?"}]}
    for last, text in ((other, other["content"]), (parts, "Password\nreset?")):
        found = question(replace(CHAT, messages=(CHAT.messages[0], last)))
        assert (found.partition, found.text) == (question().partition, text)


def test_a_plan_is_made_for_a_scope() -> None:
    """Model, system prompt and parameters are a plan's scope; the conversation so far, the sample, the tenant are not."""
    same = ("a turn before", "sample", "partition", "embedder")
    for what, change in OTHERS.items():
        assert (question(**change).scope == question().scope) == (what in same), what


REFUSED: dict[str, tuple[Any, Options]] = {
    "embeddings": (Embed(texts=("a",)), Options()),
    "switched off": (CHAT, Options(semantic=False)),
    'cache="off"': (CHAT, Options(cache="off")),
    "tools act": (replace(CHAT, tools=({"type": "function", "function": {"name": "f"}},)), Options()),
    "calls with tools": (replace(CHAT, messages=({"role": "tool", "content": "5", "tool_call_id": "1"}, ASKED)), Options()),
    "tools": (replace(CHAT, messages=({"role": "assistant", "tool_calls": [{}]}, ASKED)), Options()),
    "not a user's text": (replace(CHAT, messages=({"role": "assistant", "content": "x"},)), Options()),
    "a user's text": (
        replace(CHAT, messages=({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},)),
        Options(),
    ),
    "empty": (replace(CHAT, messages=({"role": "user", "content": " \n"},)), Options()),
    "longer": (replace(CHAT, messages=({"role": "user", "content": "x" * (MAX_QUESTION_CHARS + 1)},)), Options()),
    "now": (replace(CHAT, messages=({"role": "user", "content": "What is the weather today?"},)), Options()),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_takes_no_part_says_why(why: str) -> None:
    """Calls whose answers must not be shared take no part, and each says why."""
    content, options = REFUSED[why]
    found = question_of(content, options, RUNG, embedder="lexical/1")
    assert isinstance(found, NotAsked)
    assert why.split(maxsplit=1)[0].casefold() in found.reason.casefold()


@pytest.mark.parametrize(
    "text",
    [
        "What's the latest version of numpy?", "Who is currently the mayor?", "Is the shop open right now?",
        "How is the weather in Rome?",
        "Wie spät ist es?", "Was ist heute los?", "¿Qué hora es?", "noticias de hoy", "TODAY's menu", "What happened this week?",
    ],
)  # fmt: skip
def test_questions_about_now_are_seen(text: str) -> None:
    """A question whose answer is another tomorrow is one about now, in three languages."""
    assert about_now(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I know my size?",
        "What does 'snow' mean?",
        "Where did Goethe live?",
        "How do I reset my password?",
        "Was ist ein Heutest?",
    ],
)
def test_other_questions_are_not_about_now(text: str) -> None:
    """Words that only hold such a word inside are none."""
    assert about_now(text) is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_has_a_question_or_a_reason(one: str, other: str) -> None:
    """Whatever people write, lone surrogates too, is compared or refused, never an error; equal texts are equal questions."""
    chats = [Chat(messages=({"role": "system", "content": other}, {"role": "user", "content": one})) for _ in range(2)]
    first, second = (question_of(chat, Options(), RUNG, embedder="e") for chat in chats)
    assert first == second
