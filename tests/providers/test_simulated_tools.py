"""The simulated models: tools and JSON."""

from __future__ import annotations

import json

import jsonschema
import pytest

from nbllm.core.messages import Chat
from tests.providers.simulation import DOC, chat, play

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}


@pytest.mark.parametrize("streamed", [True, False])
def test_a_tool_is_called_when_asked_for(streamed: bool) -> None:
    """The call fits the tool's schema, its arguments come from the prompt, and it ends with tool_calls."""
    ending, seen = play(chat("What is the weather in Gdansk today, in celsius?", tools=(WEATHER,)), streamed=streamed)
    name, arguments = seen.tool
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": "Gdansk", "unit": "celsius"}
    assert ending.finish_reason == "tool_calls"
    assert seen.text == ""


def test_a_tool_is_not_called_without_need() -> None:
    """Another question is answered in text; so is one whose tool has answered, from the result."""
    assert "1924" in play(chat(f"{DOC}\n\nWhen was the ship sold?", tools=(WEATHER,)))[1].text
    done = (
        {"role": "user", "content": "What is the weather in Gdansk?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "The weather in Gdansk is 4 degrees and rain."},
    )
    assert "4 degrees" in play(Chat(messages=done, tools=(WEATHER,)))[1].text


def test_tool_choice_is_honoured() -> None:
    """Required and a named tool force a call, none forbids it."""
    assert play(chat("Say hi", tools=(WEATHER,), extra={"tool_choice": "required"}))[0].finish_reason == "tool_calls"
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert play(chat("Say hi", tools=(WEATHER,), extra={"tool_choice": named}))[0].finish_reason == "tool_calls"
    forbidden = play(chat("What is the weather in Gdansk?", tools=(WEATHER,), extra={"tool_choice": "none"}))
    assert forbidden[0].finish_reason == "stop"


def test_json_in_the_shape_of_a_schema() -> None:
    """schema= and response_format give valid JSON that uses the text."""
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 60},
            "key_points": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
            "year": {"type": "integer", "minimum": 1800, "maximum": 2000},
            "tone": {"enum": ["dry", "warm"]},
            "ship": {"$ref": "#/$defs/Ship"},
        },
        "required": ["title", "key_points", "year", "tone", "ship"],
        "$defs": {"Ship": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
        "additionalProperties": False,
    }
    for content in (
        chat(f"Describe:\n{DOC}", json_schema=schema),
        chat(f"Describe:\n{DOC}", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
    ):
        data = json.loads(play(content)[1].text)
        jsonschema.validate(data, schema)
        assert data["year"] in {1874, 1924}
        assert data["ship"]["name"] == "Faraday"
        assert all(point.rstrip(" .…") in " ".join(DOC.split()) for point in data["key_points"])


def test_any_json_object() -> None:
    """Without a schema the keys that the prompt names are there."""
    prompt = f'Return JSON with "title" and "summary".\n\n{DOC}'
    data = json.loads(play(chat(prompt, response_format={"type": "json_object"}))[1].text)
    assert set(data) == {"title", "summary"}
