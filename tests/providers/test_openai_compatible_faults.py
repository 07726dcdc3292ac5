"""One request to a server that may fail: every fault of the table, whole and streamed."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest

from nbllm.errors import (
    AttemptFailed,
    AuthenticationFailed,
    BadAnswer,
    BadParameter,
    ConnectionFailed,
    ContextTooLong,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailed,
    StreamInterrupted,
)
from nbllm.providers.openai_compatible import OpenAICompatible
from tests import fault_behaviours as faults
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer, closed_port
from tests.providers.helpers import BOTH, Heard, exchange, run, wire

FAULTS: list[tuple[str, Behaviour, type[AttemptFailed], type[AttemptFailed], int]] = [
    # name, behaviour, error of a whole answer, error of a stream, deltas of the stream before it
    ("500", faults.error(500), ServerFailed, ServerFailed, 0),
    ("503", faults.error(503), ServerFailed, ServerFailed, 0),
    ("429", faults.rate_limited("7"), RateLimited, RateLimited, 0),
    ("401", faults.wrong_key(), AuthenticationFailed, AuthenticationFailed, 0),
    ("403", faults.forbidden(), PermissionDenied, PermissionDenied, 0),
    ("404", faults.not_found(), ModelNotFound, ModelNotFound, 0),
    ("400 parameter", faults.bad_parameter(), BadParameter, BadParameter, 0),
    ("400 context", faults.context_too_long(), ContextTooLong, ContextTooLong, 0),
    ("400 filter", faults.content_filter(), Refused, Refused, 0),
    ("redirect", faults.redirect(), RedirectRefused, RedirectRefused, 0),
    ("malformed JSON", faults.malformed(), BadAnswer, BadAnswer, 0),
    ("empty 200", faults.empty(), BadAnswer, BadAnswer, 0),
    ("HTML 200", faults.html(), BadAnswer, BadAnswer, 0),
    ("choices []", faults.no_choices(), BadAnswer, BadAnswer, 0),
    ("reset before headers", faults.reset(), ConnectionFailed, ConnectionFailed, 0),
    ("reset after headers", faults.reset("headers"), ConnectionFailed, ConnectionFailed, 0),
    ("end after headers", faults.cut("headers"), ConnectionFailed, BadAnswer, 0),
    ("reset after 2 tokens", faults.reset("tokens"), ConnectionFailed, StreamInterrupted, 2),
    ("end after 2 tokens", faults.cut("tokens"), ConnectionFailed, StreamInterrupted, 2),
    ("broken line at once", faults.broken_line(0), BadAnswer, BadAnswer, 0),
    ("broken line after 2 tokens", faults.broken_line(2), BadAnswer, StreamInterrupted, 2),
    ("error in band at once", faults.error_in_band(0), ServerFailed, ServerFailed, 0),
    ("429 in band at once", faults.error_in_band(0, 429), RateLimited, RateLimited, 0),
    ("error in band after 2 tokens", faults.error_in_band(2), ServerFailed, StreamInterrupted, 2),
    ("[DONE] without finish", faults.finish(None), BadAnswer, StreamInterrupted, 5),
    ("finish error", faults.finish("error"), ServerFailed, StreamInterrupted, 5),
    ("finish content_filter", faults.finish("content_filter"), Refused, Refused, 5),
    ("nothing in it", faults.ok(""), BadAnswer, BadAnswer, 0),
    ("only reasoning", faults.ok("", reasoning=("Hm.",)), BadAnswer, StreamInterrupted, 1),
]


@BOTH
@pytest.mark.parametrize(("behaviour", "whole", "stream", "deltas"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_every_fault_is_its_own_error_and_one_request(
    behaviour: Behaviour, whole: type[AttemptFailed], stream: type[AttemptFailed], deltas: int, streamed: bool
) -> None:
    """Each row of the table of faults ends in its error, names the rung, was sent once, counted once, and leaves no socket."""

    async def scenario() -> None:
        async with FaultServer() as server:
            error, heard = await exchange(server, behaviour, streamed=streamed)
            assert type(error) is (stream if streamed else whole), error
            assert error.rung == "lab/m"
            assert "127.0.0.1" in str(error) or isinstance(error, Refused)
            assert heard.sent_count == server.count() == 1
            if streamed:
                assert len(heard.deltas) == deltas
            await server.settled()

    run(scenario())


def test_a_refused_connection_was_not_sent() -> None:
    """Nobody listens: ConnectionFailed that blames the whole endpoint, and no request counts as sent."""

    async def scenario() -> None:
        provider, heard = OpenAICompatible({}), Heard()
        with pytest.raises(ConnectionFailed, match="refused") as caught:
            await provider.send(wire(closed_port()), heard)
        assert caught.value.whole_endpoint
        assert caught.value.hint
        assert heard.sent_count == 0
        await provider.aclose()

    run(scenario())


def test_an_unknown_host_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve blames the whole endpoint and names the host."""

    async def scenario() -> None:
        async def nothing(*_: object, **__: object) -> list[object]:
            import socket

            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nothing)
        provider, heard = OpenAICompatible({}), Heard()
        with pytest.raises(ConnectionFailed, match=r"nowhere\.invalid.*resolved") as caught:
            await provider.send(wire("http://nowhere.invalid/v1"), heard)
        assert caught.value.whole_endpoint
        assert heard.sent_count == 0
        await provider.aclose()

    run(scenario())


def test_tls_that_fails_was_not_sent() -> None:
    """TLS to a server that speaks plain HTTP: ConnectionFailed for the whole endpoint, nothing sent."""

    async def scenario() -> None:
        async with FaultServer() as server:
            provider, heard = OpenAICompatible({}), Heard()
            with pytest.raises(ConnectionFailed) as caught:
                await provider.send(wire(server.base_url.replace("http:", "https:")), heard)
            assert caught.value.whole_endpoint
            assert heard.sent_count == server.count() == 0
            await provider.aclose()

    run(scenario())


def test_retry_after_and_limits_are_passed_on() -> None:
    """Retry-After in seconds or as a date is in the error, nonsense is None; the headers' limits go to progress."""

    async def scenario() -> None:
        async with FaultServer() as server:
            limits = {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-tokens": "5"}
            error, heard = await exchange(
                server, faults.rate_limited("7").with_(headers={"Retry-After": "7", **limits}), streamed=False
            )
            assert isinstance(error, RateLimited)
            assert error.retry_after_s == 7
            assert [(told.requests_limit, told.requests_reset_s, told.tokens_left) for told in heard.told] == [(60, 360.0, 5)]
            error, _ = await exchange(server, faults.rate_limited(formatdate(time.time() + 30, usegmt=True)), streamed=False)
            assert isinstance(error, RateLimited)
            assert error.retry_after_s == pytest.approx(30, abs=2)
            error, _ = await exchange(server, faults.rate_limited("soon"), streamed=False)
            assert isinstance(error, RateLimited)
            assert error.retry_after_s is None

    run(scenario())
