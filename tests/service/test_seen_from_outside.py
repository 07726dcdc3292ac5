"""What a service lets others see: its documentation, its numbers, its log; and WebSockets at its door."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from nbllm import ask, flow
from nbllm.errors import ServerFailed, StorageError
from nbllm.service import create_app
from nbllm.service.configuration import ServiceSettings
from nbllm.service.failures import log_failure
from nbllm.service.logs import LineWriter, access_log, logging_to
from nbllm.service.opening import opening_lines
from nbllm.service.problems import problem_of
from tests.service.probes import probe_app
from tests.service.raw import Line, post
from tests.service.raw import ask as ask_raw
from tests.service.running import Running, running, write_settings
from tests.starvation import Stopwatch


@flow
def greet(name: str, times: int = 1) -> str:
    """Greet <script>alert(1)</script> somebody."""
    return ask(f"Greet {name} {times} times. TOP-SECRET-PROMPT").text


@pytest.fixture(scope="module")
def log() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, log: io.BytesIO) -> Iterator[Running]:
    """An app with one flow, whose log goes into memory."""
    made = create_app([greet], write_settings(tmp_path_factory.mktemp("app")))
    writer = LineWriter(log)
    made.state.service.access_log = access_log(writer)
    with running(made) as it:
        yield it
    writer.close()


def lines(log: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_the_docs_are_one_page_that_runs_nothing(app: Running) -> None:
    """/docs lists the flow with an example, loads nothing from anywhere, and shows what a docstring says as text."""
    page = ask_raw(app, "/docs")
    text = page.body.decode()
    assert page.status == 200
    assert "/flows/greet" in text
    assert "curl " in text
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!/openapi)', text)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "/flows/greet" in ask_raw(app, "/openapi.json").json["paths"]


def test_recorded_runs_are_for_those_who_show_a_key(tmp_path: Path) -> None:
    """The documentation is open to programs of this machine; what somebody asked and was told is not, whoever else is on it."""
    examples = tmp_path / "examples.json"
    run = {"flow": "greet", "arguments": {"name": "PRIVATE-NAME"}, "result": "PRIVATE-ANSWER", "calls": []}
    examples.write_text(json.dumps([run]))
    with running(create_app([greet], write_settings(tmp_path), examples=examples)) as it:
        for shown in ({}, {"Authorization": "Bearer nbllm_of_nobody"}):
            for path in ("/docs", "/openapi.json"):
                page = ask_raw(it, path, headers=shown)
                assert page.status == 200
                assert b"/flows/greet" in page.body
                assert b"PRIVATE" not in page.body
        told = ask_raw(it, "/openapi.json", headers=it.headers).body
        assert b"PRIVATE-NAME" in told
        assert b"PRIVATE-ANSWER" in told
        assert b"PRIVATE-NAME" in ask_raw(it, "/docs", headers=it.headers).body


@pytest.mark.parametrize("service", ["docs = false", "host = '0.0.0.0'"])
def test_the_docs_are_off_in_production(tmp_path: Path, service: str) -> None:
    """Where the settings say so, and on a public address unless they say otherwise, there are none."""
    with running(create_app(settings=write_settings(tmp_path, service))) as it:
        for path in ("/docs", "/openapi.json", "/redoc"):
            assert ask_raw(it, path, headers=it.headers).status == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "support.example.org"}, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"Via": "1.1 proxy"}],
)
def test_the_docs_are_not_for_those_behind_a_proxy(tmp_path: Path, headers: dict[str, str]) -> None:
    """A proxy on this machine passes on requests of everybody: nothing shows what can be asked, recorded runs included."""
    named = "Host" in headers
    with running(create_app(settings=write_settings(tmp_path, 'allowed_hosts = ["support.example.org"]' if named else ""))) as it:
        for path in ("/docs", "/openapi.json"):
            assert ask_raw(it, path, headers={**it.headers, **headers}).status == 404
            assert ask_raw(it, path, headers=it.headers).status == (404 if named else 200)


def test_numbers_of_requests_calls_tokens_and_cost(app: Running) -> None:
    """After a flow ran: its route, its model's calls, tokens, time and cost are in /metrics, with bounded labels."""
    assert post(app, "/flows/greet", b'{"name": "Ann"}').status == 200
    assert post(app, "/flows/greet", b'{"name": "Ann"}').status == 200
    ask_raw(app, "/no/such/path/4711", headers=app.headers)
    post(app, "/v1/chat/completions", b'{"model": "sim/small", "messages": [{"role": "user", "content": "Hi"}]}')
    text = ask_raw(app, "/metrics", headers=app.headers).body.decode()
    assert 'nbllm_requests_total{method="POST",route="/flows/greet",status="200"} 2.0' in text
    assert 'route="/v1/chat/completions"' in text
    assert 'nbllm_calls_total{rung="sim/small",source="cache",status="done"} 1.0' in text
    assert 'nbllm_calls_total{rung="sim/small",source="model",status="done"} 2.0' in text
    assert re.search(r'nbllm_tokens_total\{direction="output",rung="sim/small"\} [1-9]', text)
    assert re.search(r'nbllm_cost_usd_total\{rung="sim/small"\} [0-9.e-]+', text)
    assert 'nbllm_breaker_state{rung="sim/small"} 0.0' in text
    assert "nbllm_draining 0.0" in text
    assert "4711" not in text
    assert "_created" not in text
    assert app.key not in text


def test_the_log_has_a_line_a_request_and_no_text(app: Running, log: io.BytesIO) -> None:
    """Each request is one line of JSON with id, route, status, time and the key's id; no prompt, answer, key or query."""
    post(app, "/flows/greet?token=in-a-query", b'{"name": "CONFIDENTIAL"}', X_Request_Id="find-1")
    until_s = time.monotonic() + 30
    while b"find-1" not in log.getvalue() and time.monotonic() < until_s:
        time.sleep(0.02)
    line = next(line for line in lines(log) if line["request_id"] == "find-1")
    assert line["route"] == "/flows/greet"
    assert line["status"] == 200
    assert line["key"] == app.key[6:14]
    assert float(str(line["ms"])) > 0
    for secret in (b"CONFIDENTIAL", b"TOP-SECRET", b"in-a-query", app.key.encode()):
        assert secret not in log.getvalue()


def test_what_is_refused_at_the_door_is_counted_under_its_route(app: Running, log: io.BytesIO) -> None:
    """Without a key, of a wrong type, by a wrong name: line and numbers name the route that was meant, if there is one."""
    json_type = {"Content-Type": "application/json"}
    refused = (
        (401, "/flows/greet/jobs/" + "0" * 32 + "/cancel", "/flows/greet/jobs/{job_id}/cancel", json_type),
        (401, "/v1/chat/completions", "/v1/chat/completions", json_type),
        (415, "/flows/greet", "/flows/greet", {**app.headers, "Content-Type": "text/plain"}),
        (421, "/flows/greet/stream", "/flows/greet/stream", {**app.headers, **json_type, "Host": "evil.example"}),
        (401, "/nothing/4712", "other", json_type),
    )
    for number, (status, path, _, headers) in enumerate(refused):
        with Line(app) as line:
            assert line.ask(path, method="POST", body=b"{}", headers={"X-Request-Id": f"door-{number}", **headers}).status == status
    until_s = time.monotonic() + 30
    while b"door-4" not in log.getvalue() and time.monotonic() < until_s:
        time.sleep(0.02)
    found = {line["request_id"]: line["route"] for line in lines(log)}
    assert [found[f"door-{number}"] for number in range(5)] == [route for _, _, route, _ in refused]
    text = ask_raw(app, "/metrics", headers=app.headers).body.decode()
    assert 'nbllm_requests_total{method="POST",route="/flows/greet",status="415"} 1.0' in text
    assert "4712" not in text


def test_what_is_asked_is_logged_where_the_settings_say_so(tmp_path: Path) -> None:
    """log_prompts puts the body into the line, redacted."""
    made, _ = probe_app(tmp_path, "log_prompts = true")
    kept = io.BytesIO()
    writer = LineWriter(kept)
    made.state.service.access_log = access_log(writer)
    with running(made) as it:
        post(it, "/probe", b'{"text": "hello log", "api_key": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"}')
    writer.close()
    assert b"hello log" in kept.getvalue()
    assert b"abcdefghijklmnop" not in kept.getvalue()


class Stuck(io.BytesIO):
    """A stream that cannot be written."""

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """A full disk under the log loses lines, counts them, and holds up no request."""
    writer = LineWriter(Stuck(), most_lines=10)
    watch = Stopwatch()
    for _ in range(1000):
        writer.write(b"x")
    assert watch.s < 0.5
    writer.close()
    assert writer.dropped > 0
    assert not writer._thread.is_alive()


def test_what_goes_to_the_log_by_pythons_own_way_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """Tracebacks and messages of libraries are lines of JSON too, with secrets masked; afterwards all is as it was."""
    import logging

    kept = io.BytesIO()
    writer = LineWriter(kept)
    logger = logging.getLogger("nbllm.test")
    before = logging.getLogger("nbllm").handlers[:]
    with logging_to(writer, "nbllm", say_why=True):
        try:
            int("Authorization: Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD")
        except ValueError:
            logger.exception("It failed with api_key=%s", "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD")
    writer.close()
    assert logging.getLogger("nbllm").handlers == before
    (line,) = lines(kept)
    assert line["level"] == "error"
    assert "ValueError" in str(line["exception"])
    assert b"abcdefghijklmnop" not in kept.getvalue()
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------------------------------------- WebSockets


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An app with a WebSocket that says what it hears."""
    made, _ = probe_app(tmp_path_factory.mktemp("sockets"), "max_body_bytes = 2000\nheader_timeout_s = 1")
    with running(made) as it:
        yield it


def url(app: Running) -> str:
    return f"ws://{app.host}:{app.port}/ws"


def test_a_socket_needs_a_key_a_name_and_an_own_page(sockets: Running) -> None:
    """Without a key 401, from a foreign page 403, by a foreign name 421; each as problem+json, before it is accepted."""

    async def status(headers: dict[str, str]) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url(sockets), additional_headers=headers):
                pass
        response = refused.value.response
        assert b"urn:nbllm:problem:" in bytes(response.body or b"")
        assert response.headers["x-request-id"]
        return response.status_code

    async def main() -> None:
        assert await status({}) == 401
        assert await status({"Authorization": "Bearer wrong"}) == 401
        assert await status({**sockets.headers, "Origin": "https://evil.example"}) == 403
        assert await status({**sockets.headers, "Origin": "null"}) == 403

    asyncio.run(main())


def test_a_socket_speaks_and_a_large_message_ends_it(sockets: Running) -> None:
    """With a key it speaks, longer than a head may take; a message over the limit closes it with 1009."""

    async def main() -> None:
        async with connect(url(sockets), additional_headers=sockets.headers, max_size=None) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await asyncio.sleep(1.2)
            await socket.send("still here")
            assert await socket.recv() == "still here"
            await socket.send("x" * 3000)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    asyncio.run(main())


def test_a_socket_counts_as_a_request(tmp_path: Path) -> None:
    """Opening WebSockets is limited as requests are."""
    made, _ = probe_app(tmp_path, "[service.tiers.default]\nrequests_per_minute = 2")

    async def main(app: Running) -> None:
        for _ in range(2):
            async with connect(url(app), additional_headers=app.headers):
                pass
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url(app), additional_headers=app.headers):
                pass
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["retry-after"]) >= 1

    with running(made) as it:
        asyncio.run(main(it))


def test_settings_that_are_given_in_code_need_a_client() -> None:
    """ServiceSettings beside no client are not enough to serve anything."""
    with pytest.raises(Exception, match="neither settings nor a client"):
        create_app(settings=ServiceSettings())


def test_a_socket_that_is_not_there_is_404(sockets: Running) -> None:
    """An unknown WebSocket path is told as an unknown path, with a key and without."""

    async def main() -> None:
        for headers in ({}, sockets.headers):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url(sockets) + "/nope", additional_headers=headers):
                    pass
            assert refused.value.response.status_code == 404

    asyncio.run(main())


def test_what_is_expected_is_one_line_of_the_log_and_a_bug_its_way(caplog: pytest.LogCaptureFixture) -> None:
    """A disk that refuses or a model that fails is a line; what nobody expected brings its traceback, where texts are logged."""
    for error in (StorageError("the disk is full"), ServerFailed("lab/x answered 500"), ZeroDivisionError("a bug")):
        with caplog.at_level("ERROR", logger="nbllm.service"):
            log_failure("r1", error, problem_of(error), say_why=True)
    known, failed, bug = caplog.records
    assert known.exc_info is None
    assert known.getMessage() == "Request r1 failed: StorageError: the disk is full"
    assert failed.exc_info is None
    assert bug.exc_info is not None


def test_the_opening_says_where_state_is_and_which_models_there_are(tmp_path: Path) -> None:
    """The lines at the start name the models, where state is kept, and that jobs on Redis need workers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app([greet], write_settings(tmp_path))
        said = "\n".join(opening_lines(app.state.service, listening, None, "nbllm keys make DIR"))
        assert "sim/small" in said
        assert "flow/greet" in said
        assert f"in {tmp_path / '.state'}" in said
        app.state.service.jobs_elsewhere = True
        said = "\n".join(opening_lines(app.state.service, listening, None, "nbllm keys make DIR"))
        assert "shared on the Redis" in said
        assert "celery --app nbllm.service.worker worker" in said


@pytest.mark.parametrize(("service", "shown"), [("", True), ("docs = false", False), ("host = '0.0.0.0'", False)])
def test_the_opening_says_what_is_open_without_a_key(tmp_path: Path, service: str, shown: bool) -> None:
    """The documentation is named among what needs no key where it is one, and nowhere else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app([greet], write_settings(tmp_path, service))
        said = "\n".join(opening_lines(app.state.service, listening, None, "nbllm keys make DIR"))
    assert ("a key is needed for all but /health, /ready and /docs" in said) == shown
    assert ("/docs, without a key" in said) == shown


def test_the_opening_says_where_keys_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of NBLLM_SERVICE_KEY is not said to be in a file that there is not."""
    monkeypatch.setenv("NBLLM_SERVICE_KEY", "k" * 15 + "0123456789" * 3)
    app = create_app([greet], write_settings(tmp_path))
    keys = app.state.service.keys
    with socket.create_server(("127.0.0.1", 0)) as listening:
        said = "\n".join(opening_lines(app.state.service, listening, None, "nbllm keys make DIR"))
    assert "1 of NBLLM_SERVICE_KEY (more: nbllm keys make DIR)" in said
    assert str(keys.path) not in said
    keys.make()
    assert keys.counted() == f"1 in {keys.path}, 1 of NBLLM_SERVICE_KEY"
