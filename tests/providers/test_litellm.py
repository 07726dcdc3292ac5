"""LiteLLM behind our contract: when it is imported, what it is called with, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Chat, Ending, Rung
from nbllm.core.ports import Wire
from nbllm.providers.catalog import Catalog
from nbllm.providers.failures import Where
from nbllm.providers.litellm import MALICIOUS_VERSIONS, LiteLLM, load, refuse_malicious
from nbllm.providers.litellm_failures import TABLE, causes, translate
from nbllm.providers.litellm_request import RETRIES_ANYWAY, arguments_for, key_to_pass
from nbllm.providers.prices import provider_names
from nbllm.settings import Endpoint
from tests.providers.helpers import HELLO, Heard
from tests.providers.test_litellm_faults import KEY, wire

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own deprecations and sockets; see test_litellm_faults
WHERE = Where("anthropic/m", "api.anthropic.com", (KEY,))


@pytest.fixture(scope="module")
def litellm() -> Any:
    """The module, imported once, as the provider imports it."""
    return asyncio.run(load())


def catalog_wire(model_id: str, environ: dict[str, str], content: Chat = HELLO) -> Wire:
    return Wire(rung=Catalog({}, environ).rung(model_id), content=content, streamed=False, deadline_s=20)


# ---------------------------------------------------------------------------------------------------- import


def test_it_is_imported_on_first_use_only() -> None:
    """Making the provider, and refusing a request without a key, imports nothing."""
    code = """
import asyncio, sys
from nbllm.errors import AuthenticationFailed
from nbllm.providers.litellm import LiteLLM
from tests.providers.test_litellm import catalog_wire
from tests.providers.helpers import Heard
provider = LiteLLM({})
try:
    asyncio.run(provider.send(catalog_wire("anthropic/claude-haiku-4-5", {}), Heard()))
except AuthenticationFailed as exc:
    print(exc.summary)
print("litellm" in sys.modules)
"""
    refused, imported = told(code)
    assert "ANTHROPIC_API_KEY is not set. Nothing was sent." in refused
    assert imported == "False"


@pytest.mark.slow
def test_the_import_asks_nobody_on_the_network() -> None:
    """LiteLLM would fetch its price list; with our settings it does not, and stays quiet."""
    code = """
import asyncio, socket
from nbllm.providers.litellm import load
asked = []
socket.getaddrinfo = lambda *a, **k: asked.append(a) or (_ for _ in ()).throw(OSError("no network"))
module = asyncio.run(load())
print(asked, module.suppress_debug_info, module.disable_hf_tokenizer_download, module.drop_params)
"""
    assert told(code) == ["[] True True False"]


def told(code: str) -> list[str]:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_cancelled_first_call_does_not_break_the_import(litellm: Any) -> None:
    """The import goes on for the next caller; a caller that gives up is not held."""

    async def main() -> None:
        task = asyncio.create_task(load())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await load() is litellm

    asyncio.run(main())


@pytest.mark.parametrize("version", sorted(MALICIOUS_VERSIONS))
def test_malicious_releases_are_refused(version: str) -> None:
    """1.82.7 and 1.82.8 are not imported, and the message says what to do."""
    with pytest.raises(errors.ConfigurationError, match="malicious") as caught:
        refuse_malicious(version)
    assert "change the keys" in str(caught.value)


def test_other_releases_are_not() -> None:
    """Later and earlier ones are fine."""
    refuse_malicious("1.82.6")
    refuse_malicious("1.84.0")


# ---------------------------------------------------------------------------------------------------- what it is called with


def test_arguments() -> None:
    """Everything of the request, our limits, no retries, and a copy that LiteLLM may change."""
    content = Chat(
        messages=({"role": "user", "content": "Hi"},),
        temperature=0.5,
        max_tokens=7,
        stop=("x",),
        seed=3,
        logprobs=2,
        json_schema={"type": "object", "title": "Out"},
        extra={"thinking": {"type": "enabled"}},
    )
    made = arguments_for(wire("https://api.anthropic.com", content, streamed=True, provider="anthropic", deadline_s=20))
    assert made["model"] == "anthropic/m"
    assert (made["num_retries"], made["max_retries"], made["drop_params"]) == (0, 0, False)
    assert made["api_base"] == "https://api.anthropic.com"
    assert made["timeout"] == 30
    assert (made["temperature"], made["max_tokens"], made["stop"], made["seed"]) == (0.5, 7, ["x"], 3)
    assert (made["logprobs"], made["top_logprobs"]) == (True, 2)
    assert made["response_format"]["json_schema"]["schema"] == {"type": "object", "title": "Out"}
    assert made["thinking"] == {"type": "enabled"}
    assert made["stream_options"] == {"include_usage": True}
    made["messages"][0]["content"] = "changed"
    assert content.messages[0]["content"] == "Hi"


@pytest.mark.parametrize(
    "name", ["api_key", "api_base", "base_url", "num_retries", "fallbacks", "mock_response", "client", "aws_secret_access_key"]
)
def test_extra_may_not_take_control(name: str) -> None:
    """Nothing in extra can send the request elsewhere, repeat it, fake it, or hold a secret."""
    with pytest.raises(errors.InvalidRequest, match=name):
        arguments_for(wire("https://x.example", Chat(messages=HELLO.messages, extra={name: "x"})))


@pytest.mark.parametrize(
    ("model_id", "environ", "key"),
    [
        ("anthropic/m", {"ANTHROPIC_API_KEY": " sk-1 "}, "sk-1"),
        ("gemini/m", {"GOOGLE_API_KEY": "g"}, "g"),
        ("azure/m", {"AZURE_API_KEY": "a", "AZURE_API_BASE": "https://r.openai.azure.com"}, "a"),
        ("replicate/m", {"REPLICATE_API_TOKEN": "r"}, "r"),
        ("bedrock/m", {}, None),
        ("vertex_ai/m", {}, None),
        ("nlp_cloud/m", {"NLP_CLOUD_API_KEY": "n"}, "n"),
        ("nlp_cloud/m", {}, None),
    ],
)
def test_keys(model_id: str, environ: dict[str, str], key: str | None) -> None:
    """Each provider's own variable is read; account credentials and unknown variables are LiteLLM's to find."""
    assert key_to_pass(Catalog({}, environ).rung(model_id), environ) == key


@pytest.mark.parametrize(
    ("model_id", "environ", "kind", "said"),
    [
        ("anthropic/m", {}, errors.AuthenticationFailed, "ANTHROPIC_API_KEY is not set"),
        ("replicate/m", {}, errors.AuthenticationFailed, "REPLICATE_API_KEY is not set"),
        ("azure/m", {"AZURE_API_KEY": "k"}, errors.ConfigurationError, "AZURE_API_BASE is not set"),
        ("azure/m", {"AZURE_API_KEY": "k", "AZURE_API_BASE": "https://evil.example"}, errors.KeyNotAllowed, "Nothing was sent"),
        ("azure/m", {"AZURE_API_KEY": "k", "AZURE_API_BASE": "http://r.openai.azure.com"}, errors.KeyNotAllowed, "unencrypted"),
    ],
)
def test_missing_and_misdirected_keys(model_id: str, environ: dict[str, str], kind: type[Exception], said: str) -> None:
    """Said before anything is imported or sent, with the name of the variable."""
    with pytest.raises(kind, match=said):
        key_to_pass(Catalog({}, environ).rung(model_id), environ)


def test_a_key_that_only_litellm_knows_of(litellm: Any) -> None:
    """For a provider without a row of ours, LiteLLM names the variable that is missing; nothing is sent."""

    async def main() -> None:
        provider, heard = LiteLLM({}), Heard()
        with pytest.raises(errors.AuthenticationFailed, match="NLP_CLOUD_API_KEY"):
            await provider.send(catalog_wire("nlp_cloud/dolphin", {}), heard)
        await provider.aclose()
        assert heard.sent_count == 0

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- errors


def made(litellm: Any, name: str) -> BaseException:
    """An error of LiteLLM's class of that name, without running its constructor (their signatures all differ)."""
    kind = getattr(litellm.exceptions, name)
    error: BaseException = kind.__new__(kind)
    error.args = (f"litellm.{name}: it happened, key {KEY}",)
    error.message = error.args[0]  # type: ignore[attr-defined]  # as LiteLLM sets it
    return error


def test_every_class_of_litellm_is_in_the_table(litellm: Any) -> None:
    """A new class in a later release needs a decision: this fails until it is mapped."""
    own = {
        name
        for name, kind in vars(litellm.exceptions).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == "litellm.exceptions"
    }
    assert own
    assert own - {name for name, _ in TABLE} == set()


def test_the_table_is_most_specific_first(litellm: Any) -> None:
    """No row stands behind one of its base classes, where it could never be reached."""
    names = [name for name, _ in TABLE]
    for place, name in enumerate(names):
        kind = getattr(litellm.exceptions, name, None)
        if kind is not None:
            earlier = {base.__name__ for base in kind.__mro__[1:]} & set(names[:place])
            assert not earlier, (name, earlier)


@pytest.mark.parametrize(("name", "kind"), TABLE, ids=[name for name, _ in TABLE])
def test_each_class_becomes_its_kind(litellm: Any, name: str, kind: type[errors.AttemptFailed]) -> None:
    """Without an HTTP answer or a cause the table decides; the key is not in the message, nor LiteLLM's prefixes."""
    error = translate(made(litellm, name), WHERE, began=False)
    assert type(error) is kind
    assert KEY not in str(error)
    assert "it happened" in str(error)
    assert "litellm." not in str(error)


def test_mid_stream_everything_is_an_interruption(litellm: Any) -> None:
    """Once a piece was told, what broke it off does not matter: the partial counts."""
    for name, _ in TABLE:
        assert type(translate(made(litellm, name), WHERE, began=True)) is errors.StreamInterrupted


def test_an_error_of_no_known_class() -> None:
    """A bug inside LiteLLM is a failure of the attempt, not of the program."""
    error = translate(AttributeError("'NoneType' object has no attribute 'x'"), WHERE, began=False)
    assert type(error) is errors.ServerFailed


def test_a_missing_package_is_named() -> None:
    """Vertex without google-auth: what to install, and that nothing was sent."""
    outer = RuntimeError("APIConnectionError: No module named 'google'")
    outer.__cause__ = ModuleNotFoundError("No module named 'google'", name="google")
    error = translate(outer, WHERE, began=False)
    assert type(error) is errors.ConfigurationError
    assert "pip install google-auth" in str(error)


def test_a_circle_of_causes_ends() -> None:
    """Errors that name each other as cause do not hang the translation."""
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert list(causes(one)) == [one, two]


# ---------------------------------------------------------------------------------------------------- other wires

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


def test_rungs_of_the_catalog_are_what_the_provider_takes() -> None:
    """From an id to arguments, address and key, without the network."""
    environ = {"COHERE_API_KEY": "c"}
    request = catalog_wire("cohere/command-r7b-12-2024", environ)
    assert arguments_for(request)["api_base"] == "https://api.cohere.com/v2/chat"
    assert key_to_pass(request.rung, environ) == "c"
    assert isinstance(request.rung, Rung)
    assert request.rung.endpoint == Endpoint(base_url="https://api.cohere.com/v2/chat", api_key_env="COHERE_API_KEY")
