"""What holds at every route of an app alike: nobody without a key, no foreign page or name, no body that is not JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm import ask, flow
from nbllm.service import create_app
from tests.service.raw import Line, post
from tests.service.raw import ask as ask_raw
from tests.service.running import Running, running, write_settings

OPEN = {"/health", "/ready", "/docs", "/openapi.json"}


@flow
def shorten(text: str) -> str:
    """Shorten a text."""
    return ask(f"Shorten: {text}").text


def doors(app: Any) -> list[tuple[str, str]]:
    """Return (method, path) of every route, those in routers within routers too, with something for what is variable."""
    found: set[tuple[str, str]] = set()

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            path = prefix + (getattr(route, "path", "") or "")
            inner = getattr(route, "routes", None) or getattr(getattr(route, "router", None), "routes", None)
            if inner:
                walk(inner, path)
            elif getattr(route, "methods", None):
                concrete = path.replace("{name:path}", "sim/small").replace("{job_id}", "0" * 12)
                found.update((method, concrete) for method in route.methods if method != "HEAD")

    walk(app.routes, "")
    paths = app.openapi()["paths"]
    found.update((method.upper(), path.replace("{job_id}", "0" * 12)) for path, methods in paths.items() for method in methods)
    return sorted(found)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(create_app([shorten], write_settings(tmp_path_factory.mktemp("app")))) as it:
        yield it


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    made = create_app([shorten], write_settings(tmp_path_factory.mktemp("app")))
    return [door for door in doors(made) if door[1] not in OPEN]


def test_the_doors_are_those_that_we_think(closed: list[tuple[str, str]]) -> None:
    """The list that the tests below go through holds flows, streams, jobs, models and numbers."""
    paths = {path for _, path in closed}
    assert {"/flows/shorten", "/flows/shorten/stream", "/flows/shorten/jobs", "/metrics"} <= paths
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/models"} <= paths


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic Zm9v", "Bearer wrong", "bearer nbllm_00000000_" + "a" * 43]
)
def test_nobody_gets_in_without_a_key(app: Running, closed: list[tuple[str, str]], authorization: str | None) -> None:
    """Every route answers 401 with WWW-Authenticate to who shows no key, another scheme, or a key that is none."""
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in closed:
        for body in (b"", b'{"text": "x"}'):
            answer = ask_raw(app, path, method, {**headers, "Content-Type": "application/json"}, body)
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_key_is_no_key(app: Running, closed: list[tuple[str, str]]) -> None:
    """A key works, and a quarter of a second after it was revoked at none of the routes any more."""
    text, key = app.service.keys.make()
    headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}
    assert ask_raw(app, "/metrics", headers=headers).status == 200
    app.service.keys.revoke(key.id)
    for method, path in closed:
        assert ask_raw(app, path, method, headers, b"{}").status == 401, (method, path)


def test_foreign_pages_and_names_get_nowhere(app: Running, closed: list[tuple[str, str]]) -> None:
    """Also with a key: a foreign Origin is 403, a foreign Host is 421, at every route."""
    for method, path in closed:
        assert ask_raw(app, path, method, {**app.headers, "Origin": "https://evil.example"}).status == 403, (method, path)
        assert ask_raw(app, path, method, {**app.headers, "Host": "evil.example"}).status == 421, (method, path)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"[" * 100_000, "application/json", 400),
        (b'{"text": NaN}', "application/json", 400),
        (b'{"text": "x"', "application/json", 400),
        (b"\xff\xfe{\x00}\x00", "application/json", 400),
        (b'{"text": "\xff"}', "application/json", 400),
        (b'{"n": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"text=x", "application/x-www-form-urlencoded", 415),
        (b"x" * 1_000_001, "application/json", 413),
    ],
    ids=["deep", "NaN", "cut", "UTF-16", "no UTF-8", "huge number", "form", "large"],
)
def test_a_body_that_is_none_is_refused_everywhere(
    app: Running, closed: list[tuple[str, str]], body: bytes, kind: str, status: int
) -> None:
    """Each route that takes a body refuses what is no JSON, too deep, too large or of another type: never a 500."""
    for method, path in closed:
        if method == "POST":
            answer = ask_raw(app, path, method, {**app.headers, "Content-Type": kind}, body)
            assert answer.status in {status, 422} if status == 400 else answer.status == status, (path, answer.status, answer.body)


def test_unknown_fields_are_named(app: Running) -> None:
    """A field that is not there is 422 (400 on /v1) and named, not dropped."""
    answer = post(app, "/flows/shorten", b'{"text": "x", "tekst": "y"}')
    assert answer.status == 422
    assert b"tekst" in answer.body


def test_a_gigabyte_takes_neither_memory_nor_time(app: Running) -> None:
    """A body of 1 GB, announced or in pieces, is refused while it comes: the process does not grow."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for head in ("Content-Length: 1000000000", "Transfer-Encoding: chunked"):
        with Line(app) as line:
            line.send(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: {line.host}\r\n{head}\r\nAuthorization: Bearer {app.key}\r\n"
                "Content-Type: application/json\r\n\r\n".encode()
            )
            piece = b"x" * 65_536
            sent = 0
            line.socket.settimeout(5)
            try:
                while sent < 1_000_000_000:
                    line.send(piece if "Length" in head else b"10000\r\n" + piece + b"\r\n")
                    sent += len(piece)
            except OSError:
                pass
            assert sent < 1_000_000_000
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 50
    assert ask_raw(app, "/health").status == 200


def test_the_settings_say_where_the_home_is(tmp_path: Path) -> None:
    """What one test's app keeps is not seen by another's."""
    made = create_app([shorten], write_settings(tmp_path))
    assert made.state.service.keys.list() == ()
