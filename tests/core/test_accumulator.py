"""Pieces of an answer, gathered."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Delta, Partial, ToolCallFragment

PIECES = st.builds(
    Delta,
    text=st.text(max_size=5),
    reasoning=st.text(max_size=5),
    logprobs=st.lists(st.builds(dict, token=st.text(max_size=3)), max_size=2).map(tuple),
)


def gathered(*deltas: Delta) -> Accumulator:
    """Return an accumulator that took these."""
    accumulator = Accumulator()
    for delta in deltas:
        accumulator.add(delta)
    return accumulator


def call(index: int, id: str = "", name: str = "", arguments: str = "") -> Delta:  # noqa: A002 - the wire's name
    """Return a Delta with one fragment of a tool call."""
    return Delta(tool_call=ToolCallFragment(index, id, name, arguments))


def function(id: str, name: str, arguments: str) -> dict:  # noqa: A002 - the wire's name
    """Return a tool call in OpenAI's shape."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


@given(deltas=st.lists(PIECES, max_size=30), looks=st.sets(st.integers(0, 30)))
def test_nothing_is_lost_or_added(deltas, looks):
    """Text, reasoning and logprobs are the pieces in order, also when the answer is looked at in between."""
    accumulator = Accumulator()
    for number, delta in enumerate(deltas):
        accumulator.add(delta)
        if number in looks:
            assert accumulator.partial().text == "".join(d.text for d in deltas[: number + 1])
    assert accumulator.partial() == Partial(
        text="".join(d.text for d in deltas),
        reasoning="".join(d.reasoning for d in deltas),
        logprobs=tuple(token for d in deltas for token in d.logprobs),
    )
    assert accumulator.text == accumulator.partial().text
    assert accumulator.reasoning == accumulator.partial().reasoning


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=4)), max_size=40))
def test_interleaved_tool_calls_are_put_together_by_index(pieces):
    """Fragments of several calls may come in any order: each call's arguments are its own, in order, and calls go by index."""
    accumulator, seen = Accumulator(), {}
    for index, arguments in pieces:
        first = index not in seen
        seen[index] = seen.get(index, "") + arguments
        accumulator.add(call(index, f"id{index}" if first else "", f"f{index}" if first else "", arguments))
    assert list(accumulator.partial().tool_calls) == [function(f"id{i}", f"f{i}", seen[i]) for i in sorted(seen)]


def test_the_message_can_be_appended_to_a_conversation():
    """The assistant message has OpenAI's shape: text, or tool calls with content None; never reasoning."""
    assert gathered(Delta(reasoning="hm"), Delta(text="Hi")).message() == {"role": "assistant", "content": "Hi"}
    assert gathered().message() == {"role": "assistant", "content": ""}
    called = gathered(call(0, "c1", "look", '{"a"'), call(0, arguments=": 1}"))
    assert called.message() == {"role": "assistant", "content": None, "tool_calls": [function("c1", "look", '{"a": 1}')]}
    called.add(Delta(text="Looking."))
    assert called.message()["content"] == "Looking."


def test_parallel_calls_that_all_claim_index_zero():
    """Gemini's wire gives every parallel call index 0: a fragment with a name and another id begins a new call."""
    partial = gathered(call(0, "a", "f", "{}"), call(0, "b", "f", "{"), call(0, arguments="}")).partial()
    assert list(partial.tool_calls) == [function("a", "f", "{}"), function("b", "f", "{}")]


def test_a_fresh_id_with_each_fragment_is_one_call():
    """Older vLLM sends a new id with each fragment and the name once: that is one call, under its first id."""
    partial = gathered(call(0, "a", "f"), call(0, "b", "", "{"), call(0, "c", "", "}")).partial()
    assert list(partial.tool_calls) == [function("a", "f", "{}")]


def test_a_name_that_is_repeated_is_not_doubled():
    """Providers that repeat the whole name with each fragment do not make it ff."""
    partial = gathered(call(0, "a", "f", "{"), call(0, "a", "f", "}")).partial()
    assert list(partial.tool_calls) == [function("a", "f", "{}")]


def test_a_call_without_an_id_gets_one():
    """A tool message must name the call that it answers, so a call never has an empty id."""
    assert gathered(call(2, "", "f", "{}")).partial().tool_calls[0]["id"] == "call_2"


def test_many_pieces_take_linear_time():
    """Adding is constant: 200,000 pieces take about ten times as long as 20,000, not a hundred times."""

    def seconds(pieces: int) -> float:
        accumulator, delta, started = Accumulator(), Delta(text="word "), time.thread_time()
        for _ in range(pieces):
            accumulator.add(delta)
        assert len(accumulator.partial().text) == 5 * pieces
        return time.thread_time() - started

    seconds(1_000)
    assert min(seconds(200_000) for _ in range(2)) < 50 * max(seconds(20_000), 1e-4)
