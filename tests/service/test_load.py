"""A load test against a server on loopback: open loop, errors by kind, this machine only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from nbllm.core.arrivals import LoadPlan, LoadResult
from nbllm.errors import InvalidRequest
from nbllm.service.load import LoadTest, check_local
from tests.client.helpers import until
from tests.starvation import Stopwatch

Handler = Callable[[web.Request], Any]


class Server:
    """An HTTP server on a thread of its own, which remembers what it got."""

    def __init__(self, handler: Handler) -> None:
        self.bodies: list[Any] = []
        self.keys: list[str] = []
        self._handler = handler
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        ready = threading.Event()
        self.url = ""
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def _run(self, ready: threading.Event) -> None:
        async def start() -> None:
            app = web.Application()
            app.router.add_post("/flows/triage", self._answer)
            self._runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/flows/triage"
            ready.set()

        self._loop.run_until_complete(start())
        self._loop.run_forever()
        # A connection taken at the last moment sees that its client has gone: cancelled before it began, it would stay open.
        self._loop.run_until_complete(asyncio.sleep(0.05))
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.run_until_complete(asyncio.sleep(0.01))  # what they closed is closed a turn later
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        response = self._handler(request)
        return await response if asyncio.iscoroutine(response) else response

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Server]]:
    """Make a server that ends with the test."""
    made: list[Server] = []

    def make(handler: Handler) -> Server:
        made.append(Server(handler))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def run(
    url: str, plan: LoadPlan, bodies: tuple[dict[str, Any], ...] = ({"ticket": "a"}, {"ticket": "b"}), **more: Any
) -> LoadResult:
    """Run a whole test."""
    test = LoadTest(url, bodies, plan, **more)
    test.start()
    return test.result()


def ok(_: web.Request) -> web.Response:
    return web.json_response({"label": "urgent"}, headers={"X-Cost-Usd": "0.001", "X-Source": "cache"})


def test_every_request_is_sent_with_its_key_and_counted(serve: Any) -> None:
    """As many as the plan says, bodies in turn; cost and source are those of the answers' headers."""
    server = serve(ok)
    plan = LoadPlan(users=100, seconds=0.4, even=True)
    result = run(server.url, plan, key="service-key")
    assert len(result.samples) == len(server.bodies) == 40
    assert {body["ticket"] for body in server.bodies} == {"a", "b"}
    assert set(server.keys) == {"Bearer service-key"}
    assert result.errors() == {}
    assert str(result.cost_usd()[0]) == "0.040"
    assert result.sources() == {"cache": 40}


def test_a_stalled_server_does_not_hold_back_what_is_due(serve: Any) -> None:
    """Open loop: the server answers none until it has all, so they are sent while the first waits; the wait is in the latencies."""
    gate = asyncio.Event()
    came: list[float] = []

    async def stalls(request: web.Request) -> web.Response:
        came.append(time.monotonic())
        if len(came) == 10:
            gate.set()
        await gate.wait()
        return ok(request)

    server = serve(stalls)
    result = run(server.url, LoadPlan(users=50, seconds=0.2, even=True))
    assert len(came) == 10
    assert result.errors() == {}
    slowest = max(sample.latency_s for sample in result.samples)
    assert slowest >= came[-1] - came[0]


def test_errors_are_told_by_kind(serve: Any) -> None:
    """Refused, failed, broken and late answers are each counted under a name, and none is an answer."""
    answers = iter([429, 503, "text", "slow", "cut", 200] * 3)

    async def mixed(request: web.Request) -> web.StreamResponse:
        kind = next(answers)
        if kind == "slow":
            await asyncio.sleep(30)
        if kind == "cut":
            assert request.transport is not None
            request.transport.close()
        if kind == "text":
            return web.Response(text="<html>")
        return ok(request) if kind in (200, "slow", "cut") else web.json_response({"title": "no"}, status=int(kind))

    result = run(serve(mixed).url, LoadPlan(users=90, seconds=0.2, even=True, limit_s=3))
    errors = result.errors()
    assert (errors["HTTP 429"], errors["HTTP 503"], errors["answer is no JSON"], errors["no answer within 3 s"]) == (3, 3, 3, 3)
    assert sum(count for kind, count in errors.items() if kind.startswith("broken off")) == 3
    assert len(result.answered) == 3


def test_nobody_listening_is_said(serve: Any) -> None:
    """Every request is a refused connection, and the test ends at its time."""
    server = serve(ok)
    server.stop()
    result = run(server.url, LoadPlan(users=20, seconds=0.2, even=True))
    assert result.errors() == {"connection refused": 4}


def test_it_can_be_stopped(serve: Any) -> None:
    """Nothing more is sent, what is under way is given up, and what was measured is kept."""
    test = LoadTest(serve(ok).url, [{}], LoadPlan(users=50, seconds=30))
    test.start()
    until(lambda: test.so_far.samples)
    watch = Stopwatch()
    test.stop()
    result = test.result()
    assert watch.s < 1
    assert result.stopped
    assert 0 < len(result.samples) < test.expected


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1", "http://10.0.0.1:8080/x", "http://127.0.0.1.evil.example/", "http://user@127.0.0.1/", "ftp://127.0.0.1/",
        "http://0.0.0.0/", "http://[2001:db8::1]/", "http:///x", "http://localhost.evil.example/",
    ],
)  # fmt: skip
def test_other_machines_are_refused(url: str) -> None:
    """A load test of somebody else's server is an attack."""
    with pytest.raises(InvalidRequest, match="this machine only"):
        check_local(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://localhost:8080/flows/a", "http://[::1]:80/", "http://127.9.9.9/"])
def test_this_machine_is_not(url: str) -> None:
    """Every loopback address, and the name."""
    assert check_local(url) == url


def test_redirects_are_not_followed(serve: Any) -> None:
    """They could lead to another machine."""
    server = serve(lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"}))
    assert run(server.url, LoadPlan(users=10, seconds=0.2, even=True)).errors() == {"HTTP 302": 2}


def test_without_anything_to_send_nothing_is_started() -> None:
    """No bodies: said before the first request."""
    with pytest.raises(InvalidRequest, match="nothing to send"):
        LoadTest("http://127.0.0.1:1/", [], LoadPlan())
