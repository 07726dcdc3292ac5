"""One request to a server that answers: text, usage, tool calls, vectors arrive as they were sent."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm.core.messages import Embed, Ending, Usage
from nbllm.errors import (
    BadAnswer,
    ServerFailed,
)
from tests import fault_behaviours as faults
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer
from tests.providers.helpers import BOTH, exchange, run


@BOTH
def test_a_good_answer_arrives_with_its_usage(streamed: bool) -> None:
    """Text, finish, usage, model and id of a good answer arrive; a stream in pieces, a whole answer in one."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.ok(headers={"x-request-id": "req-1"}), streamed=streamed)
            assert ending == Ending(finish_reason="stop", usage=Usage(12, 5), model="m", request_id="req-1")
            assert heard.text == "One two three four five."
            assert len(heard.deltas) == (5 if streamed else 1)
            assert heard.usages == [Usage(12, 5)]
            assert heard.sent_count == 1
            body = server.requests[0].body
            assert server.requests[0].path == "/v1/chat/completions"
            assert body.get("stream", False) is streamed
            assert (body.get("stream_options") == {"include_usage": True}) is streamed

    run(scenario())


@BOTH
def test_tool_calls_reasoning_and_logprobs_arrive(streamed: bool) -> None:
    """Fragments of a tool call join to its arguments, reasoning is apart from the text, logprobs come per token."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.ok(tool_calls=True), streamed=streamed)
            calls = [delta.tool_call for delta in heard.deltas if delta.tool_call]
            assert isinstance(ending, Ending)
            assert ending.finish_reason == "tool_calls"
            assert (calls[0].id, calls[0].name) == ("call_1", "weather")
            assert "".join(call.arguments for call in calls) == '{"city": "Bern"}'
            _, heard = await exchange(server, faults.ok(reasoning=("Let me ", "think.")), streamed=streamed)
            assert "".join(delta.reasoning for delta in heard.deltas) == "Let me think."
            assert heard.text == "One two three four five."
            _, heard = await exchange(server, faults.ok("a", "b", logprobs=True), streamed=streamed)
            tokens = [token for delta in heard.deltas for token in delta.logprobs]
            assert [(token["token"], len(token["top_logprobs"])) for token in tokens] == [("a", 2), ("b", 2)]

    run(scenario())


@BOTH
def test_an_answer_cut_by_max_tokens_is_no_error(streamed: bool) -> None:
    """An answer with finish "length" is returned as it is, with its text."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.finish("length"), streamed=streamed)
            assert isinstance(ending, Ending)
            assert (ending.finish_reason, heard.text) == ("length", "One two three four five.")

    run(scenario())


def test_a_connection_lost_after_the_finish_loses_nothing() -> None:
    """When finish_reason came and the connection breaks before [DONE], the answer is complete and is kept."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.reset("tokens", tokens=6), streamed=True)
            assert isinstance(ending, Ending), ending
            assert (ending.finish_reason, ending.usage, heard.text) == ("stop", Usage(), "One two three four five.")

    run(scenario())


@BOTH
def test_the_server_decides_whether_it_streams(streamed: bool) -> None:
    """A stream is read where a whole answer was asked for, and a whole answer where a stream was."""

    async def scenario() -> None:
        async with FaultServer() as server:
            whole = faults.whole_body(faults.ok(), "m")
            lines = b"".join(faults.stream_lines(faults.ok(), "m"))
            body, kind = (whole, "application/json") if streamed else (lines, "text/event-stream")
            other = Behaviour(body=body, content_type=kind)
            ending, heard = await exchange(server, other, streamed=streamed)
            assert isinstance(ending, Ending), ending
            assert heard.text == "One two three four five."

    run(scenario())


@pytest.mark.parametrize("vectors", [None, "base64"], ids=["floats", "base64"])
def test_embeddings_come_in_the_order_of_the_texts(vectors: Any) -> None:
    """The server may answer in any order and in either encoding; vector i belongs to text i."""

    async def scenario() -> None:
        async with FaultServer() as server:
            content = Embed(texts=("a", "b", "c"))
            ending, _ = await exchange(server, Behaviour(vectors=vectors), streamed=False, content=content)
            assert isinstance(ending, Ending), ending
            assert ending.vectors == ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))
            assert ending.usage.input_tokens == 7
            assert server.requests[0].path == "/v1/embeddings"
            assert server.requests[0].body == {"model": "m", "input": ["a", "b", "c"]}
            error, _ = await exchange(server, Behaviour(vectors=[[1.0]]), streamed=False, content=content)
            assert isinstance(error, BadAnswer)
            error, _ = await exchange(server, faults.error(500), streamed=False, content=content)
            assert isinstance(error, ServerFailed)

    run(scenario())
