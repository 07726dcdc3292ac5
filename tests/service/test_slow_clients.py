"""Clients that are slow, many, or send heads without end: each is cut, others are served meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.probes import Seen, probe_app
from tests.service.raw import Line, ask
from tests.service.running import Running, running
from tests.starvation import Stopwatch, within


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Seen]]:
    """An app that waits 1 s for readers, and has room for ten connections."""
    app, seen = probe_app(tmp_path_factory.mktemp("app"), "idle_s = 1\nmax_connections = 10")
    with running(app) as it:
        yield it, seen


@pytest.fixture
def app(probes: tuple[Running, Seen]) -> Running:
    return probes[0]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An app that waits 0.5 s for heads."""
    with running(probe_app(tmp_path_factory.mktemp("hasty"), "header_timeout_s = 0.5")[0]) as it:
        yield it


def drips_until_cut(line: Line, drip: bytes) -> None:
    """Send a drip every 50 ms; AssertionError when the other side does not end it within 1.5 s."""
    line.socket.settimeout(0.05)
    with within(1.5):
        for _ in range(600):
            try:
                line.send(drip)
                if line.socket.recv(1000) is not None:  # the refusal, or the end
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    raise AssertionError("it was not cut")


def test_a_connection_that_says_nothing_is_closed(hasty: Running) -> None:
    """Who connects and is silent is cut after the time for a head."""
    watch = Stopwatch()
    with Line(hasty) as line:
        assert line.closed()
    assert watch.all_s > 0.4
    assert watch.s < 1.5


@pytest.mark.parametrize("drip", [b"X-A: 1\r\n", b"\r\n"], ids=["headers", "empty lines"])
def test_a_head_that_drips_is_cut(hasty: Running, drip: bytes) -> None:
    """A head that comes a line at a time (slow loris) has as long as any other; empty lines before it count, too."""
    with Line(hasty) as line:
        if drip != b"\r\n":
            line.send(b"GET /health HTTP/1.1\r\n")
        drips_until_cut(line, drip)


def test_dripping_between_requests_is_cut_too(hasty: Running) -> None:
    """A connection that was used once and then drips empty lines has no more time than a new one."""
    with Line(hasty) as line:
        assert line.ask("/health").status == 200
        drips_until_cut(line, b"\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"X-%d: 1\r\n" % n for n in range(200)),
        b"X-A: " + b"a" * 100_000 + b"\r\n",
        b"".join(b"X-%d: " % n + b"b" * 2000 + b"\r\n" for n in range(40)),
    ],
    ids=["many", "one large", "large together"],
)
def test_a_flood_of_headers_is_refused(app: Running, head: bytes) -> None:
    """A head may have 100 headers and 32 kB; more is 431, and nothing of it is kept."""
    with Line(app) as line:
        line.send(f"GET /health HTTP/1.1\r\nHost: {line.host}\r\n".encode() + head + b"\r\n")
        answer = line.read()
        assert (answer.status, answer.kind) == (431, "head-too-large")
        assert answer.headers["connection"] == "close"


def test_a_path_without_end_is_refused(app: Running) -> None:
    """The path counts to the head."""
    with Line(app) as line:
        line.send(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.read().status == 431


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELP\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100]
)
def test_what_is_no_http_is_refused(app: Running, said: bytes) -> None:
    """TLS, other protocols and noise get 400 and an end."""
    with Line(app) as line:
        line.send(said)
        assert line.read().status == 400
        assert line.closed()


def test_an_answer_that_nobody_reads_is_cut(app: Running, probes: tuple[Running, Seen]) -> None:
    """A client that asks for a stream and does not read it is cut after the idle time; what made the stream has ended."""
    seen = probes[1]
    with Line(app) as line:
        line.send(f"POST /drip HTTP/1.1\r\nHost: {line.host}\r\nAuthorization: Bearer {app.key}\r\n\r\n".encode())
        assert seen.ended.wait(30)


def test_an_idle_connection_is_closed(app: Running) -> None:
    """A connection that is kept for a next request is closed after the idle time."""
    with Line(app) as line:
        assert line.ask("/health").status == 200
        assert line.closed()


def test_too_many_connections_are_refused_and_room_comes_back(app: Running) -> None:
    """Over max_connections a new one is told 503 with Retry-After at once; when others end, there is room again."""
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Line(app))
        with Line(app) as late:
            answer = late.read()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        try:
            if ask(app, "/health").status == 200:
                return
        except ConnectionError:
            continue
    raise AssertionError("no room came back")


def test_requests_that_are_sent_together_are_answered_in_order(app: Running) -> None:
    """Pipelined requests on one connection each get their answer; a fault in a later one does not harm the first."""
    with Line(app) as line:
        one = f"GET /health HTTP/1.1\r\nHost: {line.host}\r\n\r\n".encode()
        line.send(one + one)
        assert line.read().status == 200


def test_what_holds_under_another_server(tmp_path: Path) -> None:
    """Under plain uvicorn an answer that nobody reads frees what was made for it, too, and floods of headers are refused."""
    app, seen = probe_app(tmp_path, "idle_s = 1")
    with running(app, plain=True) as it:
        with Line(it) as line:
            line.send(f"POST /drip HTTP/1.1\r\nHost: {line.host}\r\nAuthorization: Bearer {it.key}\r\n\r\n".encode())
            assert seen.ended.wait(30)
        with Line(it) as line:
            many = "".join(f"X-{n}: 1\r\n" for n in range(200))
            line.send(f"GET /health HTTP/1.1\r\nHost: {line.host}\r\n{many}\r\n".encode())
            answer = line.read()
            assert (answer.status, answer.kind) == (431, "head-too-large")
