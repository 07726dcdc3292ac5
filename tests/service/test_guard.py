"""What the guard refuses, what it lets through, and what it adds. Each test speaks to a running app on a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.probes import Seen, probe_app
from tests.service.raw import Line, ask, post
from tests.service.running import Running, running
from tests.starvation import within

LIMIT = 10_000


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Seen]]:
    """An app with small limits."""
    app, seen = probe_app(
        tmp_path_factory.mktemp("app"),
        f"max_body_bytes = {LIMIT}\nmax_depth = 20\nallowed_hosts = ['*.example.org']\n"
        "allowed_origins = ['https://app.example.org']",
    )
    with running(app) as it:
        yield it, seen


@pytest.fixture
def app(probes: tuple[Running, Seen]) -> Running:
    return probes[0]


def test_each_answer_has_an_id_and_headers_that_keep_browsers_from_harm(app: Running) -> None:
    """Any answer, a refusal too, names its request and is neither sniffed, framed nor stored."""
    for path in ("/health", "/nothing", "/metrics"):
        answer = ask(app, path)
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("sent", "kept"), [("abc-1", True), ("a" * 65, False), ("a b", False), ('"><script>', False)])
def test_an_id_of_the_callers_own_is_kept_when_it_is_harmless(app: Running, sent: str, kept: bool) -> None:
    """X-Request-Id is taken over when it is short and plain, and replaced otherwise: it goes into logs and headers."""
    got = ask(app, "/health", headers={"X-Request-Id": sent}).headers["x-request-id"]
    assert (got == sent) is kept


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a b", "localhost@evil.example", "example.org"])
def test_a_wrong_name_is_refused(app: Running, host: str) -> None:
    """A Host that is none of the service's own (a name that a web page had resolve to the loopback) gets nowhere."""
    answer = ask(app, "/probe", "POST", {**app.headers, "Host": host})
    assert answer.status == 421
    assert answer.kind == "wrong-host"


def test_two_names_are_refused(app: Running) -> None:
    """A request with two Host headers is not guessed at."""
    with Line(app) as line:
        line.send(f"GET /probe HTTP/1.1\r\nHost: {line.host}\r\nHost: evil.example\r\n\r\n".encode())
        assert line.read().status in {400, 421}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:80", "LOCALHOST:1", "api.example.org", "a.b.example.org:443"])
def test_own_names_are_taken(app: Running, host: str) -> None:
    """The loopback's names and those of allowed_hosts are the service's own, with any port and in any case."""
    assert ask(app, "/metrics", headers={**app.headers, "Host": host}).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.org.evil.example", "http://app.example.org"]
)
def test_foreign_pages_are_refused(app: Running, origin: str) -> None:
    """A browser says which page a request comes from; a foreign one is refused even with a key."""
    answer = post(app, "/probe", b"{}", Origin=origin)
    assert (answer.status, answer.kind) == (403, "wrong-origin")


def test_own_and_allowed_pages_are_taken(app: Running) -> None:
    """Pages of the service's own address and of allowed_origins may call, and a browser is told so."""
    assert post(app, "/probe", b"{}", Origin=f"http://{app.host}:{app.port}").status == 200
    allowed = post(app, "/probe", b"{}", Origin="https://app.example.org")
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"


def test_a_body_without_a_key_is_not_read(app: Running) -> None:
    """A caller without a key is refused at the head of a request: a body of 1 GB is never taken in."""
    with Line(app) as line:
        line.send(f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nContent-Length: 1000000000\r\n\r\n".encode())
        answer = line.read()
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["connection"] == "close"


def test_a_body_that_says_that_it_is_large_is_not_read(app: Running) -> None:
    """Content-Length over the limit is refused at once, and who waits for leave to send (100-continue) never gets it."""
    with Line(app) as line:
        line.send(
            f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n"
            f"Authorization: Bearer {app.key}\r\nContent-Type: application/json\r\n\r\n".encode()
        )
        answer = line.read()
        assert (answer.status, answer.kind) == (413, "too-large")


def test_a_body_without_end_is_cut_at_the_limit(app: Running, probes: tuple[Running, Seen]) -> None:
    """A chunked body has no length to look at: it is counted as it comes, refused at the limit, and no route sees it."""
    before = len(probes[1].bodies)
    with Line(app) as line:
        line.send(
            f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer {app.key}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        for _ in range(LIMIT // 1000 + 1):
            line.send(b"3e8\r\n" + b"[" * 1000 + b"\r\n")
        answer = line.read()
        assert (answer.status, answer.kind) == (413, "too-large")
    assert len(probes[1].bodies) == before


def test_a_client_that_goes_on_sending_still_sees_why_it_is_refused(app: Running) -> None:
    """A refusal in the middle of an upload arrives, because what follows is thrown away before the connection is closed."""
    with Line(app) as line:
        size = 5_000_000
        line.send(
            f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nContent-Length: {size}\r\nAuthorization: Bearer {app.key}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        line.send(b" " * size)
        assert line.read().status == 413
        assert line.closed()


def test_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    """A client that announces a body and sends nothing, or one byte now and then, is told 408 and cut."""
    made, _ = probe_app(tmp_path, "header_timeout_s = 0.5\nidle_s = 1")
    with running(made) as app:
        gives_up(app)


def gives_up(app: Running) -> None:
    for pause in (False, True):
        with Line(app) as line:
            line.send(
                f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nContent-Length: 500\r\nAuthorization: Bearer {app.key}\r\n"
                "Content-Type: application/json\r\n\r\n".encode()
            )
            if pause:
                line.socket.settimeout(0.1)
                for _ in range(300):
                    line.send(b" ")
                    try:
                        if line.socket.recv(1, 2):
                            break
                    except TimeoutError:
                        continue
                line.socket.settimeout(30)
            assert line.read().status == 408


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "multipart/form-data; boundary=x"],
)
def test_a_body_of_another_type_is_refused(app: Running, kind: str) -> None:
    """Only JSON in UTF-8 is taken: what a web page can send without asking (forms, plain text) is refused by its type."""
    answer = post(app, "/probe", b"{}", Content_Type=kind)
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/problem+json"]
)
def test_json_is_taken_however_its_type_is_written(app: Running, kind: str) -> None:
    """The type may name its charset, in any case."""
    assert post(app, "/probe", b"{}", Content_Type=kind).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5000,
        b"[" * 21 + b"]" * 21,
        b'{"a":' * 21 + b"1" + b"}" * 21,
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1}\0',
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=["never closed", "lists", "objects", "NaN", "Infinity", "NUL", "UTF-16"],
)
def test_json_that_is_none_or_too_deep_is_refused(app: Running, body: bytes) -> None:
    """Deep nesting, NaN, Infinity and other encodings never reach a parser."""
    answer = post(app, "/probe", body)
    assert (answer.status, answer.kind) == (400, "malformed-json")


@pytest.mark.parametrize(
    "body", [b'{"a": "NaN [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ \\" Infinity"}', b"[" * 20 + b"]" * 20, b"[[],[]," * 3 + b"[]" + b"]" * 3]
)
def test_what_looks_dangerous_and_is_not_is_taken(app: Running, body: bytes) -> None:
    """Brackets and words within texts count for nothing, and nesting up to the limit is fine."""
    assert post(app, "/probe", body).status == 200


def test_a_body_arrives_as_it_was_sent(app: Running, probes: tuple[Running, Seen]) -> None:
    """What is let through is not touched, in one piece or in several."""
    body = json.dumps({"text": "ü" * 1000, "n": [1, 2.5, None]}).encode()
    assert post(app, "/probe", body).json["bytes"] == len(body)
    with Line(app) as line:
        line.send(
            f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer {app.key}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        for at in range(0, len(body), 700):
            piece = body[at : at + 700]
            line.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        line.send(b"0\r\n\r\n")
        assert line.read().status == 200
    assert probes[1].bodies[-2:] == [body, body]


def test_length_and_chunks_together_are_refused(app: Running) -> None:
    """Two lengths for one body are how requests are smuggled past proxies: the connection ends."""
    with Line(app) as line:
        line.send(
            f"POST /probe HTTP/1.1\r\nHost: {line.host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
            f"Authorization: Bearer {app.key}\r\nContent-Type: application/json\r\n\r\n0\r\n\r\n".encode()
        )
        assert line.read().status == 400


def test_a_client_that_leaves_ends_its_request(app: Running, probes: tuple[Running, Seen]) -> None:
    """What was begun for a client that closes its connection is cancelled within a second."""
    seen = probes[1]
    with Line(app) as line:
        line.send(f"POST /slow HTTP/1.1\r\nHost: {line.host}\r\nAuthorization: Bearer {app.key}\r\n\r\n".encode())
        assert seen.begun.wait(30)
    with within(1.0):
        assert seen.cancelled.wait(30)


def test_an_error_of_the_app_says_nothing_of_itself(app: Running) -> None:
    """An exception that nobody expected is a 500 with the request's id, and no word of what it was."""
    answer = post(app, "/broken", b"{}", X_Request_Id="find-me")
    assert (answer.status, answer.kind) == (500, "internal")
    assert answer.json["request_id"] == "find-me"
    assert b"secret" not in answer.body


def test_unknown_paths_and_methods_are_problems_too(app: Running) -> None:
    """404 and 405 are problem+json; on /v1 they have the shape of OpenAI's errors."""
    nothing = ask(app, "/nothing", headers=app.headers)
    assert (nothing.status, nothing.headers["content-type"]) == (404, "application/problem+json")
    assert ask(app, "/health", "DELETE", app.headers).status == 405
    assert ask(app, "/v1/nothing", headers=app.headers).json["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    "path",
    [
        "//metrics",
        "/./metrics",
        "/%6detrics",
        "/metrics/",
        "/health/../metrics",
        "/metrics;a=b",
        "/METRICS",
        "/health%2f..%2fmetrics",
    ],
)
def test_no_way_of_writing_a_path_leads_past_the_key(app: Running, path: str) -> None:
    """However a path is written, without a key there are no numbers: access is decided by routes, not by comparing paths."""
    assert b"nbllm_requests" not in ask(app, path).body
