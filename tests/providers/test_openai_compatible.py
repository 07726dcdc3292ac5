"""One request to a server that may fail: every fault of the table, whole and streamed."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from nbllm.core.messages import Chat, Embed, Ending, Usage
from nbllm.errors import (
    AnswerTooLarge,
    AttemptFailed,
    AuthenticationFailed,
    BadAnswer,
    BadParameter,
    ConfigurationError,
    ConnectionFailed,
    ContextTooLong,
    InvalidRequest,
    KeyNotAllowed,
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
from tests.providers.helpers import HELLO, Heard, endpoint, exchange, run, wire

BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
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


@BOTH
def test_a_good_answer_arrives_with_its_usage(streamed: bool) -> None:
    """Text, finish, usage, model and id of a good answer arrive; a stream in pieces, a whole answer in one."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.ok(headers={"x-request-id": "req-1"}), streamed=streamed)
            assert ending == Ending(finish_reason="stop", usage=Usage(12, 5), model="m", request_id="req-1")
            assert heard.text == "One two three four five."
            assert len(heard.deltas) == (5 if streamed else 1)
            assert heard.usages == [Usage(12, 5)]
            assert heard.sent_count == 1
            body = server.requests[0].body
            assert server.requests[0].path == "/v1/chat/completions"
            assert body.get("stream", False) is streamed
            assert (body.get("stream_options") == {"include_usage": True}) is streamed

    run(scenario())


@BOTH
def test_tool_calls_reasoning_and_logprobs_arrive(streamed: bool) -> None:
    """Fragments of a tool call join to its arguments, reasoning is apart from the text, logprobs come per token."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.ok(tool_calls=True), streamed=streamed)
            calls = [delta.tool_call for delta in heard.deltas if delta.tool_call]
            assert isinstance(ending, Ending)
            assert ending.finish_reason == "tool_calls"
            assert (calls[0].id, calls[0].name) == ("call_1", "weather")
            assert "".join(call.arguments for call in calls) == '{"city": "Bern"}'
            _, heard = await exchange(server, faults.ok(reasoning=("Let me ", "think.")), streamed=streamed)
            assert "".join(delta.reasoning for delta in heard.deltas) == "Let me think."
            assert heard.text == "One two three four five."
            _, heard = await exchange(server, faults.ok("a", "b", logprobs=True), streamed=streamed)
            tokens = [token for delta in heard.deltas for token in delta.logprobs]
            assert [(token["token"], len(token["top_logprobs"])) for token in tokens] == [("a", 2), ("b", 2)]

    run(scenario())


@BOTH
def test_an_answer_cut_by_max_tokens_is_no_error(streamed: bool) -> None:
    """An answer with finish "length" is returned as it is, with its text."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.finish("length"), streamed=streamed)
            assert isinstance(ending, Ending)
            assert (ending.finish_reason, heard.text) == ("length", "One two three four five.")

    run(scenario())


def test_a_connection_lost_after_the_finish_loses_nothing() -> None:
    """When finish_reason came and the connection breaks before [DONE], the answer is complete and is kept."""

    async def scenario() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.reset("tokens", tokens=6), streamed=True)
            assert isinstance(ending, Ending), ending
            assert (ending.finish_reason, ending.usage, heard.text) == ("stop", Usage(), "One two three four five.")

    run(scenario())


@BOTH
def test_the_server_decides_whether_it_streams(streamed: bool) -> None:
    """A stream is read where a whole answer was asked for, and a whole answer where a stream was."""

    async def scenario() -> None:
        async with FaultServer() as server:
            whole = faults.whole_body(faults.ok(), "m")
            lines = b"".join(faults.stream_lines(faults.ok(), "m"))
            body, kind = (whole, "application/json") if streamed else (lines, "text/event-stream")
            other = Behaviour(body=body, content_type=kind)
            ending, heard = await exchange(server, other, streamed=streamed)
            assert isinstance(ending, Ending), ending
            assert heard.text == "One two three four five."

    run(scenario())


@pytest.mark.parametrize(
    ("behaviour", "streamed"),
    [(faults.huge(), False), (faults.huge(), True), (faults.huge_line(), True), (faults.huge().with_(pace_s=0.0005), True)],
    ids=["9 MB whole", "9 MB stream", "2 MB line", "9 MB slowly"],
)
def test_an_answer_that_is_too_large_is_cut_at_once(behaviour: Behaviour, streamed: bool) -> None:
    """More than 8 MB, or a line of more than 1 MB, raises AnswerTooLarge, and the connection is gone within half a second."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [behaviour])
            provider, heard = OpenAICompatible({}), Heard()
            with pytest.raises(AnswerTooLarge, match=r"8\.4 MB") as caught:
                await provider.send(wire(server.base_url, streamed=streamed), heard)
            assert await server.closed_after_s(time.monotonic()) < 0.5
            assert caught.value.rung == "lab/m"
            await provider.aclose()

    run(scenario())


def test_an_answer_that_unpacks_to_too_much_is_cut() -> None:
    """9 MB that travel as 9 kB of gzip are still 9 MB."""
    import gzip

    async def scenario() -> None:
        body = gzip.compress(faults.whole_body(faults.huge(), "m"))
        bomb = Behaviour(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
        async with FaultServer() as server:
            error, _ = await exchange(server, bomb, streamed=False)
            assert isinstance(error, AnswerTooLarge)
            fine = gzip.compress(faults.whole_body(faults.ok(), "m"))
            ending, heard = await exchange(server, bomb.with_(body=fine), streamed=False)
            assert isinstance(ending, Ending)
            assert heard.text == "One two three four five."

    run(scenario())


@pytest.mark.parametrize(
    "behaviour",
    [faults.stall("request"), faults.stall("headers"), faults.stall("tokens"), faults.drip()],
    ids=["before headers", "after headers", "after tokens", "drip"],
)
@BOTH
def test_cancelling_closes_the_upstream_at_once(behaviour: Behaviour, streamed: bool) -> None:
    """Wherever a request hangs, a cancel closes its connection at once; what came before was told."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [behaviour])
            provider, heard = OpenAICompatible({}), Heard()
            task = asyncio.create_task(provider.send(wire(server.base_url, streamed=streamed), heard))
            while not server.requests:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.03)
            task.cancel()
            since_s = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await server.closed_after_s(since_s) < 0.2
            assert heard.sent_count == 1
            if streamed and behaviour.break_after == "tokens":
                assert heard.text == "One two "
            await provider.aclose()

    run(scenario())


def test_a_request_that_the_server_does_not_read_is_cut_too() -> None:
    """A prompt of 20 MB that hangs in the socket's buffer keeps no cancelled connection open, and closing does not wait for it."""

    async def scenario() -> None:
        gone = asyncio.Event()

        class Deaf(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.pause_reading()
                self.transport = transport

            def connection_lost(self, exc: Exception | None) -> None:
                gone.set()

        deaf: list[Deaf] = []
        server = await asyncio.get_running_loop().create_server(lambda: deaf.append(Deaf()) or deaf[-1], "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        provider, heard = OpenAICompatible({}), Heard()
        content = Chat(messages=({"role": "user", "content": "x" * 20_000_000},))
        task = asyncio.create_task(provider.send(wire(f"http://127.0.0.1:{port}/v1", content), heard))
        while not heard.sent_count:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(provider.aclose(), 0.5)
        deaf[0].transport.resume_reading()
        await asyncio.wait_for(gone.wait(), 0.5)
        server.close()

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


def test_a_redirect_is_not_followed() -> None:
    """The place that a redirect names never hears of the request, and so never of the key."""

    async def scenario() -> None:
        async with FaultServer() as server, FaultServer() as elsewhere:
            place = endpoint(server.base_url, api_key="secret-key-123456")
            server.script("m", [faults.redirect(f"{elsewhere.base_url}/chat/completions")])
            provider = OpenAICompatible({})
            with pytest.raises(RedirectRefused):
                await provider.send(wire(place), Heard())
            assert elsewhere.connections == 0
            await provider.aclose()

    run(scenario())


@BOTH
def test_a_key_that_the_provider_repeats_is_shown_nowhere(streamed: bool) -> None:
    """A 401 that echoes the key: not in the message, hint, repr, cause, nor in any variable's repr of the traceback's frames."""
    key = "zebra-93-quilt-unusual-key"

    async def scenario() -> AuthenticationFailed:
        async with FaultServer() as server:
            server.script("m", [faults.wrong_key()])
            provider = OpenAICompatible({"LAB_KEY": key})
            with pytest.raises(AuthenticationFailed) as caught:
                await provider.send(wire(endpoint(server.base_url, api_key_env="LAB_KEY"), streamed=streamed), Heard())
            assert server.requests[0].headers["authorization"] == f"Bearer {key}"
            await provider.aclose()
            return caught.value

    error = run(scenario())
    shown = [str(error), repr(error), error.hint, repr(error.__cause__), repr(error.__context__)]
    frame = error.__traceback__
    while frame is not None:
        if "nbllm" in frame.tb_frame.f_code.co_filename and "tests" not in frame.tb_frame.f_code.co_filename:
            shown += [repr(value) for value in frame.tb_frame.f_locals.values()]
        frame = frame.tb_next
    assert "answered 401" in shown[0]
    assert not [text for text in shown if key in text or key[:8] in text]


def test_a_header_that_names_a_variable_is_filled_when_it_is_sent() -> None:
    """A provider's key in a header of a foreign host is refused before a socket is opened; a variable of one's own is sent."""

    async def scenario() -> None:
        async with FaultServer() as server:
            environ = {"OPENAI_API_KEY": "value-of-openai-key", "LAB_KEY": "first"}
            provider = OpenAICompatible(environ)
            with pytest.raises(KeyNotAllowed, match="OPENAI_API_KEY"):
                await provider.send(wire(endpoint(server.base_url, headers={"x": "$OPENAI_API_KEY"})), Heard())
            assert server.connections == 0
            place = endpoint(server.base_url, headers={"x-lab": "$LAB_KEY"})
            await provider.send(wire(place), Heard())
            environ["LAB_KEY"] = "second"
            await provider.send(wire(place), Heard())
            assert [request.headers["x-lab"] for request in server.requests] == ["first", "second"]
            environ["LAB_KEY"] = "two\r\nlines"
            with pytest.raises(ConfigurationError, match="x-lab"):
                await provider.send(wire(place), Heard())
            assert len(server.requests) == 2
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


def test_what_must_not_go_out_does_not() -> None:
    """A provider's key for a foreign host, a missing key and a request that makes no sense open no connection."""

    async def scenario() -> None:
        async with FaultServer() as server:
            provider, heard = OpenAICompatible({"OPENAI_API_KEY": "sk-secret"}), Heard()
            with pytest.raises(KeyNotAllowed):
                await provider.send(wire(endpoint(server.base_url, api_key_env="OPENAI_API_KEY")), heard)
            with pytest.raises(AuthenticationFailed, match="LAB_KEY") as caught:
                await provider.send(wire(endpoint(server.base_url, api_key_env="LAB_KEY")), heard)
            assert caught.value.rung == "lab/m"
            with pytest.raises(InvalidRequest):
                await provider.send(wire(server.base_url, Chat(messages=HELLO.messages, extra={"n": 2})), heard)
            assert (server.connections, heard.sent_count) == (0, 0)
            await provider.aclose()

    run(scenario())


@pytest.mark.parametrize("vectors", [None, "base64"], ids=["floats", "base64"])
def test_embeddings_come_in_the_order_of_the_texts(vectors: Any) -> None:
    """The server may answer in any order and in either encoding; vector i belongs to text i."""

    async def scenario() -> None:
        async with FaultServer() as server:
            content = Embed(texts=("a", "b", "c"))
            ending, _ = await exchange(server, Behaviour(vectors=vectors), streamed=False, content=content)
            assert isinstance(ending, Ending), ending
            assert ending.vectors == ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0))
            assert ending.usage.input_tokens == 7
            assert server.requests[0].path == "/v1/embeddings"
            assert server.requests[0].body == {"model": "m", "input": ["a", "b", "c"]}
            error, _ = await exchange(server, Behaviour(vectors=[[1.0]]), streamed=False, content=content)
            assert isinstance(error, BadAnswer)
            error, _ = await exchange(server, faults.error(500), streamed=False, content=content)
            assert isinstance(error, ServerFailed)

    run(scenario())
