"""Answers on OpenAI's wire, well formed and not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.messages import ToolCallFragment, Usage
from nbllm.providers.answers import Answer, InBandError, NotAnAnswer, TooLarge, usage_of, vectors_of
from tests.providers.helpers import Heard


def chunk(delta: Any, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


def read(*chunks: Any, part: str = "delta", limit: int = 10_000) -> tuple[Answer, Heard]:
    heard = Heard()
    answer = Answer(heard, limit)
    for one in chunks:
        answer.take(one, part=part)
    return answer, heard


def test_chunks_without_content_tell_nothing() -> None:
    """Roles, empty deltas, prompt filter results and usage without choices are read and told to nobody as text."""
    answer, heard = read({"choices": []}, chunk({"role": "assistant", "content": ""}), chunk({}), chunk(None), {"usage": None})
    assert heard.deltas == []
    assert not answer.began


def test_reasoning_has_two_names() -> None:
    """DeepSeek and vLLM say reasoning_content, OpenRouter and newer vLLM say reasoning; both count as progress and not as text."""
    answer, heard = read(chunk({"reasoning_content": "a"}), chunk({"reasoning": "b"}), chunk({"content": "c"}))
    assert ("".join(delta.reasoning for delta in heard.deltas), heard.text) == ("ab", "c")
    assert answer.began


def test_content_in_parts_is_joined() -> None:
    """Mistral's reasoning models send thinking and text as parts of the content."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    _, heard = read(chunk({"content": parts}))
    assert (heard.deltas[0].reasoning, heard.text) == ("hm", "yes")


def test_several_tool_calls_keep_their_places() -> None:
    """Fragments with an index belong to it; where a server numbers nothing, a new id begins a new call."""
    numbered = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
        {"index": 1, "id": "b", "function": {"name": "g"}},
    ]
    _, heard = read(chunk({"tool_calls": numbered}), chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}))
    assert [delta.tool_call for delta in heard.deltas] == [
        ToolCallFragment(0, "a", "f", "{"),
        ToolCallFragment(1, "b", "g"),
        ToolCallFragment(0, arguments="}"),
    ]
    plain = [chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": "é"}}}]})]
    plain += [chunk({"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "1"}}]})]
    plain += [chunk({"tool_calls": [{"function": {"arguments": "2"}}]})]
    _, heard = read(*plain)
    assert [(delta.tool_call.index, delta.tool_call.arguments) for delta in heard.deltas if delta.tool_call] == [
        (0, '{"x": "é"}'),
        (1, "1"),
        (1, "2"),
    ]


@pytest.mark.parametrize(
    ("sent", "means"), [("stop", "stop"), ("eos", "stop"), ("end_turn", "stop"), ("model_length", "length"), ("new", "new")]
)
def test_finish_reasons_have_one_name_each(sent: str, means: str) -> None:
    """Other servers' words for stop and length are OpenAI's; an unknown word stays as it is."""
    answer, _ = read(chunk({"content": "x"}, sent))
    assert answer.finish == means


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_server_aborted_is_an_error(reason: str) -> None:
    """These finishes say that the answer is not whole."""
    with pytest.raises(InBandError):
        read(chunk({"content": "x"}, reason))


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, Usage(3, 2)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(None, 0)),
        ({"prompt_tokens": -1, "completion_tokens": "2"}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": 2.0}, Usage(None, 2)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}, Usage(9, None, None, 8)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 7}, Usage(9, None, None, 7)),
        ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}, Usage(None, 9, 4)),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(9, 5, 4),
        ),
        ({"prompt_tokens_details": None, "completion_tokens_details": 3}, Usage()),
        ([1], Usage()),
        ({"prompt_tokens": math.inf, "completion_tokens": 10**400}, Usage()),
    ],
)
def test_usage_is_what_is_billed_and_unknown_is_none(raw: Any, usage: Usage) -> None:
    """Counts, cached and reasoning tokens of all providers; nonsense and zeros that cannot be true are None."""
    assert usage_of(raw) == usage


def test_a_server_that_counts_nothing_does_not_make_text_free() -> None:
    """0 output tokens beside an answer with text is unknown."""
    answer, _ = read(chunk({"content": "x"}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 0}))
    assert answer.ending(None).usage == Usage(3, None)


def test_usage_is_told_when_it_changes() -> None:
    """Servers that repeat their counts in each chunk are heard once per change."""
    _, heard = read(*(chunk({"content": "x"}, usage={"completion_tokens": count}) for count in (1, 1, 2)))
    assert heard.usages == [Usage(None, 1), Usage(None, 2)]


def test_the_limit_counts_text_and_not_its_wrapping() -> None:
    """Ten characters in ten chunks of two hundred bytes each are ten; one more than the limit is too many."""
    read(*(chunk({"content": "x"}) for _ in range(10)), limit=10)
    with pytest.raises(TooLarge):
        read(*(chunk({"content": "x"}) for _ in range(11)), limit=10)


FIELDS = (
    "choices delta message content tool_calls function arguments index id usage logprobs error finish_reason reasoning refusal name"
    " text thinking data embedding model prompt_tokens_details"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=5),
    max_leaves=25,
)


@given(
    body=st.fixed_dictionaries({}, optional={"choices": st.lists(JSON, max_size=2), "usage": JSON, "error": JSON, "model": JSON})
    | JSON
)
def test_no_json_breaks_the_reader(body: Any) -> None:
    """Whatever a server sends, it is read, or it is one of the three known failures: nothing else escapes."""
    for part in ("delta", "message"):
        try:
            answer, heard = read(body, part=part)
        except (NotAnAnswer, InBandError, TooLarge):
            continue
        answer.ending(None)
        assert all(isinstance(delta.text, str) and isinstance(delta.reasoning, str) for delta in heard.deltas)


@given(piece=JSON, logprobs=JSON, finish=JSON)
def test_no_choice_breaks_the_reader(piece: Any, logprobs: Any, finish: Any) -> None:
    """The same, with the junk one level deeper."""
    body = {"choices": [{"delta": piece, "message": piece, "logprobs": logprobs, "finish_reason": finish}]}
    for part in ("delta", "message"):
        try:
            answer, _ = read(body, part=part)
        except (NotAnAnswer, InBandError, TooLarge):
            continue
        assert answer.finish is None or isinstance(answer.finish, str)


@given(body=JSON, texts=st.integers(0, 2))
def test_no_json_breaks_embeddings(body: Any, texts: int) -> None:
    """Embeddings are vectors of one length for every text, or a known failure."""
    try:
        vectors = vectors_of(body, texts)
    except (NotAnAnswer, InBandError):
        return
    assert len(vectors) == texts


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": "%%%"}, {"index": 1, "embedding": "%%%"}],
        [{"index": 0, "embedding": "AAA="}, {"index": 1, "embedding": "AAA="}],
        [{"index": 0, "embedding": [10**400]}, {"index": 1, "embedding": [1]}],
        [{"index": 0, "embedding": [True]}, {"index": 1, "embedding": [None]}],
    ],
)
def test_embeddings_that_do_not_fit_are_refused(data: Any) -> None:
    """Too few, numbered twice, of two lengths, empty, or no numbers."""
    with pytest.raises(NotAnAnswer):
        vectors_of({"data": data}, 2)
