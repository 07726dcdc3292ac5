"""What goes wrong on /v1: each error is of its class for the openai SDK, retries do not multiply, broken streams say so."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.core.ports import Filter
from nbllm.service import create_app
from tests import fault_behaviours as play
from tests.fault_server import FaultServer
from tests.service.running import Running, running, write_settings
from tests.starvation import Stopwatch

openai = pytest.importorskip("openai")

ASKED = [{"role": "user", "content": "Say hello"}]
TOP = """
ladder = ["lab/m"]
retries = 2
discover = false

[endpoints.lab]
base_url = "{base_url}"
input_usd_per_mtok = 1
output_usd_per_mtok = 2
"""
TIERS = """
[service.tiers.narrow]
requests_per_minute = 2
[service.tiers.poor]
day_usd = "0.000000001"
[service.tiers.single]
streams = 1
"""


@pytest.fixture
def upstream() -> Iterator[FaultServer]:
    """A model server that fails on command."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def served(tmp_path: Path, upstream: FaultServer) -> Iterator[Running]:
    """An app in front of it."""
    settings = write_settings(tmp_path / "app", service=TIERS, top=TOP.format(base_url=upstream.base_url))
    with running(create_app(settings=settings)) as app:
        yield app


def sdk_of(app: Running, *, key: str = "", max_retries: int = 0) -> openai.OpenAI:
    """Return the SDK for an app."""
    return openai.OpenAI(base_url=f"{app.url}/v1", api_key=key or app.key, max_retries=max_retries)


@pytest.mark.parametrize(
    ("behaviour", "error", "status"),
    [
        (play.context_too_long(), "BadRequestError", 400),
        (play.content_filter(), "BadRequestError", 400),
        (play.bad_parameter("temperature"), "BadRequestError", 400),
        (play.error(500), "InternalServerError", 502),
        (play.html(), "InternalServerError", 502),
        (play.wrong_key(), "InternalServerError", 502),
        (play.rate_limited("3600"), "InternalServerError", 503),
    ],
)
def test_upstreams_errors_are_of_the_sdks_classes(
    served: Running, upstream: FaultServer, behaviour: play.Behaviour, error: str, status: int
) -> None:
    """The caller's own mistakes are 400, the upstream's are 5xx: a wrong key of the service is not a wrong key of the caller."""
    upstream.script("m", [behaviour])
    with sdk_of(served) as sdk, pytest.raises(getattr(openai, error)) as caught:
        sdk.chat.completions.create(model="lab/m", messages=ASKED, timeout=20)
    assert caught.value.status_code == status
    body = caught.value.response.json()["error"]
    assert {"message", "type", "param", "code"} == body.keys()
    assert served.key not in json.dumps(body)


def test_the_sdks_retries_do_not_multiply_the_roads(served: Running, upstream: FaultServer) -> None:
    """What the road has sent three times, an SDK that would retry five times does not ask for again."""
    upstream.script("m", [play.error(500)])
    with sdk_of(served, max_retries=5) as sdk, pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="lab/m", messages=ASKED, timeout=20)
    assert upstream.count("m") == 3


def test_keys_limits_and_budgets_are_of_the_sdks_classes(served: Running, upstream: FaultServer) -> None:
    """No key, too many requests, no money left, no such model, no such path."""
    with sdk_of(served, key="nbllm_nothing") as sdk, pytest.raises(openai.AuthenticationError):
        sdk.chat.completions.create(model="lab/m", messages=ASKED)
    with sdk_of(served, key=served.service.keys.make("narrow")[0]) as sdk:
        for number in range(2):
            sdk.chat.completions.create(model="lab/m", messages=[{"role": "user", "content": f"Hello {number}"}])
        with pytest.raises(openai.RateLimitError) as limited:
            sdk.chat.completions.create(model="lab/m", messages=ASKED)
    assert int(limited.value.response.headers["retry-after"]) > 0
    assert "r=0" in limited.value.response.headers["ratelimit"]
    sent = upstream.count()
    with (
        sdk_of(served, key=served.service.keys.make("poor")[0], max_retries=5) as sdk,
        pytest.raises(openai.RateLimitError) as poor,
    ):
        sdk.chat.completions.create(model="lab/m", messages=ASKED)
    assert poor.value.code == "insufficient_quota"
    assert upstream.count() == sent
    with sdk_of(served) as sdk:
        for model in ("lab/other", "openai/gpt-4o", "sim/small", "../m", "flow/nothing"):
            with pytest.raises(openai.NotFoundError):
                sdk.chat.completions.create(model=model, messages=ASKED)
        with pytest.raises(openai.NotFoundError):
            sdk.files.list()
    assert upstream.count() == sent


@pytest.mark.parametrize("behaviour", [play.reset("tokens"), play.cut(), play.broken_line()])
def test_a_stream_that_breaks_says_so(served: Running, upstream: FaultServer, behaviour: play.Behaviour) -> None:
    """The text that came is with the client; then comes an error that the SDK raises, and no [DONE]; nothing is asked for again."""
    upstream.script("m", [behaviour])
    pieces: list[str] = []
    with sdk_of(served) as sdk:
        stream = sdk.chat.completions.create(model="lab/m", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError) as broken:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(pieces)
    assert broken.value.code == "upstream_failed"
    assert upstream.count("m") == 1


def test_what_fails_before_the_first_piece_has_a_status(served: Running, upstream: FaultServer) -> None:
    """A stream whose upstream never answers well is an error as any other, not a 200 with an error inside."""
    upstream.script("m", [play.error(500)])
    with sdk_of(served) as sdk, pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="lab/m", messages=ASKED, stream=True)
    assert caught.value.status_code == 502


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_leaves_ends_the_call_upstream(served: Running, upstream: FaultServer, streamed: bool) -> None:
    """Within a second, streamed or not; the attempt's row says that it was cancelled."""
    upstream.script("m", [play.drip(0.02) if streamed else play.stall()])
    body = json.dumps({"model": "lab/m", "messages": ASKED, "stream": streamed}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((served.host, served.port)) as line:
        line.sendall(head.encode() + body)
        end_s = time.monotonic() + 30
        while not upstream.requests and time.monotonic() < end_s:
            time.sleep(0.01)
        if streamed:
            assert b"chat.completion.chunk" in line.recv(4096) + line.recv(4096)
    assert upstream.wait_closed(Stopwatch()) < 1.0
    end_s = time.monotonic() + 30
    while not (rows := [row for row in served.service.client.ledger.calls(Filter(), limit=9) if row.status.value == "cancelled"]):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert len(rows) == 1


def test_streams_at_once_are_limited_by_key(served: Running, upstream: FaultServer) -> None:
    """With one stream under way, a key that has one gets 429 for the second; when the first is over it has one again."""
    upstream.script("m", [play.drip(0.02, 50)])
    with sdk_of(served, key=served.service.keys.make("single")[0]) as sdk:
        first = sdk.chat.completions.create(model="lab/m", messages=ASKED, stream=True)
        next(iter(first))
        with pytest.raises(openai.RateLimitError):
            sdk.chat.completions.create(model="lab/m", messages=[{"role": "user", "content": "Another"}], stream=True)
        for _ in first:
            pass
        upstream.script("m", [play.ok("one", "two")])
        assert list(sdk.chat.completions.create(model="lab/m", messages=[{"role": "user", "content": "A third"}], stream=True))
