"""/v1 in the OpenAPI description: what is there, what it names, and that it is as strict as the service."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nbllm.providers.served_body import CHAT_FIELDS, EMBED_FIELDS
from nbllm.service import create_app
from tests.service.flow_apps import say
from tests.service.running import Running, running, write_settings

ASKED = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One app, with a flow, for the tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        with running(create_app([say], settings=write_settings(tmp_path_factory.mktemp("app")))) as app:
            yield app


@pytest.fixture(scope="module")
def api(served: Running) -> dict[str, Any]:
    """The description, as a client reads it."""
    status, body = sent(served, "GET", "/openapi.json")
    assert status == 200
    return body


def sent(app: Running, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    line = http.client.HTTPConnection(app.host, app.port, timeout=20)
    try:
        given = {**app.headers, "Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        line.request(method, path, None if body is None else json.dumps(body), given)
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        line.close()


def schema_of(api: dict[str, Any], path: str, where: str = "requestBody") -> dict[str, Any]:
    operation = next(iter(api["paths"][path].values()))
    found = operation["requestBody"] if where == "requestBody" else operation["responses"][where]
    schema: dict[str, Any] = found["content"]["application/json"]["schema"]
    return api["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_every_field_that_is_served_is_described_and_no_other(api: dict[str, Any]) -> None:
    """The fields of both bodies are those that the service reads; the models are those that can be named, flows only in chats."""
    chat, embed = schema_of(api, "/v1/chat/completions"), schema_of(api, "/v1/embeddings")
    assert set(chat["properties"]) == CHAT_FIELDS
    assert set(embed["properties"]) == EMBED_FIELDS
    assert chat["properties"]["model"]["enum"] == ["sim/small", "flow/say"]
    assert embed["properties"]["model"]["enum"] == ["sim/small"]
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/{model}"):
        for operation in api["paths"][path].values():
            assert operation["security"] == [{"key": []}]


def test_an_open_menu_names_no_models(tmp_path: Path) -> None:
    """Where more may be named than is known, the description does not say that there is no other."""
    app = create_app(settings=write_settings(tmp_path, 'models = ["sim/*"]'))
    assert "enum" not in schema_of(app.openapi(), "/v1/chat/completions")["properties"]["model"]


@pytest.mark.parametrize(
    ("path", "body", "fits"),
    [
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED}, True),
        ("/v1/chat/completions", {"model": "flow/say", "messages": ASKED, "unknown": None}, True),
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED, "store": False, "n": 1, "seed": 7}, True),
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED, "reasoning_effort": {}, "tool_choice": []}, True),
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED, "unknown": 1}, False),
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED, "store": 0}, False),
        ("/v1/chat/completions", {"model": "sim/small", "messages": ASKED, "store": ""}, False),
        ("/v1/chat/completions", {"model": "sim/large", "messages": ASKED}, False),
        ("/v1/chat/completions", {"model": "sim/small", "messages": [{"role": "god", "content": "x"}]}, False),
        ("/v1/embeddings", {"model": "sim/small", "input": "Hi"}, True),
        ("/v1/embeddings", {"model": "sim/small", "input": ["Hi", "you"], "encoding_format": "base64"}, True),
        ("/v1/embeddings", {"model": "flow/say", "input": "Hi"}, False),
        ("/v1/embeddings", {"model": "sim/small", "input": [""]}, False),
    ],
)
def test_what_is_described_is_what_is_taken(served: Running, api: dict[str, Any], path: str, body: Any, fits: bool) -> None:
    """A body that fits its schema is answered, one that does not is refused, and answers and errors fit theirs."""
    assert Draft202012Validator(schema_of(api, path)).is_valid(body) == fits
    status, answer = sent(served, "POST", path, body)
    assert (status == 200) == fits, answer
    Draft202012Validator(schema_of(api, path, str(status))).validate(answer)


def test_lists_of_models_fit_their_schemas(served: Running, api: dict[str, Any]) -> None:
    """/v1/models and one of them; one that is not there is 404 in OpenAI's shape."""
    for path, described, status in (
        ("/v1/models", "/v1/models", 200),
        ("/v1/models/sim%2Fsmall", "/v1/models/{model}", 200),
        ("/v1/models/none", "/v1/models/{model}", 404),
    ):
        got, body = sent(served, "GET", path)
        assert got == status
        Draft202012Validator(schema_of(api, described, str(status))).validate(body)


def test_the_header_that_asks_for_another_run_is_true_or_left_out(served: Running) -> None:
    """Anything else is refused with 400, with a key or without: nobody should think that it was heard."""
    body = {"model": "sim/small", "messages": ASKED}
    assert sent(served, "POST", "/v1/chat/completions", body, Idempotency_Retry="yes")[0] == 400
    assert sent(served, "POST", "/v1/chat/completions", body, Idempotency_Retry="yes", Idempotency_Key="a")[0] == 400
    assert sent(served, "POST", "/v1/chat/completions", body, Idempotency_Retry="true", Idempotency_Key="a")[0] == 200


def test_a_limit_that_leaves_no_text_is_the_callers(served: Running) -> None:
    """A model that used its tokens up with thinking: 400 with what to do, as OpenAI has it, and no failure of the upstream."""
    body = {"model": "sim/small", "messages": ASKED, "max_tokens": 1, "reasoning_effort": "high"}
    status, answer = sent(served, "POST", "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "output_limit")
