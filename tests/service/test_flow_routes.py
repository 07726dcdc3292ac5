"""Flows over HTTP: what is taken, what is answered, and what happens to whoever sends nonsense or leaves."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nbllm import errors
from nbllm.service import create_app
from nbllm.service.flow_specs import Example
from nbllm.testing import FakeProvider
from tests.client.helpers import our_threads, rows, until
from tests.service.flow_apps import ALL, HANGS, HOUR, TICKET, Served, later, say, serving, triage
from tests.service.running import write_settings
from tests.starvation import Stopwatch


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app")) as made:
        yield made


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"]
    return body


def test_a_typed_flow(served: Served) -> None:
    """Arguments arrive as their types, the result goes out as its own, and headers say who answered and what it cost."""
    answer = served.http.post("/flows/triage", json=TICKET | {"options": {"lang": "de"}})
    assert answer.status_code == 200
    assert answer.json() == {"priority": "high", "owner": {"name": "Ada", "mail": None}, "answer": "fine"}
    assert served.fake.requests[-1].content.messages[-1]["content"] == "Classify in de: help"
    said = {name: answer.headers[name] for name in ("x-rung", "x-source", "x-calls")}
    assert said == {"x-rung": "sim/small", "x-source": "model", "x-calls": "1"}
    assert float(answer.headers["x-cost-usd"]) > 0
    again = served.http.post("/flows/triage", json=TICKET | {"options": {"lang": "de"}})
    assert (again.headers["x-source"], again.headers["x-cost-usd"], again.content) == ("cache", "0", answer.content)


def test_the_calls_are_the_callers(served: Served) -> None:
    """The ledger names the key that a call was made for, of plain and async flows."""
    (key,) = served.it.service.keys.list()
    for name in ("say", "later"):
        assert served.http.post(f"/flows/{name}", json={"text": f"whose is {name}"}).json() == "fine"
    assert {row.user for row in rows(served.it.service.client)} == {f"key:{key.id}"}


@pytest.mark.parametrize("path", ["/flows/say", "/flows/say/stream", "/flows/say/jobs"])
@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"{", {}, 400, "malformed-json"),
        (b'{"text": NaN}', {}, 400, "malformed-json"),
        (b'{"text": 1e999}', {}, 400, "malformed-json"),
        (b'{"text": "a", "text": "b"}', {}, 400, "malformed-json"),
        (b'\xff\xfe{"text": "a"}', {}, 400, "malformed-json"),
        (b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", {}, 400, None),
        (b'{"text": "a", "more": 1}', {}, 422, "invalid-fields"),
        (b'{"text": 1}', {}, 422, "invalid-fields"),
        (b'{"text": "\\ud800"}', {}, 400, "malformed-json"),
        (b"[]", {}, 422, "invalid-fields"),
        (b"null", {}, 422, "invalid-fields"),
        (b"", {}, 422, "invalid-fields"),
        (b"{}", {}, 422, "invalid-fields"),
        (b'{"text": "a", "model": 5}', {}, 422, "invalid-fields"),
        (b'{"text": "a"}', {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (b'{"text": "a"}', {"Content-Type": "nonsense;;;"}, 415, "unsupported-media-type"),
        (b'{"text": "a"}', {"Authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        (b"{", {"Authorization": "Basic YTpi"}, 401, "unauthenticated"),
    ],
    ids=str,
)
def test_bad_input(served: Served, path: str, body: bytes, headers: dict[str, str], status: int, kind: str | None) -> None:
    """Nonsense is refused with a reason before anything runs; a stranger learns only that a key is needed."""
    before = served.fake.calls
    answer = served.http.post(path, content=body, headers={"Content-Type": "application/json"} | headers)
    assert answer.status_code == status, answer.text
    assert kind is None or problem(answer)["type"].endswith(":" + kind)
    assert served.fake.calls == before


@pytest.mark.parametrize("limit", [False, "5", 5.5, [5], None])
def test_no_type_is_taken_for_another(served: Served, limit: object) -> None:
    """What the schema says is what is taken: no text as a number, no false as 0."""
    answer = served.http.post("/flows/triage", json=TICKET | {"limit": limit})
    assert (answer.status_code, problem(answer)["parameter"]) == (422, "limit")


def test_numbers_that_are_none(served: Served) -> None:
    """A result that is no JSON is an error of the flow, not a null."""
    assert served.http.post("/flows/number", json={"value": 1.5}).json() == 3.0
    answer = served.http.post("/flows/number", json={"value": 1.7e308})
    assert problem(answer)["type"].endswith("wrong-result")


@pytest.mark.parametrize(("name", "kind"), [("raises", "flow-failed"), ("lies", "wrong-result")])
def test_flows_that_misbehave(served: Served, name: str, kind: str) -> None:
    """An exception and a wrong type are a 500 that says which, and nothing of what the caller sent."""
    answer = served.http.post(f"/flows/{name}", json={"text": "my private text"})
    assert answer.status_code == 500
    assert problem(answer)["type"].endswith(kind)
    assert "private" not in answer.text


def test_a_flow_that_prints(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """What it prints is not in the answer."""
    assert served.http.post("/flows/prints", json={"text": "loud"}).json() == "said"


def test_unknown_paths_and_methods(served: Served) -> None:
    """What is not there is a problem too."""
    assert problem(served.http.post("/flows/nothing", json={}))["status"] == 404
    assert problem(served.http.post("/flows/../say", json={}))["status"] == 404
    for path, methods in (("", "POST"), ("/stream", "POST"), ("/jobs", "GET, POST"), (f"/jobs/{'0' * 32}/cancel", "POST")):
        refused = served.http.patch(f"/flows/say{path}", json={})
        assert (problem(refused)["status"], refused.headers["allow"]) == (405, methods)


def test_errors_of_models_keep_their_kind(tmp_path: Path) -> None:
    """A filter's refusal, a limit that the flow set too low and a model that is down are told apart."""
    fake = FakeProvider(errors.Refused, errors.Truncated, default=errors.ServerFailed)
    with serving(tmp_path, fake, (say,), top='ladder = ["sim/small"]\nretries = 0') as served:
        assert problem(served.http.post("/flows/say", json={"text": "a"}))["type"].endswith("content-filter")
        assert served.http.post("/flows/say", json={"text": "a"}).status_code == 502  # the flow set the limit, not its caller
        assert served.http.post("/flows/say", json={"text": "a"}).status_code == 502


def test_a_model_that_is_not_there(served: Served) -> None:
    """A flow that names one is wrong itself: that is no 404 for its caller."""
    answer = served.http.post("/flows/say", json={"text": "a", "model": "nobody/m"})
    assert (answer.status_code, problem(answer)["type"]) == (500, "urn:nbllm:problem:unknown-model")


def test_a_budget_that_is_used_up(tmp_path: Path) -> None:
    """A key whose day is spent is refused with a time to come again, and nothing is sent; another key goes on."""
    tiers = '[service.tiers.default]\nday_usd = "0.00000001"\n[service.tiers.rich]'
    with serving(tmp_path, flows=(say,), service=tiers) as served:
        answer = served.http.post("/flows/say", json={"text": "a"})
        assert problem(answer)["type"].endswith("insufficient-quota")
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0, served.fake.calls) == (429, True, 0)
        rich = {"Authorization": f"Bearer {served.it.service.keys.make('rich')[0]}"}
        assert served.http.post("/flows/say", json={"text": "a"}, headers=rich).json() == "fine"


def test_a_flow_that_sleeps_for_an_hour(tmp_path: Path) -> None:
    """Its caller hears so in time, others are served meanwhile, and the service ends when it is told to."""
    HOUR.clear()
    try:
        with serving(tmp_path, service="flow_timeout_s = 0.2") as served:
            assert problem(served.http.post("/flows/sleeps", json={}))["status"] == 504
            served.it.service.runner._timeout_s = 60.0  # a machine that is slow is no flow that sleeps
            assert served.http.post("/flows/say", json={"text": "hi"}).json() == "fine"
            assert served.http.get("/health").status_code == 200
            watch = Stopwatch(others=True)
        assert watch.s < 8
    finally:
        HOUR.set()


def leave_early(served: Served, path: str, body: dict[str, Any], *, after: bytes = b"", key: str = "") -> float:
    """Send a request and close the socket when the flow runs (and after some bytes came); return when, in monotonic seconds."""
    data = json.dumps(body).encode()
    with socket.create_connection((served.it.host, served.it.port), timeout=30) as sock:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.it.port}\r\nAuthorization: Bearer {served.it.key}\r\n"
            f"{f'Idempotency-Key: {key}' if key else 'X-None: 1'}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        sock.sendall(head.encode() + data)
        until(lambda: served.fake.in_flight)
        got = b""
        while after and after not in got:
            got += sock.recv(65536)
    return time.monotonic()


@pytest.mark.parametrize(("path", "after"), [("", b""), ("/stream", b"One "), ("/stream", b"")])
@pytest.mark.parametrize("name", ["say", "later"])
def test_a_client_that_leaves(name: str, path: str, after: bytes, tmp_path: Path) -> None:
    """Within a second of its leaving upstream is closed, the ledger says cancelled, its place is free, and no thread is left."""
    before = set(our_threads())
    with serving(tmp_path, FakeProvider(default=HANGS), (say, later)) as served:
        left_s = leave_early(served, f"/flows/{name}{path}", {"text": "hi"}, after=after)
        until(lambda: served.fake.in_flight == 0)
        assert time.monotonic() - left_s < 1
        client = served.it.service.client
        until(lambda: [row.status.value for row in rows(client)] == ["cancelled"])
        until(lambda: served.it.service.gate.running == 0)
        assert served.it.service.limiter._here.total == 0
    until(lambda: set(our_threads()) <= before)


def test_a_client_that_leaves_the_queue(tmp_path: Path) -> None:
    """One that waits for its turn and leaves is not run."""
    with serving(tmp_path, FakeProvider(default=HANGS), (say,), service="max_running = 1") as served:
        with socket.create_connection((served.it.host, served.it.port)) as first:
            body = b'{"text": "hi"}'
            head = f"POST /flows/say HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.it.key}\r\n"
            request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            first.sendall(request)
            until(lambda: served.fake.in_flight)
            with socket.create_connection((served.it.host, served.it.port)) as second:
                second.sendall(request)
                until(lambda: served.it.service.gate.waiting == 1)
            until(lambda: served.it.service.gate.waiting == 0)
        until(lambda: served.it.service.gate.running == 0)
        assert served.fake.calls == 1


def test_openapi(tmp_path: Path) -> None:
    """A nested signature shows as it is, with examples from recorded runs; every refusal that may come is named."""
    path = tmp_path / "examples.json"
    path.write_text(json.dumps([{"flow": "triage", "arguments": TICKET, "result": {"priority": "low"}, "calls": []}]))
    shown = create_app([triage, later], write_settings(tmp_path), examples=path).openapi()
    kinds = shown["components"]["schemas"]
    post = shown["paths"]["/flows/triage"]["post"]
    assert (post["summary"], post["description"]) == ("Sort a ticket.", "By asking a model.")
    assert post["security"]
    body = post["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/TriageArguments"}
    assert body["examples"]["recorded 1"]["value"] == TICKET
    arguments = kinds["TriageArguments"]
    assert arguments["required"] == ["ticket"]
    assert arguments["additionalProperties"] is False
    assert arguments["properties"]["ticket"] == {"$ref": "#/components/schemas/Ticket"}
    assert arguments["properties"]["options"]["anyOf"] == [{"$ref": "#/components/schemas/Options"}, {"type": "null"}]
    assert kinds["Options"]["properties"]["lang"]["enum"] == ["en", "de"]
    assert kinds["Ticket"]["properties"]["by"] == {"$ref": "#/components/schemas/Person"}
    answer = post["responses"]["200"]["content"]["application/json"]
    assert answer["schema"] == {"$ref": "#/components/schemas/Triage"}
    assert answer["examples"]["recorded 1"]["value"] == {"priority": "low"}
    assert {"400", "401", "409", "413", "415", "422", "429", "500", "502", "503", "504"} <= post["responses"].keys()
    assert [one["name"] for one in post["parameters"]] == ["Idempotency-Key", "Idempotency-Retry"]
    assert [(one["required"], one["schema"]["type"]) for one in post["parameters"]] == [(False, "string")] * 2
    stream = shown["paths"]["/flows/triage/stream"]["post"]
    events = stream["responses"]["200"]["content"]
    assert list(events) == ["text/event-stream"]
    assert events["text/event-stream"]["itemSchema"]["properties"]["event"]["enum"][0] == "started"
    job = kinds["TriageJob"]["properties"]["result"]["anyOf"]
    assert {"$ref": "#/components/schemas/Triage"} in job
    assert set(shown["paths"]["/flows/triage/jobs"]) == {"post", "get"}
    assert set(shown["paths"]["/flows/triage/jobs/{job_id}"]) == {"get"}
    assert set(shown["paths"]["/flows/triage/jobs/{job_id}/cancel"]) == {"post"}


def test_flows_that_cannot_be_served_keep_the_app_from_being_made(tmp_path: Path) -> None:
    """Everything that is wrong is said at once, before anything listens."""

    def bare(text):  # noqa: ANN202, RUF100
        return text

    with pytest.raises(errors.ConfigurationError) as caught:
        create_app([*ALL, say, bare], write_settings(tmp_path))
    assert "say: two flows have this name" in str(caught.value)
    assert "bare: the parameter text has no annotation" in str(caught.value)


def test_examples_of_no_flow(tmp_path: Path) -> None:
    """Documentation shows no run of a flow that is not there."""
    path = tmp_path / "examples.json"
    path.write_text(json.dumps([{"flow": "gone", "arguments": {}, "result": 1}]))
    with pytest.raises(errors.ConfigurationError, match="gone"):
        create_app([say], write_settings(tmp_path), examples=path)
    assert Example({}, 1).calls == ()
