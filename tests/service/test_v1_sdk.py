"""The unchanged openai SDK against /v1: whole answers, streams, tools, JSON, embeddings, async, and its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from nbllm.service import create_app
from tests.service.running import Running, running, write_settings

openai = pytest.importorskip("openai")

TEXT = "Summarise: The cat sat on the mat. Dogs bark at night. Birds sing in the morning."
ASKED = [{"role": "user", "content": TEXT}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"], "additionalProperties": False}
TOP = """
ladder = ["sim/small"]
routes.careful = ["sim/large", "sim/small"]
routes.vectors = ["sim/small"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One app for the tests of this file, whose simulated models do not wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        path = write_settings(tmp_path_factory.mktemp("app"), top=TOP)
        with running(create_app(settings=path)) as app:
            yield app


@pytest.fixture
def sdk(served: Running) -> Iterator[openai.OpenAI]:
    """The SDK as people make it, without retries of its own."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        yield client


def test_a_whole_answer_says_who_gave_it_and_what_it_cost(sdk: openai.OpenAI) -> None:
    """Text, usage and finish come as OpenAI's; model, rung, source and cost in headers; a repeat is from the cache and free."""
    first = sdk.chat.completions.with_raw_response.create(model="sim/small", messages=ASKED)
    answer = first.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (first.headers["x-rung"], first.headers["x-source"]) == ("sim/small", "model")
    assert float(first.headers["x-cost-usd"]) > 0
    again = sdk.chat.completions.with_raw_response.create(model="sim/small", messages=ASKED)
    assert again.parse().choices[0].message == answer.choices[0].message
    assert (again.headers["x-source"], float(again.headers["x-cost-usd"])) == ("cache", 0)
    assert first.headers["x-request-id"] != again.headers["x-request-id"]


def test_a_stream_is_the_whole_answer_in_pieces(sdk: openai.OpenAI) -> None:
    """The role first, then pieces, a finish, the usage where it is asked for; together the text of a whole answer."""
    whole = sdk.chat.completions.create(model="careful", messages=ASKED)
    options = {"include_usage": True}
    new = [{"role": "user", "content": f"{TEXT} "}]
    chunks = list(sdk.chat.completions.create(model="careful", messages=new, stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    again = list(sdk.chat.completions.create(model="careful", messages=new, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in again) == text
    assert again[-1].nbllm["source"] == "cache"


def test_tool_calls_and_their_results_pass_through(sdk: openai.OpenAI) -> None:
    """A tool call comes whole and in pieces; the conversation goes on with its result."""
    asked = [{"role": "user", "content": "Call the tool look_up for Paris"}]
    choice = {"type": "function", "function": {"name": "look_up"}}
    whole = sdk.chat.completions.create(model="sim/small", messages=asked, tools=[TOOL], tool_choice=choice)
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls[0].function.name == "look_up"
    json.loads(message.tool_calls[0].function.arguments)
    with sdk.chat.completions.stream(model="sim/small", messages=asked, tools=[TOOL], tool_choice=choice) as stream:
        streamed = stream.get_final_completion().choices[0].message
    assert streamed.tool_calls[0].function.arguments == message.tool_calls[0].function.arguments
    assert streamed.tool_calls[0].id == message.tool_calls[0].id
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny"}
    on = sdk.chat.completions.create(model="sim/small", messages=[*asked, message, result], tools=[TOOL])
    assert on.choices[0].message.content


def test_json_seeds_logprobs_and_parts_pass_through(sdk: openai.OpenAI) -> None:
    """A schema shapes the answer, logprobs come with as many alternatives as asked, content may be parts."""
    wanted = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True}}
    said = sdk.chat.completions.create(model="sim/small", messages=ASKED, response_format=wanted, seed=3)
    assert json.loads(said.choices[0].message.content)["mood"] in {"good", "bad"}
    parts = [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]
    said = sdk.chat.completions.create(model="sim/small", messages=parts, logprobs=True, top_logprobs=2, max_completion_tokens=9)
    entries = said.choices[0].logprobs.content
    assert entries
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_embeddings_come_as_numbers_or_packed(sdk: openai.OpenAI) -> None:
    """The SDK asks for base64 by itself; both forms hold the same vectors, in the order of the texts."""
    packed = sdk.embeddings.create(model="vectors", input=["a cat", "a dog"])
    plain = sdk.embeddings.create(model="vectors", input=["a cat", "a dog"], encoding_format="float")
    assert len(packed.data) == 2
    assert [row.embedding for row in packed.data] == [pytest.approx(row.embedding) for row in plain.data]
    one = sdk.embeddings.create(model="vectors", input="a dog")
    assert one.data[0].embedding == pytest.approx(plain.data[1].embedding)


def test_only_the_apps_models_and_routes_are_listed(sdk: openai.OpenAI) -> None:
    """What the settings name, and nothing of what the client could reach besides."""
    assert {model.id for model in sdk.models.list()} == {"sim/small", "sim/large", "careful", "vectors"}
    assert sdk.models.retrieve("careful").owned_by == "route"
    with pytest.raises(openai.NotFoundError, match="not served here"):
        sdk.models.retrieve("openai/gpt-4o")


def test_the_async_sdk_asks_many_at_once(served: Running) -> None:
    """Twenty calls at once have an answer each, half of them streams."""

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:

            async def one(number: int) -> str:
                asked = [{"role": "user", "content": f"{TEXT} {number % 10}"}]
                if number < 10:
                    return (await client.chat.completions.create(model="sim/small", messages=asked)).choices[
                        0
                    ].message.content or ""
                stream = await client.chat.completions.create(model="sim/small", messages=asked, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(20)))

    answers = asyncio.run(all_of_them())
    assert answers[:10] == answers[10:]
    assert all(answers)
