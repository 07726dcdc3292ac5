"""Hostile and mistaken bodies on /v1: each is refused with its field, in OpenAI's shape, and nothing is sent."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core.ports import Filter
from nbllm.providers.served_body import BadBody, body_of, chat_body, embed_body, refuse_others
from nbllm.service import create_app
from tests.service.raw import post
from tests.service.running import Running, running, write_settings

ASKED = [{"role": "user", "content": "Say hello"}]
CHAT = {"model": "sim/small", "messages": ASKED}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One app for the tests of this file; its limits are out of the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        tier = "[service.tiers.default]\nrequests_per_minute = 1000000"
        with running(create_app(settings=write_settings(tmp_path_factory.mktemp("app"), service=tier))) as app:
            yield app


def posted(app: Running, raw: bytes, path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
    """Send a body as it is; return status and JSON."""
    line = http.client.HTTPConnection(app.host, app.port, timeout=20)
    try:
        line.request("POST", path, raw, {**app.headers, "Content-Type": "application/json"})
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        line.close()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base_url": "http://evil"}, "base_url"), ({"api_base": "http://evil"}, "api_base"), ({"api_key": "sk-x"}, "api_key"),
        ({"headers": {"X": "y"}}, "headers"), ({"extra_headers": {}}, "extra_headers"), ({"extra": {"a": 1}}, "extra"),
        ({"extra_body": {"model": "x"}}, "extra_body"), ({"partition": "other"}, "partition"), ({"cache": "off"}, "cache"),
        ({"functions": []}, "functions"), ({"service_tier": "x"}, "service_tier"), ({"audio": {}}, "audio"),
        ({"user_id": "x"}, "user_id"), ({"store": True}, "store"), ({"n": 2}, "n"), ({"n": True}, "n"), ({"model": ""}, "model"),
        ({"model": 7}, "model"), ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": [1]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"), ({"messages": [{"role": "god", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"), ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages"), ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"), ({"temperature": -1}, None), ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"), ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"), ({"top_p": 2}, None),
        ({"seed": 1.5}, "seed"), ({"stop": [1]}, "stop"), ({"stream": "yes"}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"tools": {}}, "tools"), ({"tools": [1]}, "tools"), ({"response_format": "json"}, "response_format"),
        ({"logprobs": 3}, "logprobs"), ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 99}, "top_logprobs"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(served: Running, change: dict[str, Any], field: str | None) -> None:
    """Fields that lead elsewhere, unknown ones and wrong values: 400, the field in param, and nothing in the ledger."""
    before = len(served.service.client.ledger.calls(Filter(), limit=1000))
    status, body = posted(served, json.dumps({**CHAT, **change}).encode())
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert field is None or body["error"]["param"] == field
    assert len(served.service.client.ledger.calls(Filter(), limit=1000)) == before


def test_an_empty_list_of_messages_is_said_to_be_empty(served: Running) -> None:
    """It is a list: what it lacks is a message."""
    answer = post(served, "/v1/chat/completions", b'{"model": "sim/small", "messages": []}')
    assert "messages is empty" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"model": NaN}', b'{"temperature": 1e999}',
        b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"model": "sim/small", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\u0000"}', b"{}" * 2,
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(served: Running, raw: bytes) -> None:
    """No JSON, no object, NaN, half characters, a hundred thousand levels: 400 in OpenAI's shape."""
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        status, body = posted(served, raw, path)
        assert status in {400, 413}
        assert body["error"]["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": []}, "input"), ({"input": ""}, "input"), ({"input": [1, 2]}, "input"), ({"input": [[1, 2]]}, "input"),
        ({"input": None}, "input"), ({"encoding_format": "hex"}, "encoding_format"), ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"), ({"extra": {}}, "extra"), ({"temperature": 1}, "temperature"),
    ],
)  # fmt: skip
def test_embeddings_that_make_no_sense_are_named(served: Running, change: dict[str, Any], field: str) -> None:
    """The same for what is to be embedded."""
    status, body = posted(served, json.dumps({"model": "sim/small", "input": "a", **change}).encode(), "/v1/embeddings")
    assert (status, body["error"]["param"]) == (400, field)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from(
    ["model", "messages", "temperature", "max_tokens", "max_completion_tokens", "top_p", "seed", "stop", "tools", "response_format",
     "logprobs", "top_logprobs", "stream", "stream_options", "n", "tool_choice", "input", "encoding_format", "dimensions", "user"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_fields, _json, max_size=8))
def test_no_body_breaks_the_reader(body: dict[str, Any]) -> None:
    """Whatever JSON comes is read or refused with BadBody, and what is read has the types that the doors take."""
    found = body_of(json.dumps(body).encode("utf-8", "surrogatepass")) if json.dumps(body).isascii() else body
    try:
        refuse_others(found)
        asked = chat_body(found)
    except BadBody:
        return
    assert isinstance(asked.model, str)
    assert all(isinstance(message, dict) for message in asked.messages)
    assert isinstance(asked.options.get("stop", []), list)


@given(st.dictionaries(_fields, _json, max_size=8))
def test_no_body_breaks_the_reader_of_embeddings(body: dict[str, Any]) -> None:
    """The same for /v1/embeddings."""
    try:
        refuse_others(body, embeds=True)
        asked = embed_body(body)
    except BadBody:
        return
    assert all(isinstance(text, str) and text for text in asked.texts)


def test_a_caller_who_may_not_ask_learns_nothing_of_the_body(served: Running) -> None:
    """Without a key the answer is 401, whatever the body says."""
    line = http.client.HTTPConnection(served.host, served.port, timeout=20)
    try:
        line.request("POST", "/v1/chat/completions", b"{", {"Content-Type": "application/json"})
        answer = line.getresponse()
        assert answer.status == 401
        assert json.loads(answer.read())["error"]["code"] == "invalid_api_key"
    finally:
        line.close()
