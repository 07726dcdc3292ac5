"""Structured output on endpoints that do not take response_format json_schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, errors
from tests import fault_behaviours as f
from tests.fault_server import FaultServer
from tests.road.invariants import ALL, check_cache, check_money, check_nothing_left, check_rows, endpoint

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = f.ok('{"city"', ': "Bern"}')
REFUSALS = {
    "named": f.bad_parameter("response_format"),
    "nested": f.bad_parameter("response_format.type"),
    "OpenAI": f.error(400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."),
    "DeepSeek": f.error(400, "This response_format type is unavailable now", type="invalid_request_error"),
    "vLLM": f.error(400, "Failed to convert the grammar from JSON schema."),
    "FastAPI": f.Behaviour(
        status=422,
        body=json.dumps({"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'"}]}).encode(),
        content_type="application/json",
    ),
}


def client_of(server: FaultServer, home: Path, **more: Any) -> Client:
    return Client(endpoints={"lab": endpoint(server, **more)}, ladder=["lab/m"], home=home, deadline_s=3.0)


def ask(client: Client, prompt: str, *, watched: bool, **options: Any) -> Any:
    live = client.start(prompt, watched=watched, schema=SCHEMA, **options)
    for _ in live.events(0.02):
        pass
    return live.reply.data


@pytest.mark.parametrize("watched", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_schema_goes_into_the_prompt(refusal: f.Behaviour, watched: bool, tmp_path: Path) -> None:
    """One request is refused, the same call is sent again at once without retries, and later calls are right the first time."""
    with FaultServer() as server:
        server.script("m", [refusal, ANSWER])
        with client_of(server, tmp_path) as client:
            assert ask(client, "Which city?", watched=watched, retries=0) == {"city": "Bern"}
            assert ask(client, "Which other city?", watched=watched, retries=0) == {"city": "Bern"}
            bodies = [request.body for request in server.requests]
            assert ["response_format" in body for body in bodies] == [True, False, False]
            for body in bodies[1:]:
                assert [message["role"] for message in body["messages"]] == ["system", "user"]
                assert body["messages"][0]["content"].endswith(json.dumps(SCHEMA, separators=(",", ":")))
            first = client.ledger.calls(ALL, limit=5)[-1]
            attempts = client.ledger.attempts(first.call_id)
            assert [(a.error, a.cost_usd == 0) for a in attempts] == [("SchemaModeRefused", True), (None, False)]
            check_rows(client, server, {"lab/m": "m"})
            check_money(client)
            check_cache(client)
        check_nothing_left(server)


def test_a_refusal_of_schemas_counts_on_no_breaker_and_on_no_retry_budget(tmp_path: Path) -> None:
    """40 callers who all begin with the native form all get their answer, though retries are not to be had."""
    with FaultServer() as server:
        server.script("m", [*[REFUSALS["OpenAI"].with_(delay_s=0.2)] * 40, ANSWER])
        with client_of(server, tmp_path) as client:
            client.configure(retry_budget_floor=0)
            lives = [client.start(f"City {number}?", watched=False, schema=SCHEMA) for number in range(40)]
            assert [live.reply.data for live in lives] == [{"city": "Bern"}] * 40
            assert server.count("m") == 80


@pytest.mark.parametrize("other", [f.bad_parameter("temperature"), f.error(400, "Bad request.")], ids=["named", "nameless"])
def test_another_parameter_is_still_the_callers_own_mistake(other: f.Behaviour, tmp_path: Path) -> None:
    """A 400 about something else is raised as it was, after one request."""
    with FaultServer() as server:
        server.script("m", [other])
        with client_of(server, tmp_path) as client, pytest.raises(errors.BadParameter) as caught:
            ask(client, "Which city?", watched=False)
        assert type(caught.value) is errors.BadParameter
        assert server.count() == 1


def test_what_the_endpoint_is_known_to_take_is_not_tried(tmp_path: Path) -> None:
    """json_mode False never sends response_format; True always does, and its refusal is an error of its own."""
    with FaultServer() as server:
        server.script("m", [ANSWER])
        with client_of(server, tmp_path / "a", json_mode=False) as client:
            assert ask(client, "Which city?", watched=False) == {"city": "Bern"}
        assert "response_format" not in server.requests[0].body
        assert '"city"' in server.requests[0].body["messages"][0]["content"]
        server.script("m", [REFUSALS["named"]])
        with client_of(server, tmp_path / "b", json_mode=True) as client, pytest.raises(errors.BadParameter):
            ask(client, "Which city?", watched=False)
        assert server.count() == 2
