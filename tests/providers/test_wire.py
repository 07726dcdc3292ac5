"""Bodies of requests."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.messages import Chat, Content, Embed
from nbllm.errors import InvalidRequest
from nbllm.providers.wire import MEDIA_ALLOWANCE_BYTES, SCHEMA_PROMPT, request_body, request_bytes
from tests.providers.helpers import endpoint, wire

USER = {"role": "user", "content": "Grüezi {x}"}
LAB = "http://127.0.0.1:8000/v1"


def body(content: Content, *, streamed: bool = False, **fields: Any) -> dict[str, Any]:
    return json.loads(request_body(wire(endpoint(fields.pop("base_url", LAB), **fields), content, streamed=streamed)))


def test_a_plain_request_holds_the_model_and_the_messages_and_nothing_else() -> None:
    """What is None is not sent; the JSON is compact UTF-8."""
    assert (
        request_body(wire(LAB, Chat(messages=(USER,))))
        == '{"model":"m","messages":[{"role":"user","content":"Grüezi {x}"}]}'.encode()
    )


def test_every_parameter_is_sent_under_its_name() -> None:
    """All of Chat reaches the wire, zeros and False included."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    chat = Chat(
        messages=(USER,), temperature=0.0, max_tokens=5, top_p=1.0, seed=0, stop=("a",), tools=(tool,), logprobs=3,
        response_format={"type": "json_object"}, extra={"top_k": 4},
    )  # fmt: skip
    assert body(chat, streamed=True) == {
        "model": "m", "messages": [USER], "temperature": 0.0, "max_tokens": 5, "top_p": 1.0, "seed": 0, "stop": ["a"],
        "tools": [tool],
        "logprobs": True, "top_logprobs": 3, "response_format": {"type": "json_object"}, "top_k": 4,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_messages_pass_through_untouched() -> None:
    """Content parts, tool messages, unknown keys and read-only mappings arrive as they are."""
    messages = (
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:,"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "x", "vendor_field": [1, None, True]},
    )
    frozen = tuple(types.MappingProxyType(message) for message in messages)
    assert body(Chat(messages=frozen))["messages"] == list(messages)


@pytest.mark.parametrize(("asked", "sent"), [(True, (True, None)), (False, (False, None)), (0, (True, 0)), (5, (True, 5))])
def test_logprobs_are_a_flag_or_a_number(asked: bool | int, sent: tuple[bool, int | None]) -> None:
    """True asks for the tokens' own, a number for alternatives too, 0 included."""
    made = body(Chat(messages=(USER,), logprobs=asked))
    assert (made["logprobs"], made.get("top_logprobs")) == sent


def test_a_schema_becomes_json_mode_where_the_endpoint_has_it() -> None:
    """json_mode None and True send the schema, False does not; a response_format of the user's own wins."""
    schema = {"title": "An Answer: no. 1", "type": "object"}
    chat = Chat(messages=(USER,), json_schema=schema)
    wanted = {"type": "json_schema", "json_schema": {"name": "An_Answer_no_1", "schema": schema}}
    assert body(chat)["response_format"] == wanted
    assert body(chat, json_mode=True)["response_format"] == wanted
    assert "response_format" not in body(chat, json_mode=False)
    own = Chat(messages=(USER,), json_schema=schema, response_format={"type": "text"})
    assert body(own)["response_format"] == {"type": "text"}
    assert body(Chat(messages=(USER,), json_schema={"title": "???"}))["response_format"]["json_schema"]["name"] == "answer"


def test_openai_itself_gets_max_completion_tokens() -> None:
    """Its newer models refuse max_tokens; other servers of this wire know only that."""
    chat = Chat(messages=(USER,), max_tokens=5)
    assert body(chat, base_url="https://api.openai.com/v1")["max_completion_tokens"] == 5
    assert body(chat, base_url="https://api.groq.com/openai/v1")["max_tokens"] == 5


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"model": "other"}, "model"),
        ({"messages": []}, "messages"),
        ({"stream": True}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"n": 2}, "n"),
        ({"n": True and 3}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 9}, "max_tokens"),
        ({"max_completion_tokens": 9}, "max_completion_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"x": float("nan")}, "JSON"),
        ({"x": object()}, "object"),
        ({"x": "\ud800"}, "U[+]D800"),
    ],
)
def test_extra_may_not_override_what_nbllm_answers_for(extra: dict[str, Any], named: str) -> None:
    """Model, messages, stream, several answers, what is given by name, and what is no JSON are refused, named, with what to do."""
    chat = Chat(messages=(USER,), max_tokens=5, temperature=1.0, extra=extra)
    with pytest.raises(InvalidRequest, match=named) as caught:
        request_body(wire(LAB, chat))
    assert caught.value.hint
    assert "Nothing was sent" in str(caught.value)


def test_one_answer_is_allowed_by_name() -> None:
    """n=1 asks for what nbllm asks for anyway, and an unused name may come through extra."""
    assert body(Chat(messages=(USER,), extra={"n": 1, "temperature": 0.5}))["temperature"] == 0.5


def test_embeddings_have_texts_and_extra() -> None:
    """An embedding request holds its texts, and never a stream."""
    made = body(Embed(texts=("a", "b"), extra={"dimensions": 8}), streamed=True)
    assert made == {"model": "m", "input": ["a", "b"], "dimensions": 8}
    with pytest.raises(InvalidRequest, match="input"):
        body(Embed(texts=("a",), extra={"input": "b"}))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_the_bound_is_never_below_the_text(texts: list[str]) -> None:
    """request_bytes is at least the UTF-8 bytes of all texts plus a template's few bytes a message, for chats and embeddings."""
    size = sum(len(text.encode()) for text in texts)
    chat = Chat(messages=tuple({"role": "user", "content": text} for text in texts))
    assert request_bytes(chat) >= size + 16 * len(texts)
    assert request_bytes(Embed(texts=tuple(texts))) >= size


def test_a_schema_that_is_not_sent_natively_stands_in_the_system_prompt() -> None:
    """At the end of the system or developer prompt, text or parts, or in one of its own; a user's own json_schema stands alone."""
    schema = {"type": "object", "title": "Größe"}
    asked = SCHEMA_PROMPT + '{"type":"object","title":"Größe"}'
    part = {"type": "text", "text": "Be brief."}

    def sent(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        return body(Chat(messages=messages, json_schema=schema, **fields), json_mode=False)["messages"]

    assert sent(USER) == [{"role": "system", "content": asked}, USER]
    for role in ("system", "developer"):
        brief = {"role": role, "content": "Be brief.", "name": "x"}
        assert sent(brief, USER) == [{**brief, "content": f"Be brief.\n\n{asked}"}, USER]
        assert sent({"role": role, "content": [part]}, USER)[0]["content"] == [part, {"type": "text", "text": asked}]
    assert sent(USER, response_format={"type": "json_object"})[0]["content"] == asked
    own = {"type": "json_schema", "json_schema": {"name": "own", "schema": {}}}
    assert sent(USER, response_format=own) == [USER]
    assert request_body(wire(LAB, Chat(messages=(USER,), json_schema=schema)), schema_in_prompt=True) == request_body(
        wire(endpoint(LAB, json_mode=False), Chat(messages=(USER,), json_schema=schema))
    )


@given(schema=st.dictionaries(TEXTS, TEXTS, max_size=4), title=TEXTS, system=st.booleans(), streamed=st.booleans())
def test_the_bound_holds_wherever_the_schema_stands(schema: dict[str, Any], title: str, system: bool, streamed: bool) -> None:
    """request_bytes is at least the body without the model's name, in response_format and in the prompt."""
    messages = ({"role": "system", "content": "s"}, USER) if system else (USER,)
    chat = Chat(messages=messages, json_schema={**schema, "title": title * 3}, max_tokens=5)
    for in_prompt in (False, True):
        made = request_body(wire(LAB, chat, streamed=streamed), schema_in_prompt=in_prompt)
        assert len(made) - len("m") <= request_bytes(chat)


def test_an_image_counts_more_than_its_address() -> None:
    """A short address can stand for a large image, so each medium has an allowance of its own."""
    image = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
    text = {"type": "text", "text": "What is it?"}
    plain, both = (Chat(messages=({"role": "user", "content": parts},)) for parts in ([text], [text, image, image]))
    assert request_bytes(both) >= request_bytes(plain) + 2 * MEDIA_ALLOWANCE_BYTES
