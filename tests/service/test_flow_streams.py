"""Runs that are watched: server-sent events and WebSocket tell the same, in order, and end with reply or error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from nbllm import errors
from nbllm.service import flow_events
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import until
from tests.service.flow_apps import HANGS, TICKET, Served, serving
from tests.starvation import Stopwatch, within

PIECES = Script(pieces=("One ", "two."))
Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("app"), FakeProvider(default=PIECES), top='ladder = ["sim/small"]\ncache = "off"') as made:
        yield made


def sse(served: Served, name: str, body: dict[str, Any]) -> Told:
    """The events of a stream, as a client reads them."""
    with served.http.stream("POST", f"/flows/{name}/stream", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = answer.read().decode()
    told = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        event, data = block.split("\n")
        told.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return told


def socket(served: Served, name: str) -> connect:
    return connect(f"ws://{served.it.host}:{served.it.port}/flows/{name}/ws", additional_headers=served.it.headers)


async def all_of(socket: ClientConnection) -> tuple[Told, int]:
    """Everything that is told until the socket is closed, and how it was."""
    told: Told = []
    with suppress(ConnectionClosed):
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), 30))
            told.append((message["event"], message["data"]))
    assert socket.close_code is not None
    return told, socket.close_code


def ws(served: Served, name: str, body: dict[str, Any]) -> Told:
    """The same over a WebSocket."""

    async def main() -> Told:
        async with socket(served, name) as it:
            await it.send(json.dumps({"type": "start", "arguments": body}))
            told, code = await all_of(it)
            last, data = told[-1]
            assert code == (1000 if last == "reply" else 4000 + data["status"])
            return told

    return asyncio.run(main())


WAYS = pytest.mark.parametrize("way", [sse, ws], ids=["sse", "ws"])


@WAYS
@pytest.mark.parametrize("name", ["say", "later"])
def test_a_stream(served: Served, way: Any, name: str) -> None:
    """started, each piece as it came, then the reply with the result and what it cost."""
    told = way(served, name, {"text": "hi"})
    assert [event for event, _ in told] == ["started", "delta", "delta", "reply"]
    assert told[0][1] == {"call": 1, "attempt": 1, "model": "sim/small"}
    assert [data["text"] for event, data in told if event == "delta"] == ["One ", "two."]
    reply = told[-1][1]
    assert (reply["result"], reply["calls"], reply["rungs"], reply["sources"]) == ("One two.", 1, ["sim/small"], ["model"])
    assert float(reply["cost_usd"]) > 0


@WAYS
def test_a_typed_result(served: Served, way: Any) -> None:
    """The reply holds what the whole answer would be."""
    assert way(served, "triage", TICKET)[-1][1]["result"] == served.http.post("/flows/triage", json=TICKET).json()


@WAYS
def test_two_calls(served: Served, way: Any) -> None:
    """Pieces carry the number of their call."""
    told = way(served, "two", {"text": "hi"})
    assert [data["call"] for event, data in told if event == "delta"] == [1, 1, 2, 2]
    assert told[-1][1]["result"] == ["One two.", "One two."]


@WAYS
def test_a_flow_that_fails(served: Served, way: Any) -> None:
    """The last event is the problem, as the whole answer would have it."""
    told = way(served, "raises", {"text": "private"})
    (event, data) = told[-1]
    assert (event, data["status"], data["type"]) == ("error", 500, "urn:nbllm:problem:flow-failed")
    assert data["request_id"]
    assert "private" not in json.dumps(told)


@WAYS
def test_a_restart_is_told(way: Any, tmp_path: Path) -> None:
    """What came from a model that broke off is void, and the next one's answer comes."""
    broken = Script(pieces=("Bad ",), then=errors.StreamInterrupted("broke off"))
    with serving(tmp_path, FakeProvider(broken, PIECES), top='ladder = ["sim/small", "sim/large"]') as served:
        told = way(served, "say", {"text": "hi"})
        events = [event for event, _ in told]
        assert events == ["started", "delta", "restarted", "started", "delta", "delta", "reply"]
        assert told[-1][1]["result"] == "One two."


def test_a_stream_takes_no_idempotency_key(served: Served) -> None:
    """The header is refused: there is no one answer to replay."""
    answer = served.http.post("/flows/say/stream", json={"text": "a"}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("idempotency-not-here")


def test_refusals_before_a_stream_have_their_own_status(tmp_path: Path) -> None:
    """Too many streams at once are a 429 with a time to come again, not an event of a 200."""
    service = "[service.tiers.default]\nstreams = 1"
    with serving(tmp_path, FakeProvider(default=HANGS), service=service) as served:
        with served.http.stream("POST", "/flows/say/stream", json={"text": "a"}) as first:
            pieces = first.iter_bytes()  # dropped, it would close the connection
            next(pieces)
            answer = served.http.post("/flows/say/stream", json={"text": "b"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            other = served.http.stream("POST", "/flows/say/stream", json={"text": "b"}, headers=served.another_key())
            with other as second:
                assert second.status_code == 200
        until(lambda: served.it.service.limiter._here.total == 0)


def test_a_silent_stream_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes, comments keep proxies from closing the connection."""
    monkeypatch.setattr(flow_events, "PING_S", 0.05)
    with serving(tmp_path, FakeProvider(default=Script(pieces=("One",), first_after_s=0.3))) as served:
        with served.http.stream("POST", "/flows/say/stream", json={"text": "a"}) as answer:
            text = answer.read().decode()
        assert text.count(": ping\n\n") >= 2
        assert text.split("event: ")[-1].startswith("reply")


def test_a_reader_that_is_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more events wait than are kept, the run is ended upstream."""
    monkeypatch.setattr(flow_events, "MOST_WAITING", 50)
    endless = Script(pieces=["x" * 20_000] * 5000, gap_s=0.0005)
    with serving(tmp_path, FakeProvider(default=endless)) as served:
        with served.http.stream("POST", "/flows/say/stream", json={"text": "a"}) as answer:
            assert answer.status_code == 200
            until(lambda: served.fake.calls == 1)
            until(lambda: served.fake.in_flight == 0)
        assert served.fake.cancelled == 1


def test_cancelling_over_a_websocket(tmp_path: Path) -> None:
    """A cancel message closes upstream within a second; the run's end is told."""
    with serving(tmp_path, FakeProvider(default=HANGS)) as served:

        async def main() -> None:
            async with socket(served, "say") as it:
                await it.send('{"type": "start", "arguments": {"text": "hi"}}')
                while json.loads(await it.recv())["event"] != "delta":
                    pass
                await it.send('{"type": "cancel"}')
                watch = Stopwatch()
                told, code = await all_of(it)
                assert (told[-1][0], told[-1][1]["type"], code) == ("error", "urn:nbllm:problem:cancelled", 4499)
                assert watch.s < 1

        asyncio.run(main())
        with within(1.0):
            until(lambda: served.fake.in_flight == 0)
        until(lambda: served.it.service.gate.running == 0)


def test_a_websocket_that_is_left(tmp_path: Path) -> None:
    """Closing it ends the run within a second."""
    with serving(tmp_path, FakeProvider(default=HANGS)) as served:

        async def main() -> None:
            async with socket(served, "later") as it:
                await it.send('{"type": "start", "arguments": {"text": "hi"}}')
                await it.recv()

        asyncio.run(main())
        with within(1.0):
            until(lambda: served.fake.in_flight == 0)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("nonsense", 400), ("[]", 400), ('{"type": "start", "arguments": {"text": NaN}}', 400), ('{"type": "stop"}', 422),
        ('{"type": "start"}', 422), ('{"type": "start", "arguments": {"text": 1}}', 422), (b"\xff", 422),
        (b'{"type": "start", "arguments": {"text": "a"}}', 422),
        ('{"type": "start", "arguments": {"text": "a"}, "more": 1}', 422), ('{"type": "cancel"}', 422),
        ('{"type": "start", "arguments": ' + "[" * 65 + "]" * 65 + "}", 400),
    ],
    ids=range(11),
)  # fmt: skip
def test_messages_that_are_none(served: Served, message: str | bytes, status: int) -> None:
    """Nonsense is told as an error and ends the connection; nothing runs."""
    before = served.fake.calls

    async def main() -> None:
        async with socket(served, "say") as it:
            await it.send(message)
            told, code = await all_of(it)
            assert ([event for event, _ in told], code) == (["error"], 4000 + status)
            assert told[0][1]["status"] == status

    asyncio.run(main())
    assert served.fake.calls == before


def test_a_message_that_is_too_large(served: Served) -> None:
    """It closes the connection with the code for that."""

    async def main() -> None:
        async with socket(served, "say") as it:
            await it.send('{"type": "start", "arguments": {"text": "' + "a" * 1_000_001 + '"}}')
            assert await all_of(it) == ([], 1009)

    asyncio.run(main())


def test_nonsense_while_a_run_goes_on(tmp_path: Path) -> None:
    """It ends the run."""
    with serving(tmp_path, FakeProvider(default=HANGS)) as served:

        async def main() -> None:
            async with socket(served, "say") as it:
                await it.send('{"type": "start", "arguments": {"text": "hi"}}')
                await it.recv()
                await it.send('{"type": "start", "arguments": {"text": "again"}}')
                assert (await all_of(it))[1] == 4422

        asyncio.run(main())
        until(lambda: served.fake.in_flight == 0)


def test_a_websocket_lives_longer_than_a_head_may_take(tmp_path: Path) -> None:
    """The time for a request's head is no limit on what comes after the handshake."""
    with serving(tmp_path, FakeProvider(default=Script(pieces=("late",), first_after_s=1.3)), service="header_timeout_s = 1") as it:
        assert ws(it, "say", {"text": "hi"})[-1][1]["result"] == "late"


def test_a_websocket_that_says_nothing(tmp_path: Path) -> None:
    """It is closed when no start came in time."""
    with serving(tmp_path, service="header_timeout_s = 0.5") as served:

        async def main() -> None:
            async with socket(served, "say") as it:
                assert (await all_of(it))[1] == 4408

        asyncio.run(main())


def test_a_websocket_needs_a_key(served: Served) -> None:
    """Without one there is no handshake."""

    async def main() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://{served.it.host}:{served.it.port}/flows/say/ws"):
                pass
        assert caught.value.response.status_code in (401, 403)

    asyncio.run(main())
