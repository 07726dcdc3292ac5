"""LiteLLM on the wires of other providers: the same deltas and errors, and one request a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Ending
from nbllm.providers.litellm import LiteLLM
from nbllm.providers.litellm_request import RETRIES_ANYWAY
from nbllm.providers.prices import provider_names
from tests.providers.helpers import Heard
from tests.providers.test_litellm_faults import KEY, wire

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # LiteLLM's own deprecations and sockets; see test_litellm_faults
    pytest.mark.usefixtures("swept"),
]


USAGE = {"input_tokens": 9, "output_tokens": 1}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": USAGE}
ANTHROPIC: list[dict[str, Any]] = [
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "One "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "two"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]


async def serve_raw(answers: Callable[[int], bytes]) -> tuple[asyncio.Server, list[bytes]]:
    """A server that answers request number n with the bytes of answers(n) and closes; the heads and bodies that it read."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        seen.append(head + await reader.readexactly(int(sizes[0]) if sizes else 0))
        writer.write(answers(len(seen) - 1))
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0), seen


def http(status: str, body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode()
        + body
    )


def events(*rows: dict[str, Any]) -> bytes:
    return http(
        "200 OK", b"".join(f"event: {row['type']}\ndata: {json.dumps(row)}\n\n".encode() for row in rows), "text/event-stream"
    )


async def ask(server: asyncio.Server, provider: str, *, streamed: bool) -> tuple[Ending | Exception, Heard]:
    heard, litellm = Heard(), LiteLLM({})
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        return await litellm.send(wire(base_url, streamed=streamed, provider=provider), heard), heard
    except Exception as exc:
        return exc, heard
    finally:
        await litellm.aclose()


def test_a_stream_of_anthropics() -> None:
    """Another wire arrives as the same deltas, finish and counts; the key goes in its header to the given address."""

    async def main() -> None:
        server, seen = await serve_raw(lambda _: events(*ANTHROPIC))
        async with server:
            ending, heard = await ask(server, "anthropic", streamed=True)
        assert isinstance(ending, Ending), repr(ending)
        assert heard.text == "One two"
        assert ending.finish_reason == "stop"
        assert (ending.usage.input_tokens, ending.usage.output_tokens) == (9, 4)
        assert seen[0].startswith(b"POST /v1/messages ")
        assert f"x-api-key: {KEY}".encode() in seen[0].lower()

    asyncio.run(main())


@pytest.mark.parametrize("events_sent", [4, 5])
def test_a_cut_stream_of_anthropics_is_no_stop(events_sent: int) -> None:
    """LiteLLM says "stop" for a stream that merely ended; we do not."""

    async def main() -> None:
        server, _ = await serve_raw(lambda _: events(*ANTHROPIC[:events_sent]))
        async with server:
            ending, heard = await ask(server, "anthropic", streamed=True)
        assert type(ending) is errors.StreamInterrupted
        assert heard.text == "One two"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        ("529 Overloaded", "overloaded_error", "Overloaded", errors.ServerFailed),
        ("429 Too Many", "rate_limit_error", "Slow down", errors.RateLimited),
        ("401 No", "authentication_error", f"bad key {KEY}", errors.AuthenticationFailed),
        ("400 Bad", "invalid_request_error", "prompt is too long: 9 tokens > 5 maximum", errors.ContextTooLong),
    ],
)
def test_errors_of_anthropics(status: str, code: str, message: str, kind: type[Exception]) -> None:
    """Its statuses and wordings become our kinds, streamed and whole, and Retry-After is read."""
    body = {"type": "error", "error": {"type": code, "message": message}}

    async def main() -> None:
        for streamed in (False, True):
            server, seen = await serve_raw(lambda _: http(status, json.dumps(body).encode(), more="retry-after: 7\r\n"))
            async with server:
                ending, _ = await ask(server, "anthropic", streamed=streamed)
            assert type(ending) is kind, repr(ending)
            assert KEY not in str(ending)
            assert len(seen) == 1
            if isinstance(ending, errors.RateLimited):
                assert ending.retry_after_s == 7

    asyncio.run(main())


def test_redirects_are_followed_by_litellm() -> None:
    """A documented gap: LiteLLM's client follows a redirect. This fails when a release stops doing so, and the page changes."""

    async def main() -> None:
        target, reached = await serve_raw(lambda _: http("500 No", b"{}"))
        async with target:
            there = f"http://127.0.0.1:{target.sockets[0].getsockname()[1]}/v1/messages"
            server, _ = await serve_raw(lambda _: http("307 Moved", b"", more=f"Location: {there}\r\n"))
            async with server:
                await ask(server, "anthropic", streamed=False)
        assert len(reached) == 1

    asyncio.run(main())


@pytest.mark.parametrize("provider", sorted(RETRIES_ANYWAY))
def test_one_request_where_litellm_would_send_three(provider: str) -> None:
    """For these providers LiteLLM loses max_retries=0; what we pass besides brings it through, and not into the body."""

    async def main() -> None:
        server, seen = await serve_raw(lambda _: http("503 No", b"{}"))
        async with server:
            ending, _ = await ask(server, provider, streamed=False)
        assert isinstance(ending, errors.ServerFailed)
        assert len(seen) == 1
        assert b"max_retries" not in seen[0]

    asyncio.run(main())


@pytest.mark.slow
def test_no_provider_retries_by_itself() -> None:
    """Over every provider that LiteLLM knows: at most one request, whatever becomes of it."""
    from nbllm.testing import offline

    async def one(provider: str) -> int:
        server, seen = await serve_raw(lambda _: http("503 No", b"{}"))
        async with server:
            try:
                async with asyncio.timeout(5):
                    await ask(server, provider, streamed=False)
            except TimeoutError:
                pass
        return len(seen)

    async def main() -> dict[str, int]:
        return {name: count for name in sorted(provider_names()) if (count := await one(name)) > 1}

    with offline():
        assert asyncio.run(main()) == {}
