"""WebSockets when the service ends: what runs may finish within the grace, who waits is told at once; refusals are no errors."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from nbllm.testing import FakeProvider, Script
from tests.client.helpers import until
from tests.service.flow_apps import HANGS, Served, say, serving
from tests.starvation import Stopwatch


def opened(served: Served) -> ClientConnection:
    return connect(f"ws://{served.it.host}:{served.it.port}/flows/say/ws", additional_headers=served.it.headers)


@contextmanager
def started(served: Served) -> Iterator[ClientConnection]:
    with opened(served) as socket:
        socket.send(json.dumps({"type": "start", "arguments": {"text": "a"}}))
        until(lambda: served.fake.in_flight == 1)
        yield socket


def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return what still comes, and with which code it was closed."""
    came = []
    try:
        while True:
            came.append(json.loads(socket.recv(10)))
    except ConnectionClosed as closed:
        return came, closed.rcvd.code if closed.rcvd else 0


def test_a_run_under_way_finishes_when_the_service_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After SIGTERM a run on a WebSocket goes on to its reply, within the grace."""
    fake = FakeProvider(Script(pieces=("to the end",), first_after_s=0.5))
    with serving(tmp_path, fake, (say,)) as served, started(served) as socket:
        served.it.stop()
        came, code = rest(socket)
    assert came[-1]["event"] == "reply"
    assert (came[-1]["data"]["result"], code) == ("to the end", 1000)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_run_that_outlasts_the_grace_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the grace is over the socket is closed with 1012 (the service restarts), and the call upstream with it."""
    with serving(tmp_path, FakeProvider(default=HANGS), (say,)) as served, started(served) as socket:
        served.it.stop()
        watch = Stopwatch()
        came, code = rest(socket)
        assert code == 1012
        assert watch.all_s > 1.5
        assert watch.s < 4  # the grace of tests is 2 s
        assert [one["event"] for one in came if one["event"] in {"reply", "error"}] == []
        until(lambda: served.fake.in_flight == 0)
    gc.collect()  # what nobody looked at would be said now
    assert "never retrieved" not in caplog.text
    assert "Exception in ASGI application" not in caplog.text


def test_a_socket_that_nothing_was_started_on_is_closed_at_once(tmp_path: Path) -> None:
    """It is told that the service ends, and does not hold it up."""
    with serving(tmp_path, flows=(say,)) as served, opened(served) as socket:
        watch = Stopwatch()
        served.it.stop()
        came, code = rest(socket)
        assert ([one["data"]["status"] for one in came], code) == ([503], 1012)
        assert watch.s < 1


@pytest.mark.parametrize(("path", "status"), [("/flows/say/ws", 401), ("/flows/none/ws", 404)])
def test_a_refused_socket_is_no_error_of_the_server(
    path: str, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller without a key, or at a wrong path, gets status and reason; the server's log holds no error for it."""
    with serving(tmp_path, flows=(say,)) as served:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{served.it.host}:{served.it.port}{path}")
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"")["status"] == status
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_socket_takes_no_idempotency_key(tmp_path: Path) -> None:
    """As a stream: the header is refused, not left unread, and counts as one request; without a key of the service that is said."""
    with serving(tmp_path, flows=(say,), service="[service.tiers.default]\nrequests_per_minute = 2") as served:
        where = f"ws://{served.it.host}:{served.it.port}/flows/say/ws"
        found = []
        for shown in ({}, served.it.headers):
            with pytest.raises(InvalidStatus) as refused:
                connect(where, additional_headers={**shown, "Idempotency-Key": "k"})
            told = json.loads(refused.value.response.body or b"")
            found.append((refused.value.response.status_code, told["type"].rpartition(":")[2]))
        assert found == [(401, "unauthenticated"), (400, "idempotency-not-here")]
        with opened(served):
            pass
